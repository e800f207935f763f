"""Resolve every config that a prime-rl ships with the plugin and with prime-rl itself, and print a table.

    PRIME_RL_DIR=/path/to/prime-rl uv run python benchmarks/shipped_configs.py [PART_OF_A_PATH ...]

A config is equal when the plugin's dry run writes what prime-rl's own writes, in parts and (with its own
`[slurm]`) as a whole, and prime-rl takes the plugin's again, as in a job; or both refuse it for one reason;
or it is for several nodes, and the plugin says so; or it is another command's, such as a trainer's alone or
a set of evals, and each of prime-rl's `rl`, `sft` and `inference` refuses it. Ends with 1 when there is
another. The seconds are those of each dry run with prime-rl imported already, ours with the start of our
command. Environments that are not installed have a stand-in that takes any field, for both sides.
"""

from __future__ import annotations

import collections
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from standins.real import find_real  # type: ignore[import-not-found] # noqa: E402
from standins.shipped import ENDINGS, Comparison  # type: ignore[import-not-found] # noqa: E402


def main() -> int:
    """Compare and print."""
    host = find_real()
    if host is None:
        sys.exit("PRIME_RL_DIR is not set: there is no prime-rl to compare with")
    wanted = sys.argv[1:]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    print(f"{'config':<62} {'command':<10} {'ours':>6} {'theirs':>7}  outcome")
    with tempfile.TemporaryDirectory(prefix="shipped-") as folder, Comparison(host, Path(folder)) as both:
        for config in both.configs():
            if wanted and not any(part in config for part in wanted):
                continue
            found = both.compare(config)
            counts[found.ending, found.entrypoint] += 1
            print(
                f"{config:<62} {found.entrypoint or '-':<10} {found.ours:>4.1f} s {found.theirs:>5.1f} s  "
                f"{found.ending}{': ' if found.detail else ''}{found.detail}",
                flush=True,
            )
    for (ending, entrypoint), number in sorted(counts.items()):
        print(f"{number:>4} {ending}{f' ({entrypoint})' if entrypoint else ''}")
    return int(any(ending not in ENDINGS for ending, _ in counts))


if __name__ == "__main__":
    sys.exit(main())
