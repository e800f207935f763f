"""A job's own caches: whose they are, where they lie, what outlives them, and the warm copy."""

import io
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zlib
from pathlib import Path

import pytest

from medarc_plugin.job import caches, warm
from medarc_plugin.job.log import Log

OWNER = """
import json, os, subprocess, sys
from medarc_plugin.job import caches
made = caches.make(json.loads(sys.argv[1]))
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
print(made.root, flush=True)
sys.stdin.read()
"""

GIVER = """
import json, os, sys
from pathlib import Path
from medarc_plugin.job import caches, warm
given, copy = json.loads(sys.argv[1]), warm.Warm(Path(sys.argv[2]), "key", 1 << 30)
made = caches.make(given, copy)
folder = caches.compile_folder(made.root)
for number in range(20):
    path = folder / "triton" / f"{sys.argv[3]}-{number}"
    path.write_bytes(os.fsencode(folder) * 1000)
print("ready", flush=True)
sys.stdin.read()
print(made.give_back(), flush=True)
made.remove()
"""


@pytest.fixture
def node():
    """The disk of a node of its own, with a short name, as nodes have them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def given(tmp_path, node):
    """The environment of a job on that node."""
    (tmp_path / "home").mkdir()
    return {"TMPDIR": str(node), "HOME": str(tmp_path / "home")}


@pytest.fixture
def alone(node, monkeypatch):
    """Sweep no other place."""
    monkeypatch.setattr(caches, "places", lambda _: (node,))


@pytest.fixture
def copy(tmp_path):
    return warm.Warm(tmp_path / "warm", "key", 1 << 30)


@pytest.fixture
def owners(given):
    """Start processes that hold caches until they are ended."""
    started = []

    def start(count):
        new = [
            subprocess.Popen(
                [sys.executable, "-c", OWNER, json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        started.extend(new)
        return [(process, Path(process.stdout.readline().strip())) for process in new]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def compile_something(made, **files):
    """Write files where a compiler would, by name and content."""
    for name, content in files.items():
        path = caches.compile_folder(made.root) / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_job(given, copy, **files):
    """A run that compiles files and ends well; returns what it said."""
    made = caches.make(given, copy)
    compile_something(made, **files)
    said = made.give_back()
    made.remove()
    return said


def names_in(copy):
    with tarfile.open(copy.path) as tar:
        return {member.name for member in tar} - {warm.END}


def test_all_of_it_is_this_users_alone(given, node):
    old = os.umask(0)
    made = caches.make(given)
    os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made.root.rglob("*") if path.is_dir()}

    assert made.root.parent == node
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700
    assert modes == {0o700}
    assert stat.S_IMODE((made.root / "owner").stat().st_mode) == 0o600
    made.remove()
    assert list(node.iterdir()) == []


def test_two_jobs_share_no_folder(given):
    one, other = caches.make(given), caches.make(given)
    shared = {name for name in one.variables if one.variables[name] == other.variables[name]}

    # What vLLM makes a part of its key must be the same in each job.
    assert shared == {"HF_HOME", "VLLM_XLA_CACHE_PATH"}
    for made in (one, other):
        made.remove()


def test_a_socket_of_vllm_fits_below_the_temporary_folder(given, node):
    place = node / ("p" * (caches.LONGEST_TEMPORARY - len(f"{node}//medarc-12345678/t")))
    place.mkdir()
    made = caches.make({**given, "TMPDIR": str(place)})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{made.variables['TMPDIR']}/{uuid.uuid4()}")

    assert len(made.variables["TMPDIR"]) == caches.LONGEST_TEMPORARY
    assert len(str(caches.compile_folder(made.root))) == caches.COMPILE_LENGTH
    made.remove()


def test_a_place_with_a_long_name_is_passed_over(given, node):
    place = node / ("p" * caches.LONGEST_TEMPORARY)
    place.mkdir()
    made = caches.make({**given, "SLURM_TMPDIR": str(place)})

    assert made.root.parent == node
    made.remove()


def test_slurms_folder_comes_first_and_what_cannot_be_used_is_passed_over(given, node):
    (node / "slurm").mkdir()
    (node / "file").write_text("")
    roots = []
    for place in (node / "slurm", node / "file", node / "nowhere"):
        made = caches.make({**given, "SLURM_TMPDIR": str(place)})
        roots.append(made.root.parent)
        made.remove()

    assert roots == [node / "slurm", node, node]


def test_no_place_at_all_is_said_with_each_reason(given, node, monkeypatch):
    (node / "file").write_text("")
    monkeypatch.setattr(caches, "places", lambda _: (node / "file", node / "nowhere"))

    with pytest.raises(caches.CachesError) as caught:
        caches.make(given)

    assert str(caught.value) == (
        f"no place for this run's caches: {node}/file: Not a directory; "
        f"{node}/nowhere: No such file or directory"
    )
    assert "TMPDIR" in caught.value.hint


def test_a_place_where_nothing_can_be_loaded_from_is_passed_over(given, node, monkeypatch):
    real = os.statvfs

    class Mounted:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(caches.os, "statvfs", lambda path: Mounted() if path == node else real(path))
    monkeypatch.setattr(caches, "places", lambda _: (node,))

    with pytest.raises(caches.CachesError, match="noexec"):
        caches.make(given)
    assert list(node.iterdir()) == []


def test_a_folder_that_cannot_be_filled_leaves_nothing(given, node, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches, "_lead_to_downloads", full)

    with pytest.raises(caches.CachesError, match="No space left on device"):
        caches.make(given)
    assert list(node.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({}, "{home}/.cache/huggingface"),
        ({"XDG_CACHE_HOME": "/scratch/cache"}, "/scratch/cache/huggingface"),
        ({"XDG_CACHE_HOME": "relative"}, "{home}/.cache/huggingface"),
        ({"XDG_CACHE_HOME": "/scratch/cache", "HF_HOME": "/data/hf"}, "/data/hf"),
    ],
)
def test_models_and_tokens_stay_where_they_were(given, variables, home):
    made = caches.make({**given, **variables})

    assert made.variables["HF_HOME"] == home.format(home=given["HOME"])
    assert not {"HF_HUB_CACHE", "HF_TOKEN_PATH", "HF_TOKEN"} & set(made.variables)
    made.remove()


def test_what_uv_has_downloaded_is_found_and_kept(given):
    cached = Path(given["HOME"]) / ".cache" / "uv"
    cached.mkdir(parents=True)
    (cached / "wheel").write_text("here")
    made = caches.make(given)
    moved = Path(made.variables["XDG_CACHE_HOME"]) / "uv"
    found = (moved / "wheel").read_text()
    (moved / "another").write_text("new")
    made.remove()

    assert found == "here"
    assert {path.name for path in cached.iterdir()} == {"wheel", "another"}


def test_what_the_user_set_for_this_run_is_left_alone(given):
    own = {"TRITON_CACHE_DIR": "/scratch/triton", "XDG_CACHE_HOME": "/scratch/cache"}
    made = caches.make({**given, **own}, kept=["TRITON_CACHE_DIR"])

    assert "TRITON_CACHE_DIR" not in made.variables
    assert made.variables["XDG_CACHE_HOME"] == str(made.root / "x")
    made.remove()


def prepare_dataset(folder):
    prepared = folder / "me___data" / "default" / "0.0.0" / "abc"
    prepared.mkdir(parents=True)
    for name in ("dataset_info.json", "data-train.arrow", "builder.lock"):
        (prepared / name).write_text(name)
    os.utime(prepared, (1000, 1000))
    (folder / "downloads" / "a" / "b" / "c").mkdir(parents=True)
    (folder / "me___data" / "default" / "0.0.0" / "abd.incomplete").mkdir()
    return prepared


def test_prepared_data_sets_are_there_and_what_is_derived_stays_in_the_job(given, tmp_path):
    prepared = prepare_dataset(tmp_path / "hf" / "datasets")
    made = caches.make({**given, "HF_HOME": str(tmp_path / "hf")})
    own = Path(made.variables["HF_DATASETS_CACHE"])
    found = own / "me___data" / "default" / "0.0.0" / "abc"
    names = {path.name for path in found.iterdir()}
    text = (found / "data-train.arrow").read_text()
    modified = found.stat().st_mtime
    (found / "cache-123.arrow").write_text("derived")
    folders = {path.name for path in own.iterdir()} | {path.name for path in found.parent.iterdir()}
    made.remove()

    assert own.is_relative_to(made.root)
    assert names == {"dataset_info.json", "data-train.arrow"}
    assert text == "data-train.arrow"
    assert modified == 1000
    assert folders == {"me___data", "abc"}
    assert {path.name for path in prepared.iterdir()} == names | {"builder.lock"}


def test_too_many_data_sets_stay_where_they_are(given, tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "MOST_LINKS", 1)
    prepare_dataset(tmp_path / "data")
    made = caches.make({**given, "HF_DATASETS_CACHE": str(tmp_path / "data")})

    assert made.variables["HF_DATASETS_CACHE"] == str(tmp_path / "data")
    assert made.remarks == [f"data sets stay in {tmp_path}/data: more than 1 files, or not readable"]
    made.remove()


def test_what_dead_owners_left_is_removed_and_the_living_keep_theirs(given, alone, owners, node):
    held = owners(6)
    dead, living = held[::2], held[1::2]
    for process, _ in dead:
        process.kill()
        process.wait()
    count = caches.sweep(given)

    assert count == len(dead)
    assert set(node.iterdir()) == {root for _, root in living}


def test_a_sweep_leaves_this_process_its_own(given, alone):
    made = caches.make(given)

    assert caches.sweep(given) == 0
    assert made.root.is_dir()
    made.remove()


def test_a_sweep_follows_no_links_and_takes_nothing_else(given, alone, node, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    (node / "medarc-0a1b2c3d").symlink_to(precious)
    (node / "medarc-other").mkdir()
    (node / ".medarc-0a1b2c3d").mkdir()
    trap = node / "medarc-ffffffff"
    trap.mkdir()
    (trap / "owner").symlink_to(precious / "file")

    assert caches.sweep(given) == 0
    assert len(list(node.iterdir())) == 4
    assert (precious / "file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_sweep_leaves_another_users_folder_alone(given, alone, node):
    (node / "medarc-0a1b2c3d").mkdir()
    os.chown(node / "medarc-0a1b2c3d", 12345, 12345)

    assert caches.sweep(given) == 0
    assert (node / "medarc-0a1b2c3d").exists()


def test_a_sweep_finishes_what_was_begun(given, alone, node):
    unfinished, half_removed = node / ".medarc-0a1b2c3d", node / "medarc-0a1b2c3d"
    for path in (unfinished, half_removed):
        path.mkdir()
    os.utime(unfinished, (0, 0))

    assert caches.sweep(given) == 2
    assert list(node.iterdir()) == []


def test_removing_follows_no_links_and_can_be_repeated(given, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("")
    made = caches.make(given)
    (made.root / "t" / "link").symlink_to(tmp_path / "precious")
    closed = made.root / "t" / "closed" / "inside"
    closed.mkdir(parents=True)
    closed.chmod(0)
    closed.parent.chmod(0o500)

    assert made.remove() is None
    assert made.remove() is None
    assert (tmp_path / "precious" / "file").exists()


def test_what_cannot_be_removed_is_said(given, alone, monkeypatch):
    made = caches.make(given)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)
        said = made.remove()

    assert said == f"{made.root} could not be removed"
    assert caches.sweep(given) == 1


def test_a_second_run_finds_what_the_first_compiled_under_its_own_name(given, copy, monkeypatch):
    monkeypatch.setattr(warm, "CHUNK", 64)
    made = caches.make(given, copy)
    old = os.fsencode(caches.compile_folder(made.root))
    pattern = b"".join(b"x" * length + old + b"/k" for length in range(70))
    compile_something(made, triton__a__k=pattern, vllm__m=b"\x80\x04" + old, inductor__plain=b"p" * 1000)
    assert made.remarks == [f"compile caches: no warm copy yet, in {made.remarks[0][-5:]}"]
    assert "3 new of 3 files given back" in made.give_back()
    made.remove()
    again = caches.make(given, copy)
    folder = caches.compile_folder(again.root)
    new = os.fsencode(folder)

    assert new != old
    assert (folder / "triton/a/k").read_bytes() == pattern.replace(old, new)
    assert (folder / "vllm/m").read_bytes() == b"\x80\x04" + new
    assert (folder / "inductor/plain").read_bytes() == b"p" * 1000
    assert old not in copy.path.read_bytes()
    again.remove()


def test_torchs_sealed_artifacts_stay_whole(given, copy):
    made = caches.make(given, copy)
    content = b"an artifact of " + os.fsencode(caches.compile_folder(made.root))
    sealed = zlib.crc32(content).to_bytes(4, "big") + content
    compile_something(made, vllm__artifact=sealed, vllm__other=b"\0\0\0\0" + content)
    made.give_back()
    made.remove()
    again = caches.make(given, copy)
    folder = caches.compile_folder(again.root)

    assert (folder / "vllm/artifact").read_bytes() == sealed
    assert os.fsencode(folder) in (folder / "vllm/other").read_bytes()
    again.remove()


def test_times_and_the_right_to_run_are_kept(given, copy):
    made = caches.make(given, copy)
    compile_something(made, extensions__x__x_so=b"", extensions__x__source=b"")
    folder = caches.compile_folder(made.root) / "extensions" / "x"
    (folder / "x_so").chmod(0o755)
    os.utime(folder / "source", (1000, 1000))
    made.give_back()
    made.remove()
    again = caches.make(given, copy)
    folder = caches.compile_folder(again.root) / "extensions" / "x"

    assert stat.S_IMODE((folder / "x_so").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "source").stat().st_mode) == 0o600
    assert (folder / "source").stat().st_mtime == 1000
    again.remove()


def test_locks_measurements_and_what_cannot_move_are_left_out(given, copy, tmp_path):
    made = caches.make(given, copy)
    left_out = (
        "extensions/x/lock",
        "inductor/locks/a.lock",
        "triton/KEY/tmp.pid_12_ab/kernel",
        "tilelang/tmp/source.cu",
        "vllm/gpu_p2p_access_cache_for_0,1.json",
        "vllm/startup_plan/plan.json",
        "flashinfer/.cache/flashinfer/0.6.14/90a/cached_ops/sampling/build.ninja",
        "flashinfer/.cache/flashinfer/0.6.14/90a/generated/sampling/sampling.cu",
    )
    kept = ("flashinfer/.cache/flashinfer/cubins/a.cubin", "inductor/ab/block.py", "vllm/modelinfos/m.json")
    compile_something(made, **dict.fromkeys((*left_out, *kept), b"x"))
    (caches.compile_folder(made.root) / "triton" / "link").symlink_to(tmp_path)
    made.give_back()
    made.remove()

    assert names_in(copy) == set(kept)


def test_flashinfer_takes_what_was_built_as_from_its_package(given, copy):
    ops = "flashinfer/.cache/flashinfer/0.6.14/90a/cached_ops"
    run_job(given, copy, **{f"{ops}/sampling/sampling.so": b"library"})
    made = caches.make({**given, "PYTHONPATH": "/mine"}, copy)
    package, mine = made.variables["PYTHONPATH"].split(":")
    flashinfer = made.root / "t" / "flashinfer"
    flashinfer.mkdir()
    (flashinfer / "__init__.py").write_text("")
    (flashinfer / "version.py").write_text("__version__ = '0.6.14'")
    ask = "import flashinfer_jit_cache as f; print(f.__version__, f.get_jit_cache_dir())"
    said = subprocess.check_output(
        [sys.executable, "-c", ask], env={"PYTHONPATH": f"{package}:{flashinfer.parent}"}, text=True
    )
    version, folder = said.split()
    library = (Path(folder) / "sampling" / "sampling.so").read_bytes()
    compile_something(made, **{f"{ops}/norm/norm.so": b"another"})
    made.give_back()
    made.remove()

    assert (version, library, mine) == ("0.6.14", b"library", "/mine")
    assert names_in(copy) == {f"{warm.LIBRARIES}/{name}/{name}.so" for name in ("sampling", "norm")}


def test_flashinfers_own_package_wins(given, copy, tmp_path, monkeypatch):
    run_job(given, copy, flashinfer_libraries__a__a=b"")
    packages(tmp_path / "site", flashinfer_jit_cache="0.6.14")
    monkeypatch.syspath_prepend(tmp_path / "site")
    made = caches.make(given, copy)

    assert "PYTHONPATH" not in made.variables
    made.remove()


def test_the_copy_is_this_users_alone(given, copy):
    old = os.umask(0)
    run_job(given, copy, triton__k=b"1")
    os.umask(old)

    assert stat.S_IMODE(copy.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600


def test_what_is_unchanged_is_not_written_again(given, copy):
    run_job(given, copy, triton__k=b"1")
    before = copy.path.stat().st_ino, copy.path.read_bytes()
    said = run_job(given, copy, triton__k=b"1")

    assert "nothing new was compiled" in said
    assert (copy.path.stat().st_ino, copy.path.read_bytes()) == before


def test_a_file_of_another_content_is_given_back(given, copy):
    run_job(given, copy, triton__k=b"1", triton__l=b"1")

    assert "1 new of 2 files given back" in run_job(given, copy, triton__k=b"2")


def test_a_run_without_a_warm_copy_leaves_none(given, copy):
    made = caches.make(given)
    compile_something(made, triton__k=b"1")

    assert made.give_back() is None
    assert made.remarks == []
    made.remove()
    assert not copy.folder.exists()


def flipped(data):
    place = data.index(b"precious")
    return data[:place] + b"P" + data[place + 1 :]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[:700],
        lambda data: data[:1024],
        lambda data: data[:-2048],
        lambda data: data[: len(data) // 2],
        lambda _: b"",
        lambda _: b"no tar at all" * 1000,
        flipped,
    ],
)
def test_a_copy_that_is_not_whole_is_ignored_and_removed(given, copy, harm):
    run_job(given, copy, triton__k=b"precious", triton__l=b"2" * 3000)
    copy.path.write_bytes(harm(copy.path.read_bytes()))
    made = caches.make(given, copy)
    (remark,) = made.remarks
    files = [path for path in caches.compile_folder(made.root).rglob("*") if path.is_file()]

    assert remark.startswith("compile caches: the warm copy was not whole and is removed: ")
    assert "\n" not in remark
    assert files == []
    assert not copy.path.exists()
    compile_something(made, triton__k=b"1")
    assert "1 new of 1 files given back" in made.give_back()
    made.remove()


def hostile(copy, change):
    """A copy that is whole but for one member."""
    content = b"mine"
    member = tarfile.TarInfo("triton/k")
    member.size = len(content)
    change(member)
    size = member.size if member.isreg() else 0
    checksum = zlib.crc32(content[:size], zlib.crc32(member.name.encode()))
    end = tarfile.TarInfo(warm.END)
    said = json.dumps({"files": 1, "crc32": checksum}).encode()
    end.size = len(said)
    copy.folder.mkdir(mode=0o700)
    with tarfile.open(copy.path, "w") as tar:
        tar.addfile(member, io.BytesIO(content) if size else None)
        tar.addfile(end, io.BytesIO(said))


@pytest.mark.parametrize(
    "change",
    [
        lambda member: setattr(member, "name", "/tmp/hostile"),
        lambda member: setattr(member, "name", "../../hostile"),
        lambda member: setattr(member, "name", "triton/../../hostile"),
        lambda member: (setattr(member, "type", tarfile.SYMTYPE), setattr(member, "linkname", "/etc")),
        lambda member: (setattr(member, "type", tarfile.LNKTYPE), setattr(member, "linkname", "/etc/passwd")),
        lambda member: setattr(member, "type", tarfile.CHRTYPE),
        lambda member: setattr(member, "type", tarfile.FIFOTYPE),
    ],
)
def test_nothing_is_written_outside_and_no_links_or_devices_are_made(given, node, copy, change):
    hostile(copy, change)
    made = caches.make(given, copy)

    assert "the warm copy was not whole and is removed: it holds" in made.remarks[0]
    found = {path.name for path in caches.compile_folder(made.root).rglob("*")}
    assert found == set(caches.COMPILED.values())
    made.remove()
    assert list(node.iterdir()) == []
    assert not Path("/tmp/hostile").exists()


def test_a_copy_that_others_can_write_is_not_used(given, copy, tmp_path):
    run_job(given, copy, triton__k=b"1")
    remarks = []
    for harm in (
        lambda: copy.path.chmod(0o620),
        lambda: copy.folder.chmod(0o777),
        lambda: (copy.path.rename(tmp_path / "elsewhere"), copy.path.symlink_to(tmp_path / "elsewhere")),
    ):
        harm()
        made = caches.make(given, copy)
        remarks += made.remarks
        made.remove()
        copy.path.chmod(0o600)
        copy.folder.chmod(0o700)

    assert [remark.split(":")[1] for remark in remarks] == [" not seeded"] * 3


def test_a_copy_keeps_its_limit_and_says_so(given, copy):
    small = warm.Warm(copy.folder, copy.key, 1 << 20)
    said = run_job(given, small, triton__k=b"1" * (3 << 20))

    assert "not given back: 3 MiB are more than the 1 MiB of --warm-cache-size" in said
    assert not copy.folder.exists()


def test_a_copy_that_would_grow_too_large_loses_what_this_run_did_not_use(given, copy):
    small = warm.Warm(copy.folder, copy.key, 2500)
    run_job(given, small, triton__a__k=b"1" * 900, triton__b__k=b"2" * 900)
    made = caches.make(given, small)
    folder = caches.compile_folder(made.root)
    # As most file systems note a read; some are mounted so that none is noted.
    facts = (folder / "triton/b/k").stat()
    os.utime(folder / "triton/b/k", ns=(facts.st_mtime_ns + 1, facts.st_mtime_ns))
    compile_something(made, triton__c__k=b"3" * 900)
    made.give_back()
    made.remove()

    assert names_in(copy) == {"triton/b/k", "triton/c/k"}


def test_the_copies_used_longest_ago_go_first(given, copy):
    for age, key in enumerate(("new", "middle", "old")):
        run_job(given, warm.Warm(copy.folder, key, 1 << 30), triton__k=b"1" * 5000)
        moment = time.time() - 1000 * age
        os.utime(copy.folder / f"{key}.tar", (moment, moment))
    (copy.folder / ".key-crashed").write_text("")
    os.utime(copy.folder / ".key-crashed", (0, 0))
    run_job(given, warm.Warm(copy.folder, "key", 18_000), triton__k=b"1" * 5000)

    assert {path.name for path in copy.folder.iterdir()} == {"key.tar", "new.tar"}


def test_what_another_run_gave_back_meanwhile_is_kept(given, copy):
    run_job(given, copy, triton__a=b"1")
    one, other = caches.make(given, copy), caches.make(given, copy)
    compile_something(one, triton__b=b"one", triton__c=b"one")
    compile_something(other, triton__c=b"other", triton__d=b"other")
    for made in (one, other):
        made.give_back()
        made.remove()
    again = caches.make(given, copy)
    folder = caches.compile_folder(again.root) / "triton"

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a": b"1",
        "b": b"one",
        "c": b"other",
        "d": b"other",
    }
    again.remove()


def test_a_torn_copy_of_another_run_spoils_nothing(given, copy):
    run_job(given, copy, triton__a=b"1")
    made = caches.make(given, copy)
    compile_something(made, triton__b=b"2")
    copy.path.write_bytes(copy.path.read_bytes()[:-2048])
    made.give_back()
    made.remove()

    assert names_in(copy) == {"triton/a", "triton/b"}
    again = caches.make(given, copy)
    assert "2 files" in again.remarks[0]
    again.remove()


def test_a_run_gives_back_while_it_goes_on(given, copy, until, capfd):
    made = caches.make(given, copy)
    compile_something(made, triton__k=b"1")

    made.give_back_beside(Log())
    until(lambda: "files given back" in capfd.readouterr().out)

    assert names_in(copy) == {"triton/k"}
    assert made.root.is_dir()


def test_runs_that_give_back_at_once_leave_a_whole_copy(given, copy, node):
    givers = [
        subprocess.Popen(
            [sys.executable, "-c", GIVER, json.dumps(given), str(copy.folder), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    for giver in givers:
        assert giver.stdout.readline() == "ready\n"
    for giver in givers:
        giver.stdin.close()
    said = [giver.stdout.read() for giver in givers]
    for giver in givers:
        giver.wait(timeout=60)
        giver.stdout.close()
    made = caches.make(given, copy)
    names = [path.name for path in (caches.compile_folder(made.root) / "triton").iterdir()]
    made.remove()

    assert all("files given back" in text for text in said)
    assert [path.name for path in copy.folder.iterdir()] == ["key.tar"]
    assert len(names) in range(20, 121, 20)
    assert list(node.iterdir()) == []


def test_a_full_disk_leaves_the_copy_as_it_was(given, copy):
    run_job(given, copy, triton__k=b"1")
    before = copy.path.read_bytes()
    made = caches.make(given, copy)
    compile_something(made, triton__l=b"2" * (2 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    said = made.give_back()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    made.remove()

    assert "not given back: " in said
    assert copy.path.read_bytes() == before
    assert [path.name for path in copy.folder.iterdir()] == ["key.tar"]


def test_a_node_without_room_starts_with_empty_caches(given, copy, monkeypatch):
    run_job(given, copy, triton__k=b"1")

    class Full:
        f_bavail, f_frsize, f_flag = 1, 4096, 0

    monkeypatch.setattr(warm.os, "statvfs", lambda _: Full())
    job = caches.make(given, copy)

    assert "not seeded" in job.remarks[0]
    assert "has no room for" in job.remarks[0]
    job.remove()


def test_a_folder_for_copies_that_cannot_be_made_is_said(given, tmp_path):
    (tmp_path / "file").write_text("")
    said = run_job(given, warm.Warm(tmp_path / "file" / "warm", "key", 1 << 30), triton__k=b"1")

    assert "not given back: " in said


def test_a_signal_ends_seeding_and_giving_back(given, copy):
    run_job(given, copy, triton__k=b"1")
    before = copy.path.read_bytes()
    made = caches.make(given, copy, stopped=lambda: True)
    found = [path for path in caches.compile_folder(made.root).rglob("*") if path.is_file()]
    compile_something(made, triton__l=b"2")
    said = made.give_back(stopped=lambda: True)
    made.remove()

    assert made.remarks[0].startswith("compile caches: not seeded: a signal to stop arrived")
    assert found == []
    assert "not given back: a signal to stop arrived" in said
    assert copy.path.read_bytes() == before
    assert [path.name for path in copy.folder.iterdir()] == ["key.tar"]


def packages(folder, **versions):
    for name, version in versions.items():
        (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
    return [str(folder), str(folder / "nowhere")]


def test_a_key_changes_with_all_that_it_stands_for(tmp_path):
    usual = {"torch": "2.11.0", "triton": "3.6.0", "vllm": "0.26.0", "flashinfer_python": "0.6.14"}
    search = packages(tmp_path / "a", **usual, numpy="2.3.5")
    keys = [
        warm.warm_key(["NVIDIA H200"], search),
        warm.warm_key(["NVIDIA H100"], search),
        warm.warm_key(["NVIDIA H200"], search, more="x"),
        *(
            warm.warm_key(["NVIDIA H200"], packages(tmp_path / name, **{**usual, name: "9"}))
            for name in usual
        ),
    ]

    assert len(set(keys)) == len(keys)
    assert warm.Warm.find({"FLASHINFER_NVCC": "x"}, [], 1) != warm.Warm.find({}, [], 1)
    assert warm.warm_key(["NVIDIA H200"] * 4, packages(tmp_path / "c", **usual, numpy="1")) == keys[0]


def test_each_user_has_a_folder_of_copies(tmp_path):
    home = {"HOME": str(tmp_path)}

    assert warm.warm_folder(home) == tmp_path / ".cache" / "medarc" / "compile"
    assert warm.warm_folder({**home, "XDG_CACHE_HOME": "/c"}) == Path("/c/medarc/compile")
    assert warm.warm_folder({**home, "MEDARC_CACHE_DIR": "/m"}) == Path(f"/m/compile-{os.geteuid()}")
    assert warm.warm_folder({**home, "MEDARC_CACHE_DIR": "m"}) == warm.warm_folder(home)
