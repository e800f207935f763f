from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medarc_plugin.errors import SandboxError
from medarc_plugin.sandbox.spec import SandboxSpec


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nodes": 0}, "0 nodes"),
        ({"nodes": 33}, "33 nodes"),
        ({"cpus": 0}, "0 CPUs"),
        ({"memory_mib": 10}, "10 MiB"),
        ({"gpus": -1}, "-1 GPUs"),
        ({"gpu_type": "h 100"}, "the GPU type 'h 100'"),
        ({"gpu_type": "h100\nSlurmUser=root"}, "the GPU type"),
        ({"gpu_type": ""}, "the GPU type ''"),
        ({"partition": "a b"}, "the partition 'a b'"),
    ],
)
def test_what_slurm_could_not_run_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SandboxError, match=message) as caught:
        SandboxSpec(**values)

    assert (caught.value.hint or "").startswith("expected ")


@given(
    nodes=st.integers(1, 32),
    gpus=st.none() | st.integers(0, 16),
    lines=st.lists(st.text(), max_size=3),
)
def test_a_spec_survives_its_record(nodes: int, gpus: int | None, lines: list[str]) -> None:
    spec = SandboxSpec(nodes=nodes, gpus=gpus, extra_lines=tuple(lines))

    assert SandboxSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_fields_of_a_later_version_are_left_out() -> None:
    assert SandboxSpec.from_dict({"cpus": 8, "colour": "red"}) == SandboxSpec(cpus=8)
