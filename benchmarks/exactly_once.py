"""Submit many runs to a real SLURM while everything on the way goes wrong, and count what came of them.

    uv run python benchmarks/exactly_once.py [--submissions N] [--at-once N] [--kills N] [--seed N]

About every other submission meets one or more of: sbatch killed before, while or after it sends; late beyond
its time-out, before or after it has sent; its answer cut short or something else; the connection lost. Some
launches are killed, interrupted or terminated at a random moment and typed again, and some are typed twice at
once. Meanwhile slurmctld is killed with SIGKILL and started again, several times, and hangs in between. Jobs
write down that they ran. At the end SLURM's list, the jobs' own word and the runs' records are compared.

Exit code 1 when a run has two jobs, a job has no record, or a lost job is not named.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from standins import faults  # type: ignore[import-not-found] # noqa: E402

from medarc_plugin.sandbox import Sandbox, SandboxSpec  # noqa: E402


def main() -> int:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--submissions", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="by sbatch alone, repeated until it gives an id")
    parser.add_argument("--keep", type=Path, help="an empty folder to leave everything in")
    asked = parser.parse_args()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="once-"))
    folder.mkdir(exist_ok=True)
    sandbox = Sandbox(folder / "slurm")
    # A controller that is down is then given up on after 2 s, and not after 9.
    sandbox.up(SandboxSpec(gpus=8, gpu_type="h100", gpu_kind="standin", extra_lines=("MessageTimeout=2",)))
    try:
        world = faults.World(folder, sandbox, plain=asked.plain)
        began = time.monotonic()
        world.submit_all(
            faults.cases(asked.submissions, asked.seed),
            asked.at_once,
            faults.chaos(asked.kills, asked.seed, every=3.0),
        )
        found = faults.find_out(world, asked.submissions)
        seconds = time.monotonic() - began
    finally:
        sandbox.down()
        if not asked.keep:
            shutil.rmtree(folder)
    return show(found, seconds)


def show(found: faults.Findings, seconds: float) -> int:
    """Print what was found; 1 when something is wrong."""
    rows = [
        ("runs", found.runs),
        ("seconds", round(seconds)),
        ("controller killed -9 and started again", found.kills),
        ("controller hung for 2 to 4 s", found.hangs),
        *((f"launches: {name}", count) for name, count in sorted(found.outcomes.items())),
        *((f"said: {name}", count) for name, count in sorted(found.lines.items())),
        ("jobs that SLURM itself ran again", found.restarted),
        ("ids that more than one run was given", found.same_id),
        ("runs that surely have no job, and say so", len(found.without)),
        ("runs of which nobody can say", len(found.open)),
    ]
    wrong: list[tuple[str, int, list[Any]]] = [
        ("launches that crashed", found.crashed, []),
        ("runs with two jobs", len(found.twice), found.twice),
        ("orphaned jobs", len(found.orphans), found.orphans),
        ("mistaken for another's job", len(found.mistaken), found.mistaken),
        (
            "forgotten by SLURM and not named lost",
            len(found.forgotten - found.named_lost),
            sorted(found.forgotten - found.named_lost),
        ),
        (
            "named lost and not forgotten",
            len(found.named_lost - found.forgotten),
            sorted(found.named_lost - found.forgotten),
        ),
    ]
    rows += [("forgotten by SLURM", len(found.forgotten)), ("named lost", len(found.named_lost))]
    for name, count in [*rows, *((name, count) for name, count, _ in wrong)]:
        print(f"{name:<45} {count:>5}")
    for name, _, which in wrong:
        for one in which:
            print(f"{name}: {one}", file=sys.stderr)
    return int(any(count for _, count, _ in wrong))


if __name__ == "__main__":
    sys.exit(main())
