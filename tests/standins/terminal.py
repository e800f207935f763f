"""Runs a command in a terminal that is not there."""

import os
import subprocess
import sys
from pathlib import Path


def in_a_terminal(*argv, **environment):
    """Run a command in a terminal of 60 columns and return what it showed."""
    leader, follower = os.openpty()
    child = subprocess.Popen(
        [Path(sys.executable).with_name("medarc_slurm"), *argv],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "60", **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        seen += part
    child.wait(timeout=30)
    os.close(leader)
    return seen.decode()
