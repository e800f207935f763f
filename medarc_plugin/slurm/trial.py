"""`sbatch --test-only`: what SLURM says of a job that it is shown and not given.

It answers on its error stream, uses up a job id, and is not the last word: limits of partitions, accounts and
QoS are none to it, and a node that is drained is one that is not there (seen on 20.11 to 26.05).
"""

from __future__ import annotations

import re

from medarc_plugin.models import Problem, Trial
from medarc_plugin.process import NOT_FOUND, TIMED_OUT, run
from medarc_plugin.slurm import gateway

# 26.05 writes "at TIME a using 1 processors".
_ESTIMATE = re.compile(r"Job \d+ to start at (\S+) .*?\bon nodes (\S+)")
REFUSALS = frozenset({1, 255})
"""How sbatch ends when the controller refuses a job, and when it cannot read one itself."""

_SILENCE = re.compile(r"Unable to contact|Zero Bytes were transmitted|Socket timed out|Communication")
NOT_NOW = re.compile(r"node configuration is not available|[Nn]odes (are )?busy|required nodes? (is|are) not")
"""What is said of a job that no node can take at this moment, now or never."""


def try_out(script: str, at: gateway.Cluster, seconds: float) -> Trial:
    """Show SLURM a script.

    Args:
        script: Its text, which goes to sbatch's standard input: no file is needed.
        at: The cluster.
        seconds: How long the answer may take.
    """
    done = run(["sbatch", "--test-only"], env=at.environment, stdin=script, timeout=seconds)
    found = _ESTIMATE.search(done.stderr)
    if found is not None:
        return Trial(start=found[1], node=found[2])
    if done.returncode in {NOT_FOUND, TIMED_OUT}:
        return Trial(silence=done.stderr.partition("\n")[0])
    words = _words(done.stderr)
    # Killed, or broken in a way of its own, sbatch has not said no.
    if done.returncode not in REFUSALS or not words or _SILENCE.search(words):
        return Trial(silence=words or f"exit code {done.returncode}")
    if NOT_NOW.search(words):
        message = f"SLURM finds no node for the job at this moment ({words}), so it may have to wait"
        return Trial(problem=Problem("sbatch", message, "`sinfo -N -l` shows the nodes' states", fatal=False))
    hint = gateway.hint_for(words) or "mend what SLURM names, then run the same command again"
    return Trial(problem=Problem("sbatch", f"SLURM would refuse the job: {words}", hint, submission=True))


def _words(text: str) -> str:
    """What sbatch says, on one line and without what it says of itself."""
    lines = [re.sub(r"^(sbatch: (error: )?|allocation failure: )+", "", line) for line in text.splitlines()]
    kept = [line.strip() for line in lines if line.strip() and not line.startswith('Try "sbatch')]
    return "; ".join(dict.fromkeys(kept))
