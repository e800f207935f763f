"""`weights/step_N` from a checkpoint: Hugging Face safetensors with config and tokenizer.

A process of its own in prime-rl's interpreter, on the CPU: `python FOLDER export RUN`. It prints the
path of the weights on standard output, and what it does on standard error. Its memory holds one layer
and one shard at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .borrowed import IN_THE_WAY, NO_CHECKPOINT, TORN, ExportError
from .checkpoints import Checkpoints
from .dcp import Checkpoint, torn
from .model_files import DTYPE, read_config
from .safetensors_files import cannot_write, read_folder
from .trained import Run, read_run
from .weights import say, write_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .launch import Launch


RECORD = "export.json"
"""What an export writes beside the weights: of which checkpoint they are."""


def export_command(launch: Launch, step: int | None = None) -> tuple[str, ...]:
    """What exports a run's weights, with the job code that is running.

    Args:
        launch: The plan; its `python` must not be `None`.
        step: The checkpoint's step; `None` for the newest whole one.
    """
    asked = () if step is None else ("--step", str(step))
    return (str(launch.python), str(Path(__file__).parent), "export", str(launch.run_dir), *asked)


def main(arguments: Sequence[str]) -> int:
    """Export a run's weights and return the exit code."""
    parser = argparse.ArgumentParser(prog="PYTHON FOLDER export")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint; default: the newest")
    parser.add_argument("--force", action="store_true", help="write the weights anew")
    asked = parser.parse_args(arguments)
    _prepare_process()
    try:
        # prime-rl and its packages may print; standard output is for the path alone.
        with contextlib.redirect_stdout(sys.stderr):
            path = export(asked.run.absolute(), asked.step, force=asked.force)
    except ExportError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return error.code
    sys.stdout.write(f"{path}\n")
    return 0


def _prepare_process() -> None:
    """Keep off the GPUs, and end in order when told to."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # prime-rl's packages may have modules that are named like ours.
    above = str(Path(__file__).resolve().parent.parent)
    sys.path[:] = [path for path in sys.path if path != above]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def export(folder: Path, step: int | None, *, force: bool) -> Path:
    """Write a run's weights, unless they are there.

    Args:
        folder: The run directory.
        step: The checkpoint's step; `None` for the newest whole one.
        force: Write them anew.

    Returns:
        `weights/step_N`.

    Raises:
        ExportError: They cannot be written.
    """
    run = read_run(folder)
    checkpoint = None
    if step is None:
        step, checkpoint = _newest(run, force=force)
    target = run.weights(step)
    there = None if force else _where(run, step)
    if there is not None:
        say(f"{there} is there already; --force writes it anew")
        return there
    if checkpoint is None:
        checkpoint = _open(run, step)
    try:
        target.parent.mkdir(exist_ok=True)
        with _lock(target.parent), _draft(target) as draft:
            write_weights(run, checkpoint, draft)
            _write_record(run, step, draft)
            _publish(draft, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _newest(run: Run, *, force: bool) -> tuple[int, Checkpoint | None]:
    """Choose the newest whole checkpoint; newer ones that are torn are named and left.

    Returns:
        Its step, and the checkpoint itself unless its weights are there already.
    """
    for step, whole in reversed(list(run.checkpoints.steps().items())):
        problem = "a part of it is missing"
        if whole and not force and _where(run, step) is not None:
            return step, None
        try:
            if whole:
                return step, Checkpoint(run.checkpoint(step))
        except ExportError as error:
            if error.code != TORN:
                raise
            problem = str(error)
        say(f"passing over the checkpoint of step {step}: {problem}")
    # prime-rl v0.8.0 writes weights by itself, and may keep no checkpoints beside them.
    for folder in dict.fromkeys((run.weights(0).parent, run.own_weights(0).parent)):
        for step in reversed(list(Checkpoints(folder, None).steps())):
            if _where(run, step) is not None:
                return step, None
    raise ExportError(
        NO_CHECKPOINT,
        f"{run.checkpoints.folder} holds no whole checkpoint",
        "a run saves its last step when its config has [ckpt], and others with --ckpt-interval",
    )


def _open(run: Run, step: int) -> Checkpoint:
    """Open the checkpoint of a step. Its orchestrator's part, which holds no weights, may be missing."""
    folder = run.checkpoint(step)
    if not folder.is_dir():
        there = ", ".join(map(str, run.checkpoints.steps())) or "none"
        raise ExportError(
            NO_CHECKPOINT, f"there is no checkpoint {folder}", f"steps with a checkpoint: {there}"
        )
    if not Checkpoints(folder.parent, None).is_whole(folder):
        raise torn(folder, "a part of it is missing")
    return Checkpoint(folder)


def _where(run: Run, step: int) -> Path | None:
    """Find the weights of a step, exported or written by prime-rl itself.

    Raises:
        ExportError: Something else is in their place.
    """
    places = dict.fromkeys((run.weights(step), run.own_weights(step)))
    return next((place for place in places if _is_there(run, step, place)), None)


STABLE = "STABLE"
"""The file with which prime-rl v0.8.0 ends what it writes, in whatever format."""


def _is_there(run: Run, step: int, target: Path) -> bool:
    """Whether the weights of a step are there, whole, and of the checkpoint that is there now.

    Raises:
        ExportError: Something else is in their place.
    """
    if not target.exists():
        return False
    if (target / STABLE).exists() and not (target / RECORD).exists():
        return True
    try:
        read_folder(target)
        read_config(target)
    except (OSError, ValueError, KeyError, TypeError, ExportError) as error:
        raise ExportError(
            IN_THE_WAY, f"{target} is there and not whole: {error}", "--force writes it anew"
        ) from error
    try:
        recorded = json.loads((target / RECORD).read_text(encoding="utf-8"))["saved"]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # not ours: prime-rl v0.8.0 wrote them
    # A run that was resumed from an earlier step saves later ones again.
    return recorded == _saved(run, step) or _saved(run, step) is None


def _saved(run: Run, step: int) -> int | None:
    """When a checkpoint was saved, in nanoseconds; `None` when it is gone."""
    try:
        return (run.checkpoint(step) / "trainer" / ".metadata").stat().st_mtime_ns
    except OSError:
        return None


def _write_record(run: Run, step: int, draft: Path) -> None:
    """Say what the weights are."""
    document = {
        "checkpoint": str(run.checkpoint(step)),
        "saved": _saved(run, step),
        "step": step,
        "dtype": DTYPE,
    }
    (draft / RECORD).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _lock(weights: Path) -> Iterator[None]:
    """Hold the folder of weights against a second export."""
    with (weights / ".export.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(
                IN_THE_WAY, f"another export is at work in {weights}", "wait until it is done"
            ) from None
        except OSError:
            pass  # a file system without locks: two exports at once are then the user's affair
        yield


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Make the folder that is filled before it gets its name; whatever happens, none stays behind."""
    weights = target.parent
    for left in weights.glob(".step_*.tmp*"):
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp", dir=weights))
    try:
        # Made for its owner alone; the weights are as readable as the run directory is.
        draft.chmod(weights.stat().st_mode & 0o777)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, target: Path) -> None:
    """Give the finished folder its name; what was there goes last."""
    earlier = draft.with_name(f"{draft.name}.earlier")
    if target.exists():
        target.rename(earlier)
    draft.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)
