"""Host lists as SLURM writes them."""

import pytest

from medarc_plugin.slurm.hostlist import expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ("node1",)),
        ("node1,login", ("node1", "login")),
        ("node[1-3]", ("node1", "node2", "node3")),
        ("node[08-10,12],x", ("node08", "node09", "node10", "node12", "x")),
        ("r[1-2]n[0-1]-ib", ("r1n0-ib", "r1n1-ib", "r2n0-ib", "r2n1-ib")),
        ("a,a", ("a",)),
        ("", None),
        ("./hosts", None),
        ("node[1-", None),
        ("node[x]", None),
        ("node[3-1]", None),
        ("node[0-99999999]", None),
        ("a,,b", None),
    ],
)
def test_a_list_is_its_hosts(text, names):
    assert expand(text) == names
