"""How the stand-in plays a run, and the switches that make it misbehave.

A test sets them in the environment: what is not among `SWITCHES` is refused.
"""

import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from prime_rl import release
from prime_rl.utils.config import dump_resolved_config
from prime_rl.utils.pathing import get_ckpt_dir, get_config_dir

SWITCHES = {
    "STANDIN_REPORT": "write argv, variables and GPU ids to this file (JSON), before any waiting",
    "STANDIN_REPORT_NAMES": "further variables for the report, separated by commas",
    "STANDIN_SIGNALS": "append the name of each signal received to this file",
    "STANDIN_WAIT_FOR": "train only when this file exists",
    "STANDIN_ON_SIGTERM": "exit (default, as prime-rl does: code 1), ignore, or die of it",
    "STANDIN_EXIT_CODE": "end with this code, after training",
    "STANDIN_KILL": "end by this signal (a name such as KILL) instead of training",
    "STANDIN_BIND": "1: listen on every port that the config names, as prime-rl's components do",
    "STANDIN_STEPS": "train this many steps instead of max_steps",
    "STANDIN_PAUSE_AT": "steps to stop at until STANDIN_WAIT_FOR exists, one for each start of the job: 4,8",
    "STANDIN_CRASH": "COMPONENT:STEP:CODE: the component fails after the step, as it does in prime-rl",
    "STANDIN_CRASH_SECONDS": "then take this long to end the others, as prime-rl's launcher may",
    "STANDIN_TORN": "the checkpoint of this step is begun and never finished, and the run hangs there",
    "STANDIN_DETACH": "leave a grandchild with a session of its own, which ignores signals; its id goes here",
    "STANDIN_MEMORY": "hold this many MiB",
    "STANDIN_HEALTHY": "the inference server answers only when this file exists",
    "STANDIN_MEASURED": "the inference server says at once that it has measured the GPU's memory",
}

REPORTED = ("CUDA_VISIBLE_DEVICES", "PATH", "PRL_RUN_ID", "PRL_RUN_NAME", "VIRTUAL_ENV", release.RUN_ID)

WATCHED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


def switch(name: str) -> str | None:
    if name not in SWITCHES:
        raise KeyError(name)
    return os.environ.get(name)


def refuse_unknown_switches() -> None:
    unknown = sorted(n for n in os.environ if n.startswith("STANDIN_") and n not in SWITCHES)
    if unknown:
        sys.exit(f"stand-in: unknown switches {unknown}; there are {sorted(SWITCHES)}")


def say(text: str) -> None:
    sys.stderr.write(f"stand-in | {text}\n")
    sys.stderr.flush()


def visible_gpus() -> list[int]:
    """The GPU ids that prime-rl would use: integers only, as there."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        sys.exit("stand-in: CUDA_VISIBLE_DEVICES is unset, and there is no NVML to count GPUs with")
    return [int(token.strip()) for token in visible.split(",") if token.strip()]


def claim_gpus(wanted: int) -> list[int]:
    ids = visible_gpus()
    if wanted > len(ids):
        raise ValueError(
            f"Requested {wanted} GPUs via deployment settings, but only {len(ids)} physical GPU(s) "
            f"are available: {ids}"
        )
    return ids[:wanted]


def find_commands(names: tuple[str, ...]) -> dict[str, str]:
    """Where PATH leads to, for the components that prime-rl starts by name."""
    found = {}
    for name in names:
        path = shutil.which(name)
        if path is None:
            raise FileNotFoundError(2, "No such file or directory", name)
        found[name] = path
    return found


def refuse_slurm(config: Any) -> None:
    """Of prime-rl's own backend the dry run alone is played."""
    if config.slurm is not None and not config.dry_run:
        sys.exit("stand-in: prime-rl's own [slurm] backend is not played")


def prepare(config: Any) -> None:
    """Name the run and guard its directory, as both entry points do."""
    refuse_unknown_switches()
    refuse_slurm(config)
    if config.deployment.type != "single_node":
        sys.exit("stand-in: only a single node is played")
    os.environ.setdefault(release.RUN_ID, os.urandom(16).hex())
    release.guard(config)
    release.run_dir(config).mkdir(parents=True, exist_ok=True)


def write_configs(config: Any, names: tuple[str, ...], own: str | None = None) -> None:
    """Write parts of a config, and with a name for it the whole; for its own [slurm] the whole alone."""
    if config.slurm is not None:
        names, own = (), own or "rl"
    folder = get_config_dir(release.run_dir(config))
    folder.mkdir(parents=True, exist_ok=True)
    blocks = {name: getattr(config, name) for name in names}
    if own is not None:
        blocks[own] = config
    for name, block in blocks.items():
        if block is not None:
            left_out = {"slurm", "dry_run", "clean", "clean_output_dir"} if config.slurm else None
            text = json.dumps(dump_resolved_config(block, exclude=left_out), indent=2)
            (folder / f"{name}{release.CONFIG_SUFFIX}").write_text(text)


