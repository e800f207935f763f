"""Drive the proof: the stages in order, as many at once as there are GPUs, within a time budget."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from gpu_proof import stages, table
from gpu_proof.place import CHECKOUT, OutOfTimeError, Place, StageError, alone, read_json, write_json
from medarc_plugin.cli.entrypoints import point_at_sandbox
from medarc_plugin.errors import MedarcError
from medarc_plugin.host import locate
from medarc_plugin.sandbox import Sandbox

SAMPLE_SECONDS = 2.0
INTERRUPTED = 130


def main() -> int:
    """Run what is not done yet; 0 when everything that this machine can show was shown."""
    arguments = parse()
    try:
        with contextlib.ExitStack() as stack:
            return prove(arguments, stack)
    except KeyboardInterrupt:  # before there was anything to end in order
        return INTERRUPTED
    except (StageError, MedarcError) as error:
        print(f"error: {error}\nhint: {getattr(error, 'hint', None) or 'see scripts/prove --help'}")
    except OSError as error:
        print(f"error: {error.filename or arguments.work}: {error.strerror or error}")
        print("hint: name another folder with --work, or make room")
    return 2


def prove(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    """Begin the stages that are asked for; what is to be done in any case at the end goes onto the stack."""
    place = find_place(arguments, stack)
    chosen = choose(place)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: place.stopped.set())
    stack.callback(write_table, place)
    threading.Thread(target=sample_gpus, args=(place,), daemon=True).start()
    sandbox = Sandbox(place.sandbox)
    point_at_sandbox(place.sandbox)
    if not arguments.keep:
        stack.callback(sandbox.down)
    sandbox.up()
    stack.callback(stages.cancel_all)
    with contextlib.suppress(OutOfTimeError):  # of each stage it is said below
        stages.begin(place)
    drive(place, chosen)
    if place.stopped.is_set():
        return INTERRUPTED
    return 0 if all(place.found(stage.name) is not None for stage in chosen) else 1


def write_table(place: Place) -> None:
    """Write and print what was seen."""
    text = table.render(place)
    (place.work / "results.md").write_text(text, encoding="utf-8")
    print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/prove",
        description="Train the tiny reverse-text model by SFT and RL through a private SLURM on this "
        "machine's GPUs, evaluate it, and measure. What is done already is not done again.",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/proof"), metavar="DIR", help="its folder")
    parser.add_argument(
        "--budget", type=seconds, default=1800, metavar="SECONDS", help="end after that long [1800]"
    )
    parser.add_argument(
        "--pace",
        type=seconds,
        default=900,
        metavar="SECONDS",
        help="compare the pace with that of prime-rl's own rl for that long [900]",
    )
    parser.add_argument(
        "--only", action="append", choices=[stage.name for stage in stages.STAGES], help="one stage; repeat"
    )
    parser.add_argument("--prime-rl-dir", type=Path, metavar="DIR", help="prime-rl's checkout")
    parser.add_argument("--keep", action="store_true", help="leave the private SLURM running")
    return parser.parse_args()


def seconds(text: str) -> float:
    """Read a time."""
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text}: a number of seconds above 0 is wanted")
    return number


def find_place(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Place:
    """Look for prime-rl and GPUs, and have the proof's folder for oneself.

    Raises:
        StageError: There is none, or another proof has the folder.
        OSError: The folder cannot be written.
    """
    host = locate.locate(arguments.prime_rl_dir)
    if host is None or host.directory is None:
        raise StageError(f"prime-rl was not found: {locate.GET_PRIME_RL}")
    gpus = count_gpus()
    if not gpus:
        raise StageError("this machine has no NVIDIA GPU: nvidia-smi lists none")
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    stack.enter_context(alone(work))
    for name in ("logs", "results", "runs"):
        (work / name).mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + arguments.budget
    place = Place(work, host.directory, host.python, gpus, ends, tuple(arguments.only or ()), arguments.pace)
    # Each call may be on another machine.
    write_json(work / "machine.json", [*(read_json(work / "machine.json") or ()), describe(place)])
    return place


def count_gpus() -> int:
    """Count the GPUs that the driver lists."""
    return len(ask_driver("index").splitlines())


def ask_driver(fields: str) -> str:
    """Ask the driver about each GPU; empty where there is none."""
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def describe(place: Place) -> dict[str, object]:
    """Say what this machine is and which versions run on it."""
    versions = (
        "import importlib.metadata as m, json\n"
        "names = 'prime-rl vllm torch triton transformers verifiers flash-attn'.split()\n"
        "print(json.dumps({n: next((d.version for d in m.distributions(name=n)), None) for n in names}))"
    )
    answer = subprocess.run(
        [place.python, "-c", versions], check=False, capture_output=True, text=True, timeout=120
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpus": ask_driver("name,memory.total,driver_version").splitlines(),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "versions": read_text(answer.stdout),
        "commits": {"medarc_plugin": commit(CHECKOUT), "prime-rl": commit(place.prime_rl)},
    }


def read_text(text: str) -> object:
    """Read a line of JSON; the text itself where it is none."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def commit(checkout: Path) -> str:
    """Name a checkout's commit; a file `COMMIT` speaks for one without git."""
    try:
        told = (checkout / "COMMIT").read_text(encoding="utf-8").strip()
    except OSError:
        told = ""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"],
        check=False,
        capture_output=True,
        text=True,
    )
    return told or done.stdout.strip() or "unknown"


