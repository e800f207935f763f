"""Profiles in files: which are read, which value wins, and what is said of a mistake."""

import os
from pathlib import Path

import pytest

from medarc_plugin import profile_files, profiles
from medarc_plugin.errors import UsageError


@pytest.fixture(autouse=True)
def _alone(clean_environment, monkeypatch, tmp_path):
    """No profile of this machine's own."""
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))


@pytest.fixture
def project_file(work):
    return work / "medarc.toml"


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "home" / ".config" / "medarc" / "medarc.toml"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def site_file(tmp_path):
    path = tmp_path / "site" / "medarc" / "medarc.toml"
    path.parent.mkdir(parents=True)
    return path


def settled(name=None, **environment):
    return profiles.settle(profile_files.layers(name, environment))


def test_without_files_there_are_no_layers():
    assert profile_files.layers(None, {}) == []


def test_project_wins_over_user_wins_over_site(project_file, user_file, site_file):
    project_file.write_text('[slurm]\npartition = "project"\n')
    user_file.write_text('[slurm]\npartition = "user"\naccount = "user"\n')
    site_file.write_text('[slurm]\npartition = "site"\naccount = "site"\nqos = "site"\n')

    found = settled()

    options = found.options
    assert (options.partition, options.account, options.qos) == ("project", "user", "site")
    assert found.sources["partition"] == f"{project_file} [slurm]"
    assert found.sources["qos"] == f"{site_file} [slurm]"


def test_a_named_section_wins_over_what_holds_for_every_run(project_file):
    project_file.write_text('[slurm]\ntime = "60"\nqos = "low"\n[profile.long]\ntime = "600"\n')

    found = settled("long")

    assert (found.options.time, found.options.qos) == ("600", "low")
    assert found.sources["time"] == f"{project_file} [profile.long]"


def test_a_section_of_the_user_is_found_beside_one_of_the_project(project_file, user_file):
    project_file.write_text('[slurm]\npartition = "project"\n[profile.a]\ntime = "1"\n')
    user_file.write_text('[profile.a]\ntime = "2"\nqos = "a"\n[profile.b]\ntime = "3"\n')

    assert (settled("a").options.time, settled("a").options.qos) == ("1", "a")
    assert (settled("b").options.time, settled("b").options.partition) == ("3", "project")


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        (None, {}, "3"),
        (None, {"MEDARC_PROFILE": "b"}, "2"),
        ("a", {"MEDARC_PROFILE": "b"}, "1"),
        (None, {"MEDARC_PROFILE": ""}, "3"),
    ],
)
def test_who_chooses_the_section(project_file, name, environment, expected):
    project_file.write_text(
        'default_profile = "c"\n[profile.a]\ntime = "1"\n[profile.b]\ntime = "2"\n[profile.c]\ntime = "3"\n'
    )

    assert settled(name, **environment).options.time == expected


