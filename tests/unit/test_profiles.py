"""Where values come from, and which wins."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from standin.checkout import STANDIN

from medarc_plugin.errors import OptionError, UsageError
from medarc_plugin.options import SlurmOptions, knobs
from medarc_plugin.profiles import (
    BUILT_IN,
    COMMAND_LINE,
    SBATCH_SWITCHES,
    SBATCH_VARIABLES,
    Layer,
    Settled,
    environment_layer,
    ignored_variables,
    settle,
    table_layer,
)


def settled(
    line: dict[str, Any] | None = None, table: Any = None, environment: dict[str, str] | None = None
) -> Settled:
    return settle([Layer(COMMAND_LINE, line or {}), table_layer(table), environment_layer(environment or {})])


def test_with_nothing_said_everything_is_built_in() -> None:
    found = settled()

    assert SlurmOptions() == found.options
    assert set(found.sources.values()) == {BUILT_IN}
    assert list(knobs()) == list(found.sources)


def test_the_command_line_wins_over_the_table_which_wins_over_sbatch() -> None:
    environment = {"SBATCH_PARTITION": "c", "SBATCH_ACCOUNT": "c", "SBATCH_QOS": "c"}
    found = settled({"partition": "a"}, {"partition": "b", "account": "b"}, environment)

    assert (found.options.partition, found.options.account, found.options.qos) == ("a", "b", "c")
    assert (found.sources["partition"], found.sources["account"], found.sources["qos"]) == (
        "command line",
        "[slurm]",
        "SBATCH_QOS",
    )


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("SBATCH_PARTITION", "gpu", "partition", "gpu"),
        ("SBATCH_ACCOUNT", "lab", "account", "lab"),
        ("SBATCH_QOS", "high", "qos", "high"),
        ("SBATCH_TIMELIMIT", "1:00:00", "time", "1:00:00"),
        ("SBATCH_CPUS_PER_GPU", "4", "cpus_per_gpu", 4),
        ("SBATCH_MEM_PER_NODE", "64G", "mem", "64G"),
        ("SBATCH_MEM_PER_GPU", "32G", "mem_per_gpu", "32G"),
        ("SBATCH_CONSTRAINT", "a100&ib", "constraint", "a100&ib"),
        ("SBATCH_RESERVATION", "class", "reservation", "class"),
        ("SBATCH_JOB_NAME", "mine", "job_name", "mine"),
        ("SBATCH_EXCLUSIVE", "1", "exclusive", True),
        ("SBATCH_EXCLUSIVE", "no", "exclusive", False),
        ("SBATCH_REQUEUE", "", "requeue", True),
        ("SBATCH_NO_REQUEUE", "1", "requeue", False),
        ("SBATCH_SIGNAL", "60", "signal_time", 60),
        ("SBATCH_SIGNAL", "B:USR1@90", "signal_time", 90),
    ],
)
def test_each_sbatch_variable_sets_its_option(variable: str, value: str, name: str, expected: object) -> None:
    found = settled(environment={variable: value})

    assert expected == getattr(found.options, name)
    assert variable == found.sources[name]


@pytest.mark.parametrize(("variable", "option"), SBATCH_VARIABLES.items())
def test_sbatch_variables_without_an_option_become_sbatch_arguments(variable: str, option: str) -> None:
    found = settled(environment={variable: "x"})

    assert (f"{option}=x",) == found.options.sbatch_arg
    assert variable == found.sources["sbatch_arg"]


@pytest.mark.parametrize(("variable", "option"), SBATCH_SWITCHES.items())
def test_sbatch_switches_are_on_whatever_their_value(variable: str, option: str) -> None:
    assert (option,) == settled(environment={variable: ""}).options.sbatch_arg


def test_an_empty_variable_says_nothing() -> None:
    assert settled(environment={"SBATCH_PARTITION": "", "SBATCH_WCKEY": ""}) == settled()


def test_variables_that_the_run_decides_are_named() -> None:
    environment = {"SBATCH_GRES": "gpu:8", "SBATCH_EXPORT": "NONE", "SBATCH_QOS": "a", "SLURM_JOB_ID": "1"}

    assert ignored_variables(environment) == ("SBATCH_EXPORT", "SBATCH_GRES")


def test_sbatch_arguments_are_gathered_from_all_layers_key_by_key() -> None:
    found = settled(
        {"sbatch_arg": ("licenses=a",)},
        {"sbatch_arg": ["licenses=b", "hold"]},
        {"SBATCH_HINT": "nomultithread", "SBATCH_OVERCOMMIT": "1"},
    )

    assert found.options.sbatch_arg == ("licenses=a", "hold", "hint=nomultithread", "overcommit")
    assert found.sources["sbatch_arg"] == "command line, [slurm], SBATCH_HINT, SBATCH_OVERCOMMIT"


def test_memory_said_in_one_way_drops_the_other_way_of_lower_layers() -> None:
    found = settled({"mem_per_gpu": "8G"}, {"mem": "64G"}, {"SBATCH_MEM_PER_NODE": "1G"})

    assert (found.options.mem, found.options.mem_per_gpu) == (None, "8G")
    assert found.sources["mem"] == BUILT_IN


def test_memory_said_in_both_ways_at_one_place_is_refused() -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        settled(table={"mem": "64G", "mem_per_gpu": "8G"})


def test_an_unknown_key_of_the_table_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown key: partitoin") as caught:
        table_layer({"partitoin": "gpu"})

    assert caught.value.hint == "did you mean partition?"


def test_all_unknown_keys_of_the_table_are_named_as_they_are_written() -> None:
    with pytest.raises(UsageError) as caught:
        settled(table={"zzz": 1, "gpu-typ": "h200", "qos": "long", "acount": "med"})

    assert str(caught.value) == (
        "[slurm] has an unknown key: zzz; and others: gpu-typ (did you mean gpu_type?), "
        "acount (did you mean account?)"
    )


def test_of_many_unknown_keys_a_dozen_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown key: zz0; and others: zz1, .*, zz12, and 87 more$"):
        settled(table={f"zz{number}": 1 for number in range(100)})


@pytest.mark.parametrize(
    ("key", "shown"), [("", '""'), ("a\nerror: b", r'"a\nerror: b"'), ("a\u202eb", r'"a\u202eb"')]
)
def test_a_key_that_would_not_be_seen_is_quoted(key: str, shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        settled(table={key: 1})

    assert str(caught.value) == f"[slurm] has an unknown key: {shown}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({1: 2}, "[slurm] has a key that is no text: 1"),
        ({"gpu-type": "a100", "gpu_type": "h100"}, "[slurm] has gpu_type twice: gpu-type and gpu_type"),
        ({"foo": "None"}, "[slurm] has an unknown key: foo"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table: dict[Any, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settled(table=table)

    assert str(caught.value) == message


def test_an_unknown_key_like_no_other_leads_to_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        table_layer({"zzzzzzzz": 1})

    assert caught.value.hint == "`medarc_slurm options` lists all keys"


@pytest.mark.parametrize("value", [None, "None"])
def test_none_in_the_table_says_nothing(value: object) -> None:
    assert (
        settled(table={"partition": value}, environment={"SBATCH_PARTITION": "gpu"}).options.partition
        == "gpu"
    )


def test_keys_of_the_table_may_have_dashes() -> None:
    assert settled(table={"job-name": "x"}).options.job_name == "x"


def test_every_key_of_prime_rls_own_table_is_known() -> None:
    source = ast.parse((STANDIN / "prime_rl" / "configs" / "shared.py").read_text())
    table = next(
        node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "SlurmConfig"
    )
    keys = {
        node.target.id
        for node in table.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert keys <= set(knobs())
    assert len(keys) > 5


@pytest.mark.parametrize("table", ["gpu", 5, ["a"], True])
def test_a_slurm_that_is_no_table_is_refused(table: object) -> None:
    with pytest.raises(UsageError, match="must be a table"):
        table_layer(table)


@pytest.mark.parametrize(
    ("line", "table", "environment", "source"),
    [
        ({"time": "soon"}, None, {}, "command line"),
        ({}, {"time": "soon"}, {}, r"\[slurm\]"),
        ({}, None, {"SBATCH_TIMELIMIT": "soon"}, "SBATCH_TIMELIMIT"),
    ],
)
def test_a_bad_value_is_refused_with_its_option_and_source(
    line: dict[str, Any], table: Any, environment: dict[str, str], source: str
) -> None:
    with pytest.raises(OptionError, match=rf"--time: .*'soon'.* \(from {source}\)"):
        settled(line, table, environment)


def test_bad_values_are_all_named_with_where_each_stands() -> None:
    with pytest.raises(UsageError) as caught:
        settled({"mem": "3q"}, {"time": "soon", "signal_time": "x"}, {})

    first, *named = caught.value.message.splitlines()
    assert first == "3 options cannot be used:"
    assert [line.split()[0] for line in sorted(named)] == ["--mem:", "--signal-time:", "--time:"]
    assert [line.rpartition(" (from ")[2] for line in sorted(named)] == [
        "command line)",
        "[slurm])",
        "[slurm])",
    ]


def test_a_bad_value_of_a_plain_type_is_shown() -> None:
    with pytest.raises(OptionError, match=r"--cpus-per-gpu: input should be .* \(got 'x'\)"):
        settled({"cpus_per_gpu": "x"})


def test_what_stands_under_env_is_never_shown() -> None:
    with pytest.raises(OptionError) as caught:
        settled(table={"env": {"HF_TOKEN": "sesame"}})

    assert "--env" in caught.value.message
    assert "sesame" not in caught.value.message
