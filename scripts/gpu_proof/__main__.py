"""Drive the proof: the stages in order, as many at once as there are GPUs, within a time budget."""

from __future__ import annotations

import argparse
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
from gpu_proof.place import CHECKOUT, OutOfTimeError, Place, StageError, read_json, write_json
from medarc_plugin.cli.entrypoints import point_at_sandbox
from medarc_plugin.errors import MedarcError
from medarc_plugin.host import locate
from medarc_plugin.sandbox import Sandbox

SAMPLE_SECONDS = 2.0


def main() -> int:
    """Run what is not done yet; 0 when everything that this machine can show was shown."""
    arguments = parse()
    try:
        place = find_place(arguments)
    except (StageError, MedarcError) as error:
        print(f"error: {error}\nhint: {getattr(error, 'hint', None) or 'see scripts/prove --help'}")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: place.stopped.set())
    chosen = [stage for stage in stages.STAGES if place.asks_for(stage.name)]
    threading.Thread(target=sample_gpus, args=(place,), daemon=True).start()
    sandbox = Sandbox(place.sandbox)
    point_at_sandbox(place.sandbox)
    try:
        sandbox.up()
        drive(place, chosen)
    except KeyboardInterrupt:
        place.stopped.set()
    finally:
        stages.cancel_all(place)
        if not arguments.keep:
            sandbox.down()
        text = table.render(place)
        (place.work / "results.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(place.result(stage.name).exists() for stage in possible(place, chosen)) else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/prove",
        description="Train the tiny reverse-text model by SFT and RL through a private SLURM on this "
        "machine's GPUs, evaluate it, and measure. What is done already is not done again.",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/proof"), metavar="DIR", help="its folder")
    parser.add_argument(
        "--budget", type=float, default=1800, metavar="SECONDS", help="end after that long [1800]"
    )
    parser.add_argument(
        "--pace",
        type=float,
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


def find_place(arguments: argparse.Namespace) -> Place:
    """Look for prime-rl and GPUs.

    Raises:
        StageError: There is none.
    """
    host = locate.locate(arguments.prime_rl_dir)
    if host is None or host.directory is None:
        raise StageError(f"prime-rl was not found: {locate.GET_PRIME_RL}")
    gpus = count_gpus()
    if not gpus:
        raise StageError("this machine has no NVIDIA GPU: nvidia-smi lists none")
    work: Path = arguments.work.absolute()
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
        while not place.stopped.is_set():
            at = datetime.now(UTC).isoformat(timespec="seconds")
            for line in ask_driver("index,memory.used").splitlines():
                handle.write(f"{at},{line.replace(' ', '')}\n")
            place.stopped.wait(SAMPLE_SECONDS)


def possible(place: Place, chosen: list[stages.Stage]) -> list[stages.Stage]:
    """Those that this machine has GPUs for."""
    return [stage for stage in chosen if stage.gpus <= place.gpus]


def drive(place: Place, chosen: list[stages.Stage]) -> None:
    """Begin each stage when what it needs is there, and wait for all of them."""
    waiting = [stage for stage in possible(place, chosen) if not place.result(stage.name).exists()]
    working: dict[str, threading.Thread] = {}
    while waiting or working:
        for name in [name for name, thread in working.items() if not thread.is_alive()]:
            working.pop(name)
        free = place.gpus - sum(stage.gpus for stage in stages.STAGES if stage.name in working)
        for stage in list(waiting):
            if place.stopped.is_set() or stage.seconds_in(place) > place.seconds_left():
                waiting.remove(stage)
            elif not _comes(stage, place, waiting, working):
                waiting.remove(stage)
                say(f"{stage.name}: not begun, what it needs was not done")
            elif _may_begin(stage, place, free):
                waiting.remove(stage)
                free -= stage.gpus
                working[stage.name] = threading.Thread(target=perform, args=(place, stage), daemon=True)
                working[stage.name].start()
        time.sleep(0.2)


def _comes(stage: stages.Stage, place: Place, waiting: list[stages.Stage], working: object) -> bool:
    """Whether what a stage needs is done, or may still be."""
    names = {other.name for other in waiting} | set(working)  # type: ignore[call-overload]
    return all(place.result(name).exists() or name in names for name in stage.after)


def _may_begin(stage: stages.Stage, place: Place, free: int) -> bool:
    done = all(place.result(name).exists() for name in stage.after)
    return done and stage.gpus <= free


def perform(place: Place, stage: stages.Stage) -> None:
    """Do one stage, and write down what it found or why it did not come to its end."""
    say(f"{stage.name}: begins ({stage.shows})")
    began = time.monotonic()
    failed = place.work / "results" / f"{stage.name}.failed"
    try:
        found = stage.run(place)
    except OutOfTimeError as error:
        say(f"{stage.name}: not done, {error}")
        failed.write_text(f"{error}\n", encoding="utf-8")
    except StageError as error:
        say(f"{stage.name}: FAILED, {error}")
        failed.write_text(f"{error}\n", encoding="utf-8")
    except Exception as error:
        say(f"{stage.name}: FAILED, {error!r}")
        failed.write_text(traceback.format_exc(), encoding="utf-8")
    else:
        seconds = round(time.monotonic() - began, 1)
        write_json(place.result(stage.name), {"seconds": seconds, "found": found})
        failed.unlink(missing_ok=True)
        say(f"{stage.name}: done in {seconds} s")


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)  # noqa: DTZ005 - as the logs have it