def test_the_profile_of_a_project_holds_below_its_root(project_file, work, monkeypatch):
    project_file.write_text('[slurm]\npartition = "project"\n')
    (work / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(work / "deep" / "er")

    assert settled().options.partition == "project"


def test_paths_are_seen_from_the_profile(project_file, work, monkeypatch):
    project_file.write_text('[slurm]\nprime_rl_dir = "../prime-rl"\nhf-cache-dir = "~/hub"\n')
    (work / "deep").mkdir()
    monkeypatch.chdir(work / "deep")

    options = settled().options

    assert os.path.normpath(options.prime_rl_dir) == str(work.parent / "prime-rl")
    assert str(options.hf_cache_dir) == str(Path("~/hub").expanduser())


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        (
            "[slurm]\n\npartitoin = 'x'\n",
            ":3: [slurm] has an unknown key: partitoin",
            "did you mean partition?",
        ),
        (
            "[profile.a]\nqos = 'x'\n[profile.b]\nqoss = 'x'\n",
            ":4: [profile.b] has an unknown key: qoss",
            "qos?",
        ),
        ("\npartition = 'x'\n", ":2: the file has an unknown key: partition", "options stand in [slurm]"),
        ("[slrum]\nqos = 'x'\n", ":1: the file has an unknown key: slrum", "did you mean slurm?"),
        ("[slurm]\nzzz = 1\n", ":2: [slurm] has an unknown key: zzz", "medarc_slurm options"),
        ("zzz = 1\n", ":1: the file has an unknown key: zzz", "known are: default_profile, slurm, profile"),
        ("[slurm\n", "is no TOML", "mend the file"),
        (f"[slurm]\nnice = {'9' * 5000}\n", "is no TOML", "mend the file"),
        ("slurm = 3\n", ":1: slurm must be a table", ""),
        ("default_profile = 3\n", ":1: default_profile must be a profile's name", ""),
        ('[profile."a b"]\n', "'a b' is no name for a profile", "letters"),
        ("[slurm]\nqos = 'x'\ntime = 'soon'\n", ":3: [slurm] --time: SLURM cannot read 'soon'", ""),
        ("[slurm]\ncpus-per-gpu = 0\n", ":2: [slurm] --cpus-per-gpu: ", ""),
        ('[profile.a]\ncomment = "a\\nb"\n', ":2: [profile.a] --comment: a value cannot contain a line", ""),
        ("[slurm]\nmem = '1G'\nmem_per_gpu = '1G'\n", ":2: [slurm] --mem 1G and --mem-per-gpu 1G", ""),
        (
            "[slurm]\nmax-requeues = 1\nmax_requeues = 2\n",
            ":3: [slurm] has max_requeues twice: max-requeues and max_requeues",
            "keep one of them",
        ),
        ("[profile]\na = 3\n", ":2: [profile] has the key a, and takes sections alone", "[profile.NAME]"),
        (
            "[slurm]\npartitoin = 'x'\nacount = 'y'\nzzz = 1\n",
            ":2: [slurm] has an unknown key: partitoin; and others: acount (did you mean account?), zzz",
            "did you mean partition?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(project_file, text, says, hint):
    project_file.write_text(text)

    with pytest.raises(UsageError) as raised:
        profile_files.layers(None, {})

    assert str(project_file) in raised.value.message
    assert says in raised.value.message
    assert hint in (raised.value.hint or "")


def test_a_value_that_cannot_be_used_is_said_of_a_section_that_nobody_chose(project_file):
    project_file.write_text('[profile.long]\ntime = "soon"\n')

    with pytest.raises(UsageError, match=r":2: \[profile\.long\] --time: .*'soon'"):
        profile_files.layers(None, {})


def test_none_is_no_value_as_in_the_table_of_a_run(project_file):
    project_file.write_text('[slurm]\naccount = "None"\nexclusive = "None"\nqos = "x"\n')

    found = settled()

    assert (found.options.account, found.options.exclusive, found.options.qos) == (None, False, "x")


@pytest.mark.parametrize(
    ("text", "name", "says", "hint"),
    [
        ("[profile.long]\n", "lnog", "there is no profile 'lnog' (from --profile)", "did you mean long?"),
        ("[profile.a]\n[profile.b]\n", "zzz", "no profile 'zzz'", "the profiles are: a, b"),
        ("", "zzz", "no profile 'zzz'", "add [profile.zzz] to /"),
        ("", "z z", "no profile 'z z'", "add [profile.NAME] to /"),
        ('default_profile = "gone"\n', None, "(from default_profile of ", "add [profile.gone] to /"),
        (None, "zzz", "no profile 'zzz'", "`medarc_slurm init` proposes one"),
    ],
)
def test_an_unknown_section_is_an_error_that_lists_the_known(project_file, text, name, says, hint):
    if text is not None:
        project_file.write_text(text)

    with pytest.raises(UsageError) as raised:
        profile_files.layers(name, {})

    assert says in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize("make", ["folder", "pipe", "binary", "large", "dangling"])
def test_what_is_no_profile_is_refused_or_passed_over(project_file, make):
    if make == "folder":
        project_file.mkdir()
    elif make == "pipe":
        os.mkfifo(project_file)
    elif make == "binary":
        project_file.write_bytes(b"\xff\xfe\x00")
    elif make == "large":
        project_file.write_bytes(b"#" * (profile_files.MOST_BYTES + 1))
    else:
        project_file.symlink_to("nowhere")

    with pytest.raises(UsageError) as raised:
        profile_files.layers(None, {})

    assert str(project_file) in raised.value.message
    assert raised.value.hint


def test_a_byte_order_mark_is_no_matter(project_file):
    project_file.write_bytes(b'\xef\xbb\xbf[slurm]\nqos = "x"\n')

    assert settled().options.qos == "x"


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "profiles").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load(path, project_file):
    project_file.write_text(path.read_text())

    (file,) = profile_files.read_all()

    for name in (None, *file.named):
        assert settled(name).options.partition
    assert len(EXAMPLES) == 3
