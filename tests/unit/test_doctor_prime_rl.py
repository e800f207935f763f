"""What `doctor` finds of prime-rl."""

from pathlib import Path

import pytest
from standin import install_gpu_packages, make_checkout
from standins.findings import found, program, statuses

from medarc_plugin.doctor import Subject, prime_rl
from medarc_plugin.doctor.findings import ToldElsewhereError
from medarc_plugin.doctor.subject import SMALLEST
from medarc_plugin.host import cache, resolve


@pytest.fixture
def prime(checkout, monkeypatch):
    monkeypatch.setenv("PRIME_RL_DIR", str(checkout))
    return checkout


def test_none():
    subject = Subject()

    assert statuses(prime_rl.place, subject) == ["failed"]
    for look in (
        prime_rl.interpreter,
        prime_rl.packages,
        prime_rl.schema,
        prime_rl.environments,
        prime_rl.imports,
    ):
        assert found(look, subject) == [("skipped", "there is no prime-rl")]


def test_one_that_is_well(prime, monkeypatch):
    # The stand-in may have been made a moment ago, which would keep its answer from being kept.
    monkeypatch.setattr(cache, "JUST_NOW", 0.0)
    subject = Subject()

    assert found(prime_rl.place, subject) == [("ok", f"{prime} (PRIME_RL_DIR)")]
    assert statuses(prime_rl.interpreter, subject) == ["ok"]
    assert found(prime_rl.schema, subject) == [("ok", "main")]
    assert found(prime_rl.environments, subject) == [("ok", "importable: reverse-text")]
    assert statuses(prime_rl.imports, subject) == ["skipped"]
    again = Subject()
    assert found(prime_rl.schema, again) == [("ok", "main (as it said before; nothing has changed since)")]
    assert found(prime_rl.schema, Subject(deep=True)) == [("ok", "main")]


def test_prime_rl_is_asked_once_for_all(prime, monkeypatch):
    asked = []
    run = resolve.run_apart

    def counted(argv, **options):
        asked.append(argv[1])
        return run(argv, **options)

    monkeypatch.setattr(resolve, "run_apart", counted)
    subject = Subject()

    for look in (prime_rl.schema, prime_rl.environments):
        found(look, subject)

    assert [Path(path).name for path in asked] == ["resolver.py"]


def test_an_older_release(tmp_path):
    subject = Subject(prime_rl_dir=make_checkout(tmp_path / "prime-rl", shape="v0.8.0"))

    assert found(prime_rl.schema, subject) == [("ok", "v0.8.0")]
    assert statuses(prime_rl.environments, subject) == ["ok"]


def test_one_without_the_examples_environment(tmp_path):
    subject = Subject(prime_rl_dir=make_checkout(tmp_path / "prime-rl", environments=()))

    assert found(prime_rl.schema, subject) == [("ok", "main")]
    ((status, words),) = found(prime_rl.environments, subject)
    assert status == "warning"
    assert "lacks the module 'reverse_text'" in words


def test_a_config_whose_environment_is_missing(tmp_path, work):
    config = work / "own.toml"
    config.write_text((SMALLEST / "rl.toml").read_text())
    subject = Subject(config=config, prime_rl_dir=make_checkout(tmp_path / "prime-rl", environments=()))

    assert statuses(prime_rl.environments, subject) == ["failed"]


def test_a_config(prime, work):
    config = work / "own.toml"
    config.write_text((SMALLEST / "rl.toml").read_text())

    assert found(prime_rl.environments, Subject(config=config)) == [
        ("ok", f"{config} is a config for rl; importable: reverse-text")
    ]


def test_a_config_that_prime_rl_refuses(prime, work):
    config = work / "own.toml"
    config.write_text("nonsense = 1\n")

    assert statuses(prime_rl.environments, Subject(config=config)) == ["failed"]


def test_a_config_with_a_bad_value_is_not_told_what_another_command_lacks(prime, work):
    config = work / "own.toml"
    config.write_text('max_steps = "x"\n')

    ((_, words),) = found(prime_rl.environments, Subject(config=config))

    assert "Extra inputs are not permitted" not in words


def test_an_interpreter_that_fails(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    program(python.parent, "python", "#!/bin/sh\necho broken >&2\nexit 3\n")
    subject = Subject(prime_rl_dir=checkout)

    assert statuses(prime_rl.interpreter, subject) == ["failed"]
    with pytest.raises(ToldElsewhereError, match="'Python'"):
        found(prime_rl.schema, subject)


def test_a_prime_rl_whose_packages_are_broken(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    (packages,) = checkout.glob(".venv/lib/*/site-packages")
    (packages / "pydantic_config").unlink()  # a link to the real one
    program(packages / "pydantic_config", "__init__.py", "import nothing_of_that_name\n")
    subject = Subject(prime_rl_dir=checkout)

    ((status, words),) = found(prime_rl.schema, subject)

    assert status == "failed"
    assert "No module named 'nothing_of_that_name'" in words
    assert found(prime_rl.environments, subject) == [("skipped", "prime-rl resolves no config")]


def test_a_python_that_does_not_fit(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    (checkout / "pyproject.toml").write_text('[project]\nrequires-python = "~=3.99"\n')

    ((status, words),) = found(prime_rl.interpreter, Subject(prime_rl_dir=checkout))

    assert status == "failed"
    assert "prime-rl asks for ~=3.99" in words


def test_packages_and_empty_submodules(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    (checkout / ".gitmodules").write_text('[submodule "x"]\n\tpath = deps/x\n')
    (packages,) = checkout.glob(".venv/lib/*/site-packages")
    for name in ("prime_rl-0.8.0", "torch-2.11.0", "vllm-0.26.0", "transformers-5.6.2"):
        (packages / f"{name}.dist-info").mkdir()
    subject = Subject(prime_rl_dir=checkout)

    assert found(prime_rl.place, subject) == [
        ("ok", f"{checkout}, version 0.8.0 (--prime-rl-dir)"),
        ("warning", "one of its submodules is empty"),
    ]
    ((status, words),) = found(prime_rl.packages, subject)
    assert status == "failed"
    assert words.startswith("its environment lacks verifiers, ")
    (packages / "verifiers-0.3.1.dist-info").mkdir()
    assert found(prime_rl.packages, subject) == [
        ("ok", "torch 2.11.0, vllm 0.26.0, transformers 5.6.2, verifiers 0.3.1")
    ]


def test_deep_imports(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    subject = Subject(prime_rl_dir=checkout, deep=True)
    assert statuses(prime_rl.imports, subject) == ["ok", "failed"]

    install_gpu_packages(checkout)
    assert found(prime_rl.imports, Subject(prime_rl_dir=checkout, deep=True))[1] == ("ok", "vllm 0.26.0")


def test_deep_imports_that_crash(tmp_path):
    checkout = make_checkout(tmp_path / "prime-rl")
    install_gpu_packages(checkout, vllm="import os\nos._exit(11)\n")

    results = found(prime_rl.imports, Subject(prime_rl_dir=checkout, deep=True))

    assert results[-1] == ("failed", "prime-rl's interpreter ended with exit code 11 at: vLLM")
