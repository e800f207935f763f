"""What is ours on a command line, and what reaches prime-rl as typed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medarc_plugin.cli.arguments import (
    SWITCHES,
    VALUE_FLAGS,
    help_text,
    option_flags,
    parse,
    requests_from,
)
from medarc_plugin.errors import UsageError
from medarc_plugin.models import GpuRequest
from medarc_plugin.options import flag, is_switch, knobs

if TYPE_CHECKING:
    from medarc_plugin.models import Request

OURS = {*VALUE_FLAGS, *SWITCHES, *option_flags(), "-h", "--", "@"}
OURS |= {f"--no-{name[2:]}" for name in OURS if name.startswith("--")}


def is_ours(token: str) -> bool:
    name = token.partition("=")[0]
    return name.startswith("--slurm.") or bool({name, name.replace("_", "-")} & OURS)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
REST = st.lists(WORDS.filter(lambda word: not word.startswith("--slurm.")))
FLAGS = st.from_regex(r"--[a-z][a-z0-9_.-]{0,12}(=[ -~]{0,6})?", fullmatch=True)
THEIRS = st.one_of(
    st.tuples(FLAGS),
    st.tuples(FLAGS, WORDS),
    st.tuples(st.just("@"), WORDS),
    st.tuples(st.just("--x"), WORDS, WORDS),
).filter(lambda group: not any(is_ours(token) for token in group if token != "@"))
VALUED = st.sampled_from(sorted(name for name, field in option_flags().items() if not is_switch(field)))
OUR_GROUPS = st.one_of(
    st.tuples(VALUED, WORDS),
    st.tuples(st.sampled_from(["--exclusive", "--no-exclusive", "--auto-auth", "--no-check", "--rehearse"])),
    st.tuples(st.sampled_from(sorted(VALUE_FLAGS)), WORDS),
)


def request(*argv: str, config_first: bool = False) -> Request:
    (found,) = requests_from("rl", argv, default_backend="slurm", config_first=config_first)
    return found


@given(st.lists(st.tuples(st.booleans(), OUR_GROUPS, THEIRS)), REST)
def test_everything_that_is_not_ours_arrives_in_order(
    groups: list[tuple[bool, tuple[str, ...], tuple[str, ...]]], rest: list[str]
) -> None:
    argv = ["--x"]  # what follows a first one of prime-rl's belongs to it, a bare word too
    theirs = ["--x"]
    for ours, our_group, their_group in groups:
        argv += our_group if ours else their_group
        theirs += [] if ours else their_group

    assert parse([*argv, "--", *rest]).passed == theirs + rest


@given(REST)
def test_all_that_follows_two_dashes_is_prime_rls(rest: list[str]) -> None:
    parsed = parse(["--dry-run", "--", *rest])

    assert parsed.passed == rest
    assert parsed.switches == {"--dry-run"}


@given(VALUED, WORDS)
def test_a_value_may_look_like_anything(spelling: str, value: str) -> None:
    field = option_flags()[spelling]
    expected = (value,) if knobs()[field].repeatable else value

    assert parse([spelling, value]).options == {field: expected}
    assert parse([f"{spelling}={value}"]).options == {field: expected}


@pytest.mark.parametrize("value", ["-x", "--partition", "--", "@", "--job-name=y"])
def test_a_leading_dash_does_not_end_a_value(value: str) -> None:
    assert parse(["--job-name", value]).options == {"job_name": value}


@pytest.mark.parametrize(
    "spelling", ["--cpus-per-gpu", "--cpus_per_gpu", "--slurm.cpus-per-gpu", "--slurm.cpus_per_gpu"]
)
def test_an_option_has_several_spellings(spelling: str) -> None:
    assert parse([spelling, "4"]).options == {"cpus_per_gpu": "4"}


@pytest.mark.parametrize(
    ("short", "field"),
    [
        ("-p", "partition"),
        ("-A", "account"),
        ("-t", "time"),
        ("-J", "job_name"),
        ("-w", "nodelist"),
        ("-x", "exclude"),
    ],
)
def test_the_everyday_options_have_sbatchs_short_names(short: str, field: str) -> None:
    assert parse([short, "v"]).options == {field: "v"}


def test_the_last_of_several_values_holds() -> None:
    assert parse(["--partition", "a", "-p", "b"]).options == {"partition": "b"}


def test_a_repeatable_option_gathers_its_values_in_order() -> None:
    assert parse(["--env", "A", "--env=B=1", "--slurm.env", "C"]).options == {"env": ("A", "B=1", "C")}


@pytest.mark.parametrize("argv", [["--partition"], ["--output-dir"], ["--env"], ["-t"], ["--backend"]])
def test_a_flag_without_its_value_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=f"{argv[0]} needs a value"):
        parse(argv)


@pytest.mark.parametrize(
    "argv", [["--no-exclusive"], ["--exclusive=false"], ["--exclusive", "--no-exclusive"]]
)
def test_a_switch_of_the_options_can_be_turned_off(argv: list[str]) -> None:
    assert parse(argv).options == {"exclusive": False}


def test_a_switch_of_the_options_takes_no_word() -> None:
    with pytest.raises(UsageError, match="--exclusive takes no value, but got 'user'"):
        parse(["--exclusive=user"])


@pytest.mark.parametrize("argv", [["--clean"], ["--clean", "true"], ["--clean=True"], ["--clean", "1"]])
def test_clean_may_say_true_as_it_may_for_prime_rl(argv: list[str]) -> None:
    parsed = parse([*argv, "@", "x.toml"])

    assert parsed.switches == {"--clean"}
    assert parsed.passed == ["@", "x.toml"]


@pytest.mark.parametrize(
    "argv", [["--clean", "false"], ["--clean=false"], ["--no-clean"], ["--clean", "--no-clean"]]
)
def test_turning_clean_off_also_overrules_the_config(argv: list[str]) -> None:
    parsed = parse(["@", "x.toml", *argv])

    assert parsed.switches == set()
    assert parsed.passed == ["@", "x.toml", "--no-clean"]


@pytest.mark.parametrize("spelling", ["--dry_run", "--dry-run", "--dry_run=true", "--no-dry-run --dry-run"])
def test_a_dry_run_is_one_in_every_spelling_that_prime_rl_takes(spelling: str) -> None:
    parsed = parse(["@", "x.toml", *spelling.split()])

    assert parsed.switches == {"--dry-run"}
    assert parsed.passed == ["@", "x.toml"]


def test_a_switch_that_is_only_ours_says_nothing_to_prime_rl() -> None:
    parsed = parse(["--rehearse", "false"])

    assert (parsed.switches, parsed.passed) == (set(), [])


def test_a_switch_takes_no_word() -> None:
    with pytest.raises(UsageError, match="--dry-run takes no value, but got 'maybe'"):
        parse(["--dry-run=maybe"])


@pytest.mark.parametrize(("argv", "expected"), [(["--sandbox"], ".slurm-sandbox"), (["--sandbox=/s"], "/s")])
def test_the_sandbox_has_a_folder(argv: list[str], expected: str) -> None:
    parsed = parse([*argv, "true"])

    assert parsed.sandbox == expected
    assert parsed.positional == ["true"]


def test_a_file_of_prime_rls_is_no_flag_of_ours() -> None:
    assert parse(["@", "--dry-run", "--partition", "gpu"]).passed == ["@", "--dry-run"]


def test_an_unknown_slurm_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown option --slurm\.partitoin") as caught:
        parse(["--slurm.partitoin", "gpu"])

    assert caught.value.hint == "did you mean --slurm.partition?"


def test_a_request_holds_everything_that_was_typed() -> None:
    found = request(
        *("@", "rl.toml", "--output-dir", "runs/a", "--train-gpus", "2", "--infer-gpus=6", "--dry-run"),
        *("--no-check", "--rehearse", "--max-steps", "5", "-p", "gpu", "--backend", "night"),
    )

    assert found.arguments == ("@", "rl.toml", "--max-steps", "5")
    assert found.gpus == GpuRequest(None, 2, 6)
    assert found.run_dir == Path.cwd() / "runs" / "a"
    assert found.options == {"partition": "gpu"}
    assert (found.backend, found.dry_run, found.check, found.rehearse) == ("night", True, False, True)


@pytest.mark.parametrize("argv", [("rl.toml", "--max-steps", "5"), ("rl.toml", "--", "--max-steps", "5")])
def test_medarc_slurm_takes_the_config_first_and_overrides_with_or_without_dashes(
    argv: tuple[str, ...],
) -> None:
    assert request(*argv, config_first=True).arguments == ("@", "rl.toml", "--max-steps", "5")


@pytest.mark.parametrize("token", ["rl.toml", "@rl.toml"])
def test_a_bare_word_gets_the_way_to_name_a_config(token: str) -> None:
    with pytest.raises(UsageError, match="neither an option nor an override") as caught:
        request(token)

    assert caught.value.hint == "a config file is given as `@ rl.toml`, with a space"


def test_medarc_slurm_takes_a_config() -> None:
    with pytest.raises(UsageError, match="which config"):
        request(config_first=True)


def requests(*argv: str) -> tuple[Request, ...]:
    return requests_from("rl", argv, default_backend="slurm", config_first=True)


def test_several_configs_are_runs_of_their_own(work: Path) -> None:
    found = requests(
        "a.toml", "c/b.v2.json", "--output-dir", "runs/{stem}", "@", "more.toml", "--max-steps", "5"
    )

    more = ("@", "more.toml", "--max-steps", "5")
    assert [one.arguments for one in found] == [("@", "a.toml", *more), ("@", "c/b.v2.json", *more)]
    assert [one.run_dir for one in found] == [work / "runs/a", work / "runs/b.v2"]


def test_one_config_may_name_its_directory_too(work: Path) -> None:
    (found,) = requests("c/a.toml", "--output-dir", "runs/{stem}-1")

    assert found.run_dir == work / "runs/a-1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("a.toml", "b.toml"), "2 configs are as many runs, and each needs a directory of its own"),
        (("a.toml", "b.toml", "--output-dir", "runs/x"), "of its own: --output-dir runs/x is one"),
        (("a.toml", "c/a.json", "--output-dir", "runs/{stem}"), "a.toml and c/a.json would both run in /"),
        (("a.toml", "b.toml", "--output-dir", "{stem}/../x"), "a.toml and b.toml would both run in /"),
    ],
)
def test_several_configs_need_directories_of_their_own(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        requests(*argv)


def test_files_behind_at_signs_are_one_run() -> None:
    argv = ("@", "a.toml", "@", "b.toml", "--output-dir", "runs/x")

    found = request(*argv)

    assert found.arguments == argv[:4]
    assert found.run_dir is not None
    assert found.run_dir.name == "x"


@pytest.mark.parametrize(
    ("argv", "config_first", "message"),
    [
        (("@", "a.toml", "--output-dir", "runs/{stem}"), False, "{stem} stands for nothing here"),
        (("@", "a.toml", "--output-dir", "{name}/x"), False, "{name} stands for nothing here"),
        (("@", "a.toml", "--output-dir", "runs/{stem}"), True, "{stem} stands for nothing here"),
        (("a.toml", "--output-dir", "runs/{stem}-{seed}"), True, "{seed} stands for nothing"),
        (("a.toml", "b.toml", "--output-dir", "runs/{name}"), True, "{name} stands for nothing"),
    ],
)
def test_a_name_in_braces_that_nobody_replaces_is_refused(
    argv: tuple[str, ...], config_first: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        requests_from("rl", argv, default_backend="slurm", config_first=config_first)

    assert "{stem}" in (caught.value.hint or "")


@pytest.mark.parametrize("again", ["a.toml", "./a.toml"])
def test_a_config_that_is_given_twice_is_told_so(again: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(again)} is given twice"):
        requests("a.toml", "b.toml", again, "--output-dir", "runs/{stem}")


@pytest.mark.parametrize("token", ["--resume", "--resume.step", "--resume=true"])
def test_resume_is_prime_rls_and_read_here_too(token: str) -> None:
    found = request("@", "x", token)

    assert found.resume
    assert found.arguments == ("@", "x", token)


def test_a_resume_that_is_taken_back_is_none() -> None:
    assert not request("@", "x", "--resume", "--no-resume", "--clean").resume


def test_resume_and_clean_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="contradict"):
        request("@", "x", "--resume", "--clean")


@pytest.mark.parametrize("text", ["two", "1.5", "", "1e3"])
def test_a_number_of_gpus_is_a_whole_number(text: str) -> None:
    with pytest.raises(UsageError, match="is not a whole number"):
        request("@", "x", "--train-gpus", text)


@pytest.mark.parametrize(
    "text", ["", " ", "/", "a/../..//.//../../../../../../../..", "a\nb", "a\0b", "a\rb"]
)
def test_an_output_directory_that_a_run_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--output-dir"):
        request("@", "x", "--output-dir", text)


@pytest.mark.parametrize("text", ["a b", "it's", '"q"', "$(x)", "`x`", "100%", "{{ x }}", "-x", "äö", "a\tb"])
def test_an_output_directory_may_be_called_anything_else(text: str) -> None:
    assert request("@", "x", "--output-dir", text).run_dir == Path.cwd() / text


def test_a_home_is_found_and_dots_are_removed() -> None:
    assert request("@", "x", "--output-dir", "~/a/../b").run_dir == Path.home() / "b"


def test_an_argument_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not UTF-8 text: 'a\\udcff'"):
        request("@", "x", "--output-dir", "a\udcff")


def test_the_help_names_what_is_replaced_where_it_is() -> None:
    assert "{stem}" not in help_text("rl", "Train.")
    assert "{stem} in it: the name of CONFIG" in " ".join(
        help_text("rl", "Train.", config_first=True).split()
    )


def test_the_help_names_every_flag() -> None:
    text = help_text("rl", "Train.")

    assert text.startswith("Usage: rl\n\nTrain.\n")
    for name in [*VALUE_FLAGS, *SWITCHES, *map(flag, knobs())]:
        assert any(f"{name}{after}" in text for after in (" ", "\n", ", --no-"))
