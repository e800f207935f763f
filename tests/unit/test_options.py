"""Every knob: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medarc_plugin.options import (
    GROUPS,
    OWNED_SBATCH_OPTIONS,
    SlurmOptions,
    choices,
    flag,
    is_switch,
    knobs,
    megabytes,
    time_seconds,
    warning_seconds,
)


def refusal(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        SlurmOptions(**values)
    return caught.value.errors()[0]["msg"]


# "Acceptable time formats include ..." in sbatch(1), --time, and what it says of UNLIMITED.
@pytest.mark.parametrize(
    "text",
    [
        "30",
        "30:00",
        "4:00:00",
        "04:00:00",
        "100:00:00",
        "2-12",
        "2-12:30",
        "2-12:30:15",
        "0-1",
        "UNLIMITED",
        "INFINITE",
        "unlimited",
    ],
)
def test_every_time_that_sbatch_documents_is_taken(text: str) -> None:
    assert text == SlurmOptions(time=text).time


def test_bare_minutes_of_a_toml_file_are_a_time() -> None:
    assert SlurmOptions.model_validate({"time": 90}).time == "90"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "abc", "1h", "1:2:3:4", "1-", "-1", "1-2-3", "1:", ":30", "1.5", "4:000:00", "-"),
        *("0", "00:00:00", "0-0", "1 2", "٣٠", "30\n"),
    ],
)
def test_a_time_that_slurm_cannot_read_is_refused(text: str) -> None:
    message = refusal(time=text)

    assert any(words in message for words in ("SLURM cannot read", "line break", "the value is empty"))


def test_a_time_that_toml_reads_as_one_is_to_be_quoted() -> None:
    assert 'write a time in quotes, like "04:00:00"' in refusal(time=dt.time(4))


@given(
    days=st.integers(0, 99), hours=st.integers(0, 99), minutes=st.integers(0, 59), seconds=st.integers(1, 59)
)
def test_times_written_out_are_taken(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{seconds:02}"

    assert text == SlurmOptions(time=text).time


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64G", "64G"), ("64g", "64G"), ("512M", "512M"), ("2T", "2T"), ("9k", "9K"), (8, "8")],
)
def test_a_memory_size_is_taken_in_sbatchs_units(text: str, expected: str) -> None:
    assert expected == SlurmOptions.model_validate({"mem": text}).mem


@pytest.mark.parametrize("text", ["64GB", "-1", "1.5G", "9" * 40, "G", "64 G", "٤G", True])
def test_what_is_no_memory_size_is_refused(text: Any) -> None:
    assert "is not a memory size" in refusal(mem_per_gpu=text)


def test_no_memory_is_not_a_way_to_get_all_of_it() -> None:
    assert "0 asks for all memory" in refusal(mem="0G")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1", 1),
        ("512M", 512),
        ("64G", 65536),
        ("1T", 1048576),
        ("1024K", 1),
        ("1K", 1),
        ("1025K", 2),
        ("2g", 2048),
    ],
)
def test_sizes_are_counted_in_mebibytes_and_rounded_up(size: str, expected: int) -> None:
    assert expected == megabytes(size)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("30", 1800),
        ("0:05", 5),
        ("90:30", 5430),
        ("1:00:00", 3600),
        ("1-2", 93600),
        ("1-2:03", 93780),
        ("1-02:03:04", 93784),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_times_are_counted_in_seconds(time: str, expected: int | None) -> None:
    assert expected == time_seconds(time)


@pytest.mark.parametrize("text", ["30m", "0", "soon", True])
def test_what_is_no_time_is_no_idle_timeout(text: Any) -> None:
    assert "time" in refusal(idle_timeout=text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cpus_per_gpu": 0}, "greater than or equal to 1"),
        ({"cpus_per_gpu": -8}, "greater than or equal to 1"),
        ({"cpus_per_gpu": "many"}, "valid integer"),
        ({"gpu_type": "h 100"}, "match pattern"),
        ({"gpu_type": "h100:8"}, "match pattern"),
        ({"gpu_flag": "gpus-per-socket"}, "'gres', 'gpus-per-node' or 'gpus'"),
        ({"cleanup_grace_period": -1}, "greater than or equal to 0"),
        ({"nice": "very"}, "valid integer"),
        ({"mem": "1G", "mem_per_gpu": "1G"}, "--mem 1G and --mem-per-gpu 1G contradict each other"),
        ({"nodelist": "a,b", "exclude": "b"}, "--nodelist and --exclude contradict each other: both name b"),
        ({"env": ["A B=1"]}, "--env 'A B' is not the name"),
        ({"env": ["1A"]}, "--env '1A' is not the name"),
        ({"env": [""]}, "--env: the value is empty"),
        ({"env": ["SBATCH_PARTITION"]}, "would override the script"),
        ({"env": ["SLURM_JOB_ID"]}, "would override the script"),
        ({"sbatch_arg": ["--licenses=a"]}, "no dashes"),
        ({"sbatch_arg": ["licenses =a"]}, "no dashes"),
        ({"sbatch_arg": [""]}, "--sbatch-arg: the value is empty"),
        ({"dependency": " "}, "--dependency: the value is empty"),
        ({"nice": True}, "True is not a number"),
        ({"time": "4294967296"}, "longer than any time limit"),
        ({"env": ["DB_URL=postgres://me:word@host/x"]}, "looks like a secret"),
        ({"env": ["GITHUB_PAT=x"]}, "looks like a secret"),
        ({"partitoin": "gpu"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], message: str) -> None:
    assert message in refusal(**values)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "MY_SECRET", "DB_PASSWORD", "OPENAI_APIKEY", "KEY"]
)
def test_a_secret_given_with_its_value_is_refused_without_repeating_it(name: str) -> None:
    message = refusal(env=[f"{name}=sesame"])

    assert f"pass it by name: --env {name}" in message
    assert "sesame" not in message


@pytest.mark.parametrize("name", ["MONKEY", "TOKENIZERS_PARALLELISM", "AUTHOR", "NCCL_DEBUG"])
def test_a_name_that_only_sounds_like_a_secret_is_taken(name: str) -> None:
    assert SlurmOptions(env=(f"{name}=false",)).env == (f"{name}=false",)


@pytest.mark.parametrize("key", sorted(OWNED_SBATCH_OPTIONS))
def test_an_sbatch_option_that_the_plugin_owns_is_refused_with_the_way(key: str) -> None:
    assert OWNED_SBATCH_OPTIONS[key] in refusal(sbatch_arg=[f"{key}=x"])


@pytest.mark.parametrize(
    ("key", "owned"), [("part", "partition"), ("outp", "output"), ("wra", "wrap"), ("j", "job-name")]
)
def test_the_beginning_of_an_owned_option_is_no_way_around(key: str, owned: str) -> None:
    assert f"for {owned}," in refusal(sbatch_arg=[f"{key}=x"])


@pytest.mark.parametrize(
    "text",
    ["licenses=matlab", "mem-bind=local", "time-min=10", "tmp=10G", "hold"],
)
def test_any_other_sbatch_option_is_taken(text: str) -> None:
    assert (text,) == SlurmOptions.model_validate({"sbatch_arg": text}).sbatch_arg


@pytest.mark.parametrize(
    "name", [name for name, knob in knobs().items() if knob.metavar in {"TEXT", "DIR", "NAME"}]
)
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_a_line_break_or_nul_is_refused_everywhere(name: str, text: str) -> None:
    message = refusal(**{name: (text,) if knobs()[name].repeatable else text})

    assert message.startswith(f"Value error, {flag(name)}: a value cannot contain a")


def test_shell_lines_may_be_several_but_hold_no_nul() -> None:
    assert SlurmOptions.model_validate({"setup": "a\nb"}).setup == ("a\nb",)
    assert "NUL" in refusal(setup=["a\0"])


@pytest.mark.parametrize("name", knobs())
def test_every_option_is_described_and_stands_in_a_group(name: str) -> None:
    knob = knobs()[name]

    assert SlurmOptions.model_fields[name].description
    assert knob.group in GROUPS
    assert is_switch(name) == (SlurmOptions.model_fields[name].annotation is bool)


def test_no_two_options_share_a_spelling_or_a_variable() -> None:
    spellings = [spelling for name, knob in knobs().items() for spelling in (flag(name), *knob.flags)]
    variables = [knob.variable for knob in knobs().values() if knob.variable]

    assert len(set(spellings)) == len(spellings)
    assert len(set(variables)) == len(variables)


def test_nothing_of_a_cluster_is_a_default() -> None:
    options = SlurmOptions()

    assert {options.partition, options.account, options.qos, options.gpu_type, options.hf_cache_dir} == {None}
    assert options.exclusive is False
    assert options.cpus_per_gpu == 8


def test_the_choices_of_a_field_are_known() -> None:
    assert choices("gpu_flag") == ("gres", "gpus-per-node", "gpus")
    assert choices("partition") == ()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 120),
        ({"time": "UNLIMITED"}, 120),
        ({"time": "4:00:00"}, 120),
        ({"time": "10"}, 60),
        ({"time": "3"}, 0),
        ({"time": "10", "signal_time": 90}, 90),
        ({"signal_time": 0}, 0),
    ],
)
def test_a_short_job_is_warned_less_early(given: Any, seconds: int) -> None:
    assert warning_seconds(SlurmOptions.model_validate(given)) == seconds


def test_an_idle_timeout_under_a_minute_is_refused() -> None:
    assert "less than a minute" in refusal(idle_timeout="0:30")
