"""Puts stand-ins for SLURM's commands into a folder, and reads what they were asked."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("program.py")

NAMES = ("sbatch", "scontrol", "sacct", "sacctmgr", "sinfo", "squeue", "scancel")


class Slurm:
    """A cluster that is played: its state, and what its commands were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.state: dict[str, Any] = {
            "up": True,
            "cluster": None,
            "partitions": ["gpu", "debug"],
            "jobs": {},
            "accounting": None,
            "answers": {},
            "facts": {},
            "acts": [],
            "controller": {"cluster": "sandbox", "keeps": 300, "next_id": 100},
        }

    def set(self, **changes: Any) -> None:
        """Change the state; an unknown name is an error."""
        assert changes.keys() <= self.state.keys()
        self.state.update(changes)
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def answer(self, name: str, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        """Let a command say this, whatever it is asked."""
        answer = {"stdout": stdout, "stderr": stderr, "code": code}
        self.set(answers={**self.state["answers"], name: answer})

    def play(self, captured: Path, **facts: str) -> None:
        """Say of the cluster what a real one said.

        Args:
            captured: A folder of `tests/captured/cluster`.
            facts: Other texts by the name of the answer; `error: WORDS` fails with these words. `trial` is
                why `sbatch --test-only` refuses.
        """
        said = {path.name: path.read_text().strip("\n") for path in captured.iterdir()}
        self.set(facts={**said, **facts})

    def act(self, *acts: dict[str, Any]) -> None:
        """Let the first call of sbatch do the first of these, and so on; later ones go well.

        An act may accept a `job` under this id, with other facts `as` these; what it `says` on its standard
        output and `complains` of; whether it then `waits` for a file `go`, and `dies`; its exit `code`.
        """
        self.set(acts=list(acts))

    @property
    def jobs(self) -> dict[str, Any]:
        """The jobs that are in the queue now."""
        return dict(json.loads((self.folder / "state.json").read_text())["jobs"])

    def remove(self, *names: str) -> None:
        """Take commands away."""
        for name in names or NAMES:
            (self.programs / name).unlink()

    def calls(self, name: str) -> list[dict[str, Any]]:
        """The calls of a command: argv and environment of each."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["program"] == name]

    @property
    def refused(self) -> str:
        """What a command was asked that it does not know; nothing is the good case."""
        path = self.folder / "refused"
        return path.read_text() if path.exists() else ""


def install(folder: Path) -> Slurm:
    """Make the commands in `folder/bin`."""
    slurm = Slurm(folder)
    slurm.programs.mkdir(parents=True)
    slurm.set()
    for name in NAMES:
        path = slurm.programs / name
        command = shlex.join([sys.executable, "-IS", str(PROGRAM), str(folder), name])
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)
    return slurm
