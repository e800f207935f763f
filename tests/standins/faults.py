"""Submissions to a real SLURM while everything goes wrong, and what SLURM and the runs say afterwards.

What goes wrong: an sbatch that is killed, late, cut short or lying; a controller that is killed and hangs;
launches that are killed, interrupted, and typed twice at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medarc_plugin import flight, launch, plugins, rundir
from medarc_plugin.backends.planning import run_files
from medarc_plugin.errors import MedarcError, RunDirectoryError, SubmissionError
from medarc_plugin.models import GpuNeeds, JobState, Request, Submission
from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.signals import Stopped
from medarc_plugin.slurm import gateway
from standins.plans import make_plan, make_resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from medarc_plugin.sandbox import Sandbox

INTERRUPTED = 130

HERE = Path(__file__).parent

PATIENCE = "answer=2,grace=1,controller=40,settle=1,backoff=0.1,sendings=8"

FAULTS = (
    *("killed-before", "killed-after", "killed-during", "late-before", "late-after", "cut"),
    *("garbage-after", "garbage-before", "lost-after", "lost-before"),
)


@dataclass
class Case:
    """One run and what it will meet.

    Attributes:
        number: Which one.
        faults: What each sending meets.
        signals: Signals to the launch, each with the seconds after its start; another launch follows each.
        twins: Whether a second launch is started beside the first.
    """

    number: int
    faults: tuple[str, ...] = ()
    signals: tuple[tuple[int, float], ...] = ()
    twins: bool = False


def cases(count: int, seed: int) -> list[Case]:
    """Draw what each run meets: about every other one something, and some several things."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        faults = []
        while draw.random() < 0.55 and len(faults) < 4:
            faults.append(draw.choice(FAULTS))
        signals = []
        while draw.random() < 0.25 and len(signals) < 3:
            signals.append(
                (draw.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM)), 0.3 * draw.random())
            )
        found.append(Case(number, tuple(faults), tuple(signals), twins=draw.random() < 0.1))
    return found