class Signals:
    """Notes every signal; ends the run on SIGTERM unless told otherwise."""

    def __init__(self) -> None:
        self.mode = switch("STANDIN_ON_SIGTERM") or "exit"
        if self.mode not in ("exit", "ignore", "die"):
            sys.exit(f"stand-in: STANDIN_ON_SIGTERM is exit, ignore or die, not {self.mode!r}")
        for name in WATCHED:
            signal.signal(getattr(signal, name), self.receive)

    def receive(self, number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        log = switch("STANDIN_SIGNALS")
        if log:
            with Path(log).open("a") as file:
                file.write(f"{name}\n")
        say(f"received {name}")
        if name == "SIGTERM" and self.mode == "die":
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if name == "SIGINT" or (name == "SIGTERM" and self.mode == "exit"):
            sys.exit(1)


def report(gpus: list[int], commands: dict[str, str]) -> None:
    target = switch("STANDIN_REPORT")
    if not target:
        return
    names = (*REPORTED, *filter(None, (switch("STANDIN_REPORT_NAMES") or "").split(",")))
    document = {
        "argv": sys.argv[1:],
        "executable": sys.executable,
        "prefix": sys.prefix,
        "working_directory": str(Path.cwd()),
        "process": os.getpid(),
        "process_group": os.getpgrp(),
        "environment": {name: os.environ.get(name) for name in names},
        "gpus": gpus,
        "commands": commands,
    }
    # Written whole: who waits for the file may read it at once, and runs at once may share it.
    draft = Path(f"{target}.{os.getpid()}")
    draft.write_text(json.dumps(document))
    draft.replace(target)


def services(config: Any) -> list[tuple[str, int]]:
    """Who listens where in a run of this config, as prime-rl's components do."""
    orchestrator = getattr(config, "orchestrator", None)
    found = []
    if getattr(config, "inference", None) is not None:
        found.append(("inference", config.inference.server.port))
        if config.inference.router is not None:
            found += [
                ("inference", config.inference.backend_port),
                ("inference", config.inference.server.port + 21000),
            ]
    broadcast = getattr(config, "weight_broadcast", None)
    if broadcast is not None and broadcast.type != "filesystem":
        found.append(("trainer", broadcast.port))
    if orchestrator is not None:
        if orchestrator.rollout_transport.type == "zmq":
            # The last is where trainers say that they are ready.
            port = orchestrator.rollout_transport.port
            found += [("orchestrator", port + index) for index in range(release.TRANSPORT_PORTS)]
        sources = [*orchestrator.train.source, *(orchestrator.eval.source if orchestrator.eval else [])]
        base = orchestrator.env_server_base_port
        found += [(f"envs/{index}", base + index) for index in range(len(sources))]
    return found


def listen(config: Any, logs: Path) -> list[socket.socket]:
    """Hold the ports of the run; a taken one ends it, with the words of the component's log."""
    held = []
    for component, port in services(config) if switch("STANDIN_BIND") else []:
        try:
            held.append(socket.create_server(("", port)))
        except OSError as error:
            log = logs / f"{component}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"OSError: [Errno {error.errno}] {os.strerror(error.errno or 0)}: port {port}\n")
            say(f"{component} failed with exit code 1")
            sys.exit(1)
    return held


def train(config: Any, gpus: list[int], commands: dict[str, str]) -> None:
    """Play the run: an attempt's log, a metrics line a step, a checkpoint where one is due."""
    log = release.make_log_dir(release.run_dir(config)) / "trainer.log"
    held = listen(config, log.parent)
    Signals()
    report(gpus, commands)
    if switch("STANDIN_DETACH"):
        detach(Path(str(switch("STANDIN_DETACH"))))
    memory = bytearray(int(switch("STANDIN_MEMORY") or 0) * 2**20)
    if not switch("STANDIN_PAUSE_AT"):
        wait_for_gate()
    kill = switch("STANDIN_KILL")
    if kill:
        number = getattr(signal, f"SIG{kill}")
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    steps = int(switch("STANDIN_STEPS") or config.max_steps or 1)
    take_steps(config, steps, log)
    code = int(switch("STANDIN_EXIT_CODE") or 0)
    if code:
        say(f"ending with exit code {code}")
        sys.exit(code)
    say("Training finished!")
    for port in held:
        port.close()
    del memory


def wait_for_gate() -> None:
    wait_for = switch("STANDIN_WAIT_FOR")
    while wait_for and not Path(wait_for).exists():
        time.sleep(0.01)


def detach(note: Path) -> None:
    """Fork twice, and stay alive in a session of one's own."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in WATCHED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    draft = note.with_name(f".{note.name}")
    draft.write_text(str(os.getpid()))
    draft.replace(note)
    while True:
        time.sleep(3600)


def take_steps(config: Any, steps: int, log: Path) -> None:
    saved = release.checkpoint_table(config)
    ckpt_base = (saved.output_dir if saved else None) or release.run_dir(config)
    done = resumed_step(config, ckpt_base)
    interval = saved.interval if saved else None
    pauses = (switch("STANDIN_PAUSE_AT") or "").split(",")
    start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    pause = int(pauses[start] or 0) if start < len(pauses) else 0
    component, crash, code = (switch("STANDIN_CRASH") or "trainer:0:1").split(":")
    with log.open("w") as log_file:
        for step in range(done + 1, steps + 1):
            write_rows(config, step, log.with_name("orchestrator.log"))
            log_file.write(f"step {step}\n")
            log_file.write(LOGGED.format(time=time.strftime("%H:%M:%S"), step=step, loss=1 / step))
            log_file.flush()
            if saved and (step == steps or (interval and step % interval == 0)):
                save(config, get_ckpt_dir(ckpt_base) / f"step_{step}", step)
            if step == pause:
                wait_for_gate()
            if step == int(crash):
                fail(component, int(code), log.parent)


LOGGED = (
    "{time} SUCCESS Step {step} |   500ms | Loss {loss:.4f} | Entropy 0.1000 | LR 1.00e-06 "
    "| Throughput 1000 tokens/s | MFU 1.0% | Peak Mem. 1.5 GiB\n"
)


def write_rows(config: Any, step: int, log: Path) -> None:
    """Append a step's rows to the metrics files; without, the orchestrator's log alone has the reward."""
    trainers, orchestrators = release.metrics_files(config)
    if orchestrators is None and hasattr(config, "orchestrator"):
        reward = (
            f"{time.strftime('%H:%M:%S')} SUCCESS Step {step} |   500ms | Reward {1 - 1 / (step + 1):.4f}"
        )
        with log.open("a") as file:
            file.write(f"{reward} | Trainable 1/1\n")
    for row in rows(config, step):
        path = orchestrators if "time/wait_for_policy" in row else trainers
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as metrics:
                metrics.write(json.dumps({"step": step, "time": time.time(), **row}) + "\n")


def rows(config: Any, step: int) -> list[dict[str, float]]:
    """What the monitors write of a step: the orchestrator one row, the trainer several."""
    rollouts = {"train/agg/effective/main/reward/mean": 1 - 1 / (step + 1), "time/wait_for_policy": 0.1}
    trainer = [
        {"loss/mean": 1 / step},
        {"perf/throughput": 1000.0, "perf/peak_memory": 1.5},
        {"time/step": 0.5, "time/forward_backward": 0.3, "time/save_ckpt": 0.0},
    ]
    return [rollouts, *trainer] if hasattr(config, "orchestrator") else trainer


def save(config: Any, folder: Path, step: int) -> None:
    """Write a checkpoint in the order in which prime-rl does: the orchestrator's part, data, metadata."""
    if hasattr(config, "orchestrator"):
        own = release.orchestrator_checkpoints(config, folder) / "orchestrator"
        own.mkdir(parents=True, exist_ok=True)
        (own / "progress.pt").write_text(f"step {step}")
    trainer = folder / "trainer"
    trainer.mkdir(parents=True, exist_ok=True)
    (trainer / "__0_0.distcp").write_text(f"step {step}")
    if switch("STANDIN_TORN") == str(step):
        while True:
            time.sleep(3600)
    (trainer / ".metadata.tmp").write_text(f"step {step}")
    (trainer / ".metadata.tmp").replace(trainer / ".metadata")


def fail(component: str, code: int, logs: Path) -> None:
    """End as the launcher does when a component has: it names it, and takes its time with the others."""
    log = logs / f"{component}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("Traceback (most recent call last):\n")
        file.write('  File "train.py", line 1, in <module>\n')
        file.write("RuntimeError: the stand-in was told to fail\n")
    for text in (
        f"Error: {component.capitalize()} failed with exit code {code}",
        "Terminating all processes...",
    ):
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {'ERROR':>7} {text}\n")
    sys.stderr.flush()
    time.sleep(float(switch("STANDIN_CRASH_SECONDS") or 0))
    sys.exit(1)


def resumed_step(config: Any, ckpt_base: Path) -> int:
    step = release.resume_step(config, ckpt_base)
    if step == 0:
        return 0
    if step is None:
        say(f"No checkpoints found in {get_ckpt_dir(ckpt_base)}. Starting from scratch.")
        return 0
    if release.resumes_from_elsewhere(config):
        return step
    checkpoint = get_ckpt_dir(ckpt_base) / f"step_{step}" / "trainer"
    if not (checkpoint / ".metadata").exists():
        raise FileNotFoundError(f"stand-in: {checkpoint} has no metadata")
    say(f"Resuming from step {step}")
    return int(step)


def serve(config: Any) -> None:
    """Play an inference server: hold its ports, and answer /health once it is told to be healthy."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    healthy = switch("STANDIN_HEALTHY")

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = self.path == "/health" and (not healthy or Path(healthy).exists())
            self.send_response(200 if ready else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", config.server.port), Health)
    say(f"serving {release.model_of(config)} on port {config.server.port}")
    if switch("STANDIN_MEASURED"):
        say("GPU KV cache size: 1,024 tokens")
    Signals()
    server.serve_forever()