def sample_gpus(place: Place) -> None:
    """Write down how much memory of each GPU is used, until the end."""
    with (place.work / "gpus.csv").open("a", encoding="utf-8", buffering=1) as handle:
        while not place.stopped.wait(SAMPLE_SECONDS):
            at = datetime.now(UTC).isoformat(timespec="seconds")
            for line in ask_driver("index,memory.used").splitlines():
                with contextlib.suppress(OSError):  # no room
                    handle.write(f"{at},{line.replace(' ', '')}\n")


def choose(place: Place) -> list[stages.Stage]:
    """Those stages that are asked for, and that this machine has GPUs for.

    Raises:
        StageError: One was named that it has too few for.
    """
    chosen = [stage for stage in stages.STAGES if place.asks_for(stage.name)]
    beyond = [stage for stage in chosen if stage.gpus > place.gpus]
    for stage in beyond:
        if place.chosen:
            raise StageError(f"{stage.name} takes {stage.gpus} GPUs, and this machine has {place.gpus}")
        say(f"{stage.name}: left out, it takes {stage.gpus} GPUs")
    return [stage for stage in chosen if stage not in beyond]


def drive(place: Place, chosen: list[stages.Stage]) -> None:
    """Begin each stage when what it needs is there, and wait for all of them."""
    done = {stage.name for stage in stages.STAGES if place.found(stage.name) is not None}
    waiting = [stage for stage in chosen if stage.name not in done]
    working: dict[str, threading.Thread] = {}
    while waiting or working:
        for name in [name for name, thread in working.items() if not thread.is_alive()]:
            working.pop(name)
            if place.found(name) is not None:
                done.add(name)
        free = place.gpus - sum(stage.gpus for stage in stages.STAGES if stage.name in working)
        for stage in list(waiting):
            why_not = _why_not(stage, place, done.union(working, (other.name for other in waiting)))
            if why_not is not None:
                waiting.remove(stage)
                stages.drop(place, stage)
                say(f"{stage.name}: not begun, {why_not}")
            elif done.issuperset(stage.after) and stage.gpus <= free:
                waiting.remove(stage)
                free -= stage.gpus
                working[stage.name] = threading.Thread(target=perform, args=(place, stage), daemon=True)
                working[stage.name].start()
        time.sleep(0.2)


def _why_not(stage: stages.Stage, place: Place, coming: set[str]) -> str | None:
    """Why a stage will not be begun; `None` while it may.

    Args:
        stage: The stage.
        place: The proof.
        coming: Stages that are done, or may still be.
    """
    if place.stopped.is_set():
        return "stopped"
    left, needed = place.seconds_left(), stage.seconds_in(place)
    if needed > left:
        return f"it takes some {needed:.0f} s, and {max(left, 0):.0f} s of the budget are left"
    return None if coming.issuperset(stage.after) else "what it needs was not done"


def perform(place: Place, stage: stages.Stage) -> None:
    """Do one stage, and write down what it found or why it did not come to its end."""
    say(f"{stage.name}: begins ({stage.shows})")
    began = time.monotonic()
    failed = place.work / "results" / f"{stage.name}.failed"
    details = ""
    try:
        found = stage.run(place)
        took = round(time.monotonic() - began, 1)
        write_json(place.result(stage.name), {"seconds": took, "found": found})
        failed.unlink(missing_ok=True)
    except OutOfTimeError as error:
        outcome = f"not done, {error}"
    except StageError as error:
        outcome = f"FAILED, {error}"
    except Exception as error:
        details, outcome = traceback.format_exc(), f"FAILED, {error!r}"
    else:
        say(f"{stage.name}: done in {took} s")
        return
    say(f"{stage.name}: {outcome}")
    with contextlib.suppress(OSError):
        failed.write_text(f"{details}{outcome}\n", encoding="utf-8")


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)  # noqa: DTZ005 - as the logs have it