@dataclass
class World:
    """A folder with runs, the sandbox that takes them, and an sbatch that goes wrong.

    Attributes:
        folder: Where everything goes.
        sandbox: The SLURM; it is up.
        killed: How many launches a signal has ended on the spot.
        crashed: How many ended with an error that nobody expected.
        plain: Submit by sbatch alone, as a shell's loop would: again until it gives an id.
    """

    folder: Path
    sandbox: Sandbox
    environment: dict[str, str] = field(default_factory=dict)
    killed: int = 0
    crashed: int = 0
    plain: bool = False

    def __post_init__(self) -> None:
        programs = self.folder / "bin"
        for name in ("bin", "ran", "runs", "said", "state"):
            (self.folder / name).mkdir()
        (programs / "sbatch").symlink_to(HERE / "faulty_sbatch")
        self.environment = {
            **client_environment(self.sandbox.environment()["SLURM_CONF"]),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAULTY_SBATCH": str(shutil.which("sbatch")),
            "SHORT_JOB_MARKS": str(self.folder / "ran"),
            "MEDARC_PATIENCE": PATIENCE,
            "MEDARC_STATE_DIR": str(self.folder / "state"),
        }

    @staticmethod
    def fault(*met: str) -> None:
        """Let the sendings of this process's next submission meet these."""
        os.environ["MEDARC_FAULTS"] = " ".join(met)

    def run_dir(self, number: int) -> Path:
        return self.folder / "runs" / f"{number:04}"

    def submit_all(self, wanted: Sequence[Case], at_once: int, chaos: Sequence[Chaos] = ()) -> None:
        """Submit all of them, so many at once, while the controller is ill-treated."""
        waiting = [_Launch(case) for case in wanted]
        waiting += [_Launch(case, twin=True) for case in wanted if case.twins]
        waiting.sort(key=lambda one: one.case.number)
        running: dict[int, _Launch] = {}
        tormentor = self._fork(lambda: self._torment(chaos))
        while waiting or running:
            while waiting and len(running) < at_once:
                one = waiting.pop(0)
                running[self._start(one)] = one
            time.sleep(0.005)
            for process, one in list(running.items()):
                one.send_due(process)
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del running[process]
                    code = os.waitstatus_to_exitcode(status)
                    self.killed += code < 0 or code == INTERRUPTED
                    self.crashed += code > 0 and code != INTERRUPTED
                    if one.again is not None:
                        waiting.insert(0, one.again)
        os.kill(tormentor, signal.SIGTERM)
        os.waitpid(tormentor, 0)
        self.recover()

    def recover(self) -> None:
        """Bring the controller and the node back, and wait until the queue is empty."""
        for daemon in self.sandbox.status().daemons:
            if daemon.pid is not None:
                os.kill(daemon.pid, signal.SIGCONT)
        self.sandbox.up()
        end = time.monotonic() + 120
        while time.monotonic() < end and self.ask("squeue", "-h", "-o", "%i").strip():
            time.sleep(0.2)
            nodes = self.sandbox.status().nodes
            if any(node.state not in {"idle", "mixed", "allocated", "completing"} for node in nodes):
                self.ask("scontrol", "update", "NodeName=node1", "State=RESUME")

    def ask(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout

    def _start(self, one: _Launch) -> int:
        one.started = time.monotonic()
        return self._fork(lambda: self._launch(one))

    @staticmethod
    def _fork(work: Any) -> int:
        process = os.fork()
        if process:
            return process
        code = 70
        try:
            work()
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _launch(self, one: _Launch) -> None:
        """What a user does, in a process of its own."""
        os.environ.clear()
        os.environ.update(self.environment)
        self.fault(*one.faults)
        random.seed(one.case.number)
        said: list[str] = []
        prepared = prepare(self.run_dir(one.case.number))
        outcome = "submitted"
        try:
            if self.plain:
                outcome = _submit_plainly(prepared)
            else:
                launch.submit(prepared, said.append, {}, said.append)
        except Stopped as stopped:
            outcome = f"stopped: {stopped.message}"
        except RunDirectoryError as error:
            outcome = f"refused: {error.message}"
        except SubmissionError as error:
            outcome = f"{'unsettled' if error.unsettled else 'not submitted'}: {error.message}"
        except KeyboardInterrupt:
            outcome = "stopped before the submission"
        path = self.folder / "said" / f"{one.case.number:04}.{os.getpid()}.json"
        path.write_text(json.dumps({"run": one.case.number, "outcome": outcome, "said": said}))

    def _torment(self, chaos: Sequence[Chaos]) -> None:
        going = True

        def end(*_: object) -> None:
            nonlocal going
            going = False

        signal.signal(signal.SIGTERM, end)
        began = time.monotonic()
        for one in chaos:
            while going and time.monotonic() < began + one.at:
                time.sleep(0.01)
            if not going:
                return
            one.strike(self.sandbox)
            with (self.folder / "struck").open("a") as file:
                file.write(f"{one.kind}\n")


@dataclass(frozen=True)
class Chaos:
    """Something that befalls the controller.

    Attributes:
        kind: `killed` with SIGKILL and started again, or `hung`: stopped for a while.
        at: Seconds after the beginning.
        seconds: How long it is away.
    """

    kind: str
    at: float
    seconds: float

    def strike(self, sandbox: Sandbox) -> None:
        """Do it."""
        if self.kind == "killed":
            sandbox.kill("slurmctld")
            time.sleep(self.seconds)
            with contextlib.suppress(MedarcError):
                sandbox.boot("slurmctld")
            return
        controller = next(one for one in sandbox.status().daemons if one.name == "slurmctld")
        if controller.pid is not None:
            os.kill(controller.pid, signal.SIGSTOP)
            time.sleep(self.seconds)
            os.kill(controller.pid, signal.SIGCONT)


def chaos(kills: int, seed: int, every: float) -> list[Chaos]:
    """Draw what befalls the controller; every fourth time it hangs."""
    draw = random.Random(seed + 1)
    found: list[Chaos] = []
    at = every / 2
    while sum(one.kind == "killed" for one in found) < kills:
        kind = "hung" if len(found) % 4 == 3 else "killed"
        found.append(Chaos(kind, at, draw.uniform(2.0, 4.0) if kind == "hung" else draw.uniform(0.0, 1.5)))
        at += every * draw.uniform(0.7, 1.3)
    return found


@dataclass
class _Launch:
    """A launch that is to be made: the `step`th of its run."""

    case: Case
    step: int = 0
    twin: bool = False
    started: float = 0.0

    @property
    def faults(self) -> tuple[str, ...]:
        return () if self.twin or self.step else self.case.faults

    @property
    def _signal(self) -> tuple[int, float] | None:
        signals = () if self.twin else self.case.signals
        return signals[self.step] if self.step < len(signals) else None

    def send_due(self, process: int) -> None:
        due = self._signal
        if due is not None and self.started and time.monotonic() > self.started + due[1]:
            os.kill(process, due[0])
            self.started = 0.0

    @property
    def again(self) -> _Launch | None:
        """The user's next try after a signal that was sent."""
        return _Launch(self.case, self.step + 1) if self._signal is not None else None


def prepare(run_dir: Path, gpus: int = 1) -> launch.Prepared:
    """Plan and render a run without prime-rl."""
    host = replace(cast("Any", make_resolved(run_dir)).host, python=HERE / "short_job")
    changes: dict[str, Any] = {"host": host, "gpus": GpuNeeds(gpus, gpus, shared=True)}
    plan = make_plan(run_dir, {"cpus_per_gpu": 1, "comment": "a sweep", "requeue": False}, **changes)
    loaded = plugins.load()
    backend = loaded.backend("slurm")
    request = Request("rl", "slurm", (), run_dir=run_dir)
    files = backend.render(plan, (*loaded.template_dirs(), launch.render.TEMPLATES))
    return launch.Prepared(request, cast("Any", None), plan, (), files, backend, loaded)


def _submit_plainly(prepared: launch.Prepared) -> str:
    """Write the files, and run sbatch again and again until it gives an id, eight times at most."""
    plan = prepared.plan
    if plan.files.submission.exists():
        return "refused"
    rundir.write(prepared.files)
    for number in range(1, 9):
        mark = {"MEDARC_SENDING": f"{plan.token}:{number}"}
        done = gateway.send(plan.files.script, mark, timeout=2)
        if done.ok and done.stdout.strip().isdigit():
            job_id = done.stdout.strip()
            record = Submission(
                job_id=job_id,
                cluster=None,
                script=plan.files.script,
                log=plan.files.log_of(job_id),
                submitted_at=datetime.now(UTC).isoformat(),
                token=plan.token,
                backend="slurm",
                slurm_conf=os.environ["SLURM_CONF"],
            )
            rundir.record(plan.files, record)
            return "submitted"
        time.sleep(0.1)
    return "not submitted"


@dataclass
class Findings:
    """What SLURM, the jobs and the runs' records say afterwards.

    Attributes:
        runs: How many there are.
        outcomes: How the launches ended, counted.
        lines: What the plugin said on the way, counted.
        twice: Runs with more than one job in SLURM or run.
        restarted: Jobs that SLURM itself ran more than once.
        orphans: Jobs in SLURM of which their run has no record.
        forgotten: Runs whose recorded job SLURM does not know and whose records tell no end.
        named_lost: Runs whose job the plugin calls lost.
        mistaken: Runs of whose job the plugin says what SLURM says of another's.
        same_id: Ids that are recorded by more than one run.
        open: Runs of which nobody can say whether there is a job.
        without: Runs that surely have no job.
        kills: How often the controller was killed.
        hangs: How often it hung.
        crashed: How many launches ended with an error that nobody expected.
    """

    runs: int
    outcomes: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    twice: list[str] = field(default_factory=list)
    restarted: int = 0
    orphans: list[str] = field(default_factory=list)
    forgotten: set[int] = field(default_factory=set)
    named_lost: set[int] = field(default_factory=set)
    mistaken: list[str] = field(default_factory=list)
    same_id: int = 0
    open: set[int] = field(default_factory=set)
    without: set[int] = field(default_factory=set)
    kills: int = 0
    hangs: int = 0
    crashed: int = 0


LINES = (
    ("adopted", "SLURM has the job all the same"),
    ("adopted by its own records", "has begun all the same"),
    ("sent again", "sending it again"),
    ("late twin ended", "arrived late"),
    ("found by the next launch", "which is recorded now"),
    ("waited for another launch", "waiting for it, up to"),
    ("waited for the controller", "SLURM does not answer"),
    ("waited for the controller before it was sent", "for SLURM to answer"),
    ("lost, said at the next launch", "SLURM has lost job"),
)


def find_out(world: World, count: int) -> Findings:
    """Compare SLURM's side with the runs' records and with what the plugin says."""
    found = Findings(count)
    found.outcomes["killed"], found.crashed = world.killed, world.crashed
    for path in (world.folder / "said").iterdir():
        document = json.loads(path.read_text())
        found.outcomes[document["outcome"].partition(":")[0]] += 1
        for text in document["said"]:
            found.lines.update(name for name, words in LINES if words in text)
    struck = world.folder / "struck"
    if struck.exists():
        found.kills, found.hangs = (
            struck.read_text().splitlines().count(kind) for kind in ("killed", "hung")
        )
    in_slurm = _in_slurm(world)
    ran: dict[str, Counter[str]] = defaultdict(Counter)
    for path in (world.folder / "ran").iterdir():
        token, job_id, _ = path.name.split(".")
        ran[token][job_id] += 1
    found.restarted = sum(times - 1 for jobs in ran.values() for times in jobs.values())
    tokens = _tokens(world, count)
    recorded_ids: Counter[str] = Counter()
    with _as_user(world):
        loaded = plugins.load()
        for number in range(count):
            _look_at(world, number, tokens, in_slurm, ran, loaded, found, recorded_ids)
    known = {token for tokens_of in tokens.values() for token in tokens_of}
    found.orphans += [f"job {job}: {token}" for token in set(in_slurm) - known for job in in_slurm[token]]
    found.same_id = sum(times > 1 for times in recorded_ids.values())
    return found


def _look_at(
    world: World,
    number: int,
    tokens: dict[int, set[str]],
    in_slurm: dict[str, dict[str, str]],
    ran: dict[str, Counter[str]],
    loaded: plugins.Plugins,
    found: Findings,
    recorded_ids: Counter[str],
) -> None:
    files = run_files(world.run_dir(number), "rl")
    recorded = rundir.read_submission(files)
    note = flight.read(files.launch)
    jobs = {(token, job) for token in tokens[number] for job in {*in_slurm.get(token, {}), *ran[token]}}
    if len(jobs) > 1:
        found.twice.append(f"run {number}: {sorted(jobs)}")
    if recorded is None:
        (found.open if note is not None and note.state == flight.OPEN else found.without).add(number)
        if not (note is not None and note.state == flight.OPEN):
            found.orphans += [f"run {number}: {job}" for job in sorted(jobs)]
        return
    recorded_ids[recorded.job_id] += 1
    found.orphans += [
        f"run {number}: {job}" for job in sorted(jobs) if job != (recorded.token, recorded.job_id)
    ]
    said = loaded.query(recorded)
    truth = in_slurm.get(recorded.token, {}).get(recorded.job_id)
    if said.state == "LOST":
        found.named_lost.add(number)
    if truth is None and not _tells_its_end(files.launch, recorded):
        found.forgotten.add(number)
    if not _agree(said, truth):
        found.mistaken.append(f"run {number}: job {recorded.job_id} is {truth}, said: {said}")


def _agree(said: JobState, truth: str | None) -> bool:
    """Whether what the plugin says of a job is SLURM's word for that very job, or that SLURM has none."""
    return said.state == truth if truth is not None else said.state in {"LOST", "GONE"}


def _tells_its_end(launch_folder: Path, recorded: Submission) -> bool:
    path = launch_folder / "attempts.jsonl"
    rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return any(row["token"] == recorded.token for row in rows)


def _tokens(world: World, count: int) -> dict[int, set[str]]:
    """All words that a run's launches may have used, by run: from SLURM's scripts, and its records."""
    found: dict[int, set[str]] = {number: set() for number in range(count)}
    for number in range(count):
        files = run_files(world.run_dir(number), "rl")
        with contextlib.suppress(OSError, ValueError, KeyError):
            found[number].add(json.loads(files.plan.read_text())["token"])
        recorded, note = rundir.read_submission(files), flight.read(files.launch)
        found[number] |= {one.token for one in (recorded, note) if one is not None}
    listed = world.ask("squeue", "-h", "-a", "-t", "all", "-o", "%A\x1f%o\x1f%k")
    for line in listed.splitlines():
        _, script, comment = line.split("\x1f")
        with contextlib.suppress(ValueError):
            found[int(Path(script).parent.name)] |= set(re.findall(r"\[medarc:(\w+)\]", comment))
    return found


def _in_slurm(world: World) -> dict[str, dict[str, str]]:
    """The jobs that the controller has, by the word in their comment: their ids and states."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for line in world.ask("scontrol", "-o", "show", "job").splitlines():
        token = re.search(r"Comment=.*\[medarc:(\w+)\]", line)
        job_id, state = re.search(r"^JobId=(\d+)", line), re.search(r" JobState=(\w+)", line)
        if token and job_id and state:
            found[token[1]][job_id[1]] = state[1]
    return found


@contextlib.contextmanager
def _as_user(world: World) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(world.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
