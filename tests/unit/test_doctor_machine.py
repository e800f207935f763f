"""What `doctor` finds on this machine."""

import sys
from collections import namedtuple

import pytest
from standins.findings import found, program, statuses

from medarc_plugin.doctor import Check, Subject, examine, machine


@pytest.fixture
def path(monkeypatch, tmp_path):
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    return folder


OURS = "#!/x/python\nfrom medarc_plugin.cli.entrypoints import rl\n"


THEIRS = "#!/x/python\nfrom prime_rl.entrypoints.rl import main\n"


def test_our_commands(path):
    for name in ("rl", "sft", "inference"):
        program(path, name, OURS)

    assert found(machine.commands) == [("ok", f"rl, sft, inference in {path}: this project's")]


def test_prime_rls_commands_without_the_hook(path):
    program(path, "rl", THEIRS)
    program(path, "sft", OURS)

    assert found(machine.commands) == [
        ("ok", f"sft in {path}: this project's"),
        ("warning", f"rl in {path}: prime-rl's, which do not know --backend there"),
    ]


def test_prime_rls_commands_with_the_hook(path, monkeypatch):
    program(path, "rl", THEIRS)
    program(path.parent / "lib" / "python3.12" / "site-packages", "medarc_importhook.pth", "")

    assert found(machine.commands) == [
        ("ok", f"rl in {path}: prime-rl's, which take --backend by the import hook")
    ]
    monkeypatch.setenv("MEDARC_IMPORT_HOOK", "0")
    assert statuses(machine.commands) == ["warning"]


def test_somebody_elses_command(path):
    program(path, "rl", "#!/bin/sh\n")

    assert found(machine.commands) == [("warning", f"rl in {path}: another program")]


def test_no_commands_on_path(path):
    assert statuses(machine.commands) == ["skipped"]


def test_the_hook_is_needed_beside_prime_rl_alone(monkeypatch, tmp_path):
    assert statuses(machine.import_hook) == ["skipped"]
    monkeypatch.setattr(machine.locate, "in_this_interpreter", lambda: True)
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _: str(tmp_path))
    assert statuses(machine.import_hook) == ["warning"]
    (tmp_path / "medarc_importhook.pth").write_text("")
    assert statuses(machine.import_hook) == ["ok"]
    monkeypatch.setenv("MEDARC_IMPORT_HOOK", "0")
    assert found(machine.import_hook) == [("skipped", "MEDARC_IMPORT_HOOK=0 turns it off")]


def test_gpus(path):
    assert statuses(machine.gpus) == ["skipped"]
    line = "NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15"
    program(path, "nvidia-smi", f"#!/bin/sh\necho '{line}'\necho '{line}'\n")
    assert found(machine.gpus) == [
        ("ok", "2x NVIDIA H100 80GB HBM3 with 81559 MiB, driver 550.54.15"),
    ]


def test_a_driver_that_does_not_work(path):
    words = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    program(path, "nvidia-smi", f'#!/bin/sh\necho "{words}"\nexit 9\n')

    assert found(machine.gpus) == [("skipped", f"none here (nvidia-smi: {words})")]


def test_uv(path):
    assert statuses(machine.uv) == ["warning"]
    program(path, "uv", "#!/bin/sh\necho 'uv 0.9.2 (x)'\n")
    assert found(machine.uv) == [("ok", f"0.9.2 (x) at {path}/uv")]


def test_python_and_package():
    assert found(machine.python)[0][1].endswith(sys.executable)
    assert found(machine.package)[0][1].startswith("0.")


def test_a_plugin_that_cannot_be_loaded_is_named(monkeypatch):
    entry = namedtuple("Entry", "name dist load")("night", None, lambda: 1 / 0)  # noqa: PYI024
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [entry])

    (done,) = examine(Subject(), (Check("a", "plugins", machine.loaded_plugins),))

    assert done.findings[0].status == "failed"
    assert "'night'" in done.findings[0].text


@pytest.mark.parametrize(("free", "status"), [(2**31, "ok"), (2**30, "warning")])
def test_disk(monkeypatch, free, status):
    usage = namedtuple("Usage", "total used free")(1, 1, free)  # noqa: PYI024
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)

    assert set(statuses(machine.disk)) == {status}


def test_a_home_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))

    first, *others = found(machine.disk)

    assert first == ("warning", f"the home folder {tmp_path / 'gone'} is not there")
    assert others
