"""Which checkpoints are whole, and where their parts lie."""

from pathlib import Path
from typing import Any

import pytest

from medarc_plugin.job.checkpoints import checkpoints_of


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


TRAINER = ("trainer/.metadata", "trainer/__0_0.distcp")


@pytest.mark.parametrize("table", ["ckpt", "trainer"])
def test_the_orchestrators_part_stays_in_the_run_directory(tmp_path: Path, table: str) -> None:
    elsewhere: dict[str, Any] = {"output_dir": str(tmp_path / "big")}
    config = {"ckpt": elsewhere} if table == "ckpt" else {"trainer": {"ckpt": elsewhere}}
    write(tmp_path / "big" / "checkpoints" / "step_2", *TRAINER)
    write(tmp_path / "big" / "checkpoints" / "step_4", *TRAINER)
    write(tmp_path / "run" / "checkpoints" / "step_2", "orchestrator/progress.pt")

    checkpoints = checkpoints_of(config, tmp_path / "run", "rl")

    assert checkpoints.steps() == {2: True, 4: False}
    assert checkpoints.newest() == 2
