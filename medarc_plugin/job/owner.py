"""The use case: one process that owns the run, from the allocation's check to the attempt's end."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import caches, failures, record, sending, warm
from .afterwards import Afterwards
from .attempt import FAILED, FINISHED, RESUMABLE, Attempt, earlier_lines, restart_count, times
from .checkpoints import checkpoints_of
from .checks import CHECKS, FAIL, OK, Check, Subject
from .child import (
    STOPS,
    StoppedError,
    adopt_orphans,
    ask,
    end_all,
    hold_signals,
    pending_stop,
    reap,
    signal_all,
)
from .config import attempt_config, read, split_server
from .environment import inference_environment, prime_rl_environment
from .fence import Fence, FencedError
from .formats import LAUNCHER, form_of
from .guardian import MARK, Guardian
from .launch import LaunchError, read_launch
from .log import Log
from .memory import gpu_mib, share_for
from .node import look_around
from .ports import NoPortsError, take
from .primerl import address_in_use, metrics_size, trained
from .progress import EXPORTING
from .resuming import find_resume
from .server import has_measured, is_healthy
from .supervise import Outcome, Supervisor
from .surroundings import examine, find_gpus, introduce
from .watch import Watch, write_end
from .wrappers import held_trainer, prompt_router

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .checkpoints import Checkpoints
    from .launch import Launch
    from .ports import Lease
    from .supervise import Verdict

CHECKS_FAILED = 3
OWN_FAILURE = 70
CANNOT_START = 127
SIGNALLED = 128
KILLED = SIGNALLED + signal.SIGKILL

REHEARSED, FENCED = "rehearsed", "fenced"

# By its second step a run has compiled what it will go on using.
COMPILED_STEPS = 2

# The first, and again on other ports at most three times.
MOST_LAUNCHES = 4

# A server that ends later than this has had its ports.
SERVER_START_SECONDS = 600.0

# Until a port that a connection had by chance may be free again.
PORT_SECONDS = 5.0

# A model of hundreds of gigabytes takes its time on a network file system.
EXPORT_SECONDS = 3600.0
EXPORT_LINES = 12
ERROR = "error: "


class ConfigError(Exception):
    """The config that an attempt is to launch with cannot be written."""


def main(arguments: Sequence[str]) -> int:
    """Run one attempt and return its exit code: prime-rl's, or 3 when it could not be started."""
    hold_signals()
    try:
        (path,) = arguments
        launch = read_launch(Path(path))
    except LaunchError as error:
        Log().say(f"{error}\nhint: {error.hint}")
        return CHECKS_FAILED
    except ValueError:
        Log().say("usage: PYTHON FOLDER LAUNCH_JSON\nhint: the batch script's last line is right")
        return CHECKS_FAILED
    log = Log(os.environ.get(name, "") for name in launch.expected_variables)
    code = sending.gives_way(launch, os.environ, log)
    return Owner(launch, log).own() if code is None else code


class Owner:
    """The process that owns a run: what it holds, and what it does in order.

    Args:
        launch: The plan.
        log: The job's own lines.
    """

    def __init__(self, launch: Launch, log: Log) -> None:
        self.launch = launch
        self.form = form_of(launch.fields.shape)
        self.log = log
        self.given = dict(os.environ)
        self.attempt = Attempt(launch, restarts=restart_count(self.given))
        # Before anything is held that a forked process would inherit.
        self.guardian = Guardian(launch.token or "run", log)
        self.fence: Fence | None = None
        self.watch: Watch | None = None
        self.caches: caches.Caches | None = None
        self.variables: Mapping[str, str] = {}
        self._stopped: int | None = None
        self.after: Afterwards | None = None
        self._compiled_given = False
        self._holds = False
        self.config: dict[str, Any] = {}
        self.checkpoints: Checkpoints | None = None
        adopt_orphans()

    @property
    def _spare(self) -> tuple[int, ...]:
        """Processes below this one that are not the run's."""
        return () if self.guardian.pid is None else (self.guardian.pid,)

    def own(self) -> int:
        """Run the attempt, clean up, record it, and give the job back to the queue when that helps."""
        attempt = self.attempt
        try:
            code = self.run()
        except StoppedError as stopped:
            attempt.signals.append(str(stopped))
            after = self._afterwards()
            attempt.reason = after.why_stopped(stopped.number)
            code = SIGNALLED + stopped.number
            self.log.say(f"{stopped} arrived while prime-rl was not running: ending")
            after.decide()
        except Exception:
            # A bug, or a file system that went away: whatever it is, the node is left clean.
            attempt.reason = FAILED
            code = OWN_FAILURE
            self.log.say(f"the job's own code failed:\n{traceback.format_exc()}")
        self._clean_up()
        self._write_end()
        try:
            record.append_attempt(self.launch.folder, attempt.line(code, self.log))
        except OSError as error:
            self.log.say(f"cannot record this attempt: {error}")
        if self.fence is not None:
            self.fence.end()
        self.guardian.dismiss()
        if self.after is not None and self.after.gives_back:
            self.after.requeue()
        return code

    def _afterwards(self) -> Afterwards:
        """What decides about the time after this attempt, whose end has come."""
        self.after = Afterwards(self.attempt, self.given, self.config, self.checkpoints, self.log)
        return self.after

    def _write_end(self) -> None:
        """Leave the last state behind, unless it is another attempt's to write."""
        if self.watch is not None:
            self.watch.close()
        elif self.attempt.reason != FENCED and not self.launch.rehearse:
            write_end(self.attempt, self.config, self.log)

    def run(self) -> int:
        """Check, and start prime-rl unless something is missing or this is a rehearsal."""
        launch, attempt, log = self.launch, self.attempt, self.log
        attempt.number = record.claim_attempt(launch.run_dir, attempt.restarts)
        if not launch.rehearse:
            job_id = self.given.get("SLURM_JOB_ID", "")
            seconds = launch.survive.beat_seconds
            self.fence = Fence(launch.run_dir, attempt.number, job_id, seconds, self.guardian.mark)
            self.fence.beat()
        job = f"job {self.given['SLURM_JOB_ID']}" if self.given.get("SLURM_JOB_ID") else "outside SLURM"
        log.say(f"{launch.name}: {launch.entrypoint}, attempt {attempt.number}, {job}")
        attempt.node = look_around(self.given, self._give_sign)
        introduce(attempt.node, log)

        gpus, gpu_problem = find_gpus(launch, attempt.node)
        attempt.gpus = gpus
        self._keep("started", {**attempt.beginning(), "token": launch.token})
        self.guardian.remember(launch.folder, {**attempt.line(KILLED, log), "reason": "killed"})
        run_id = record.stable_run_id(launch.folder)
        variables = prime_rl_environment(launch, self.given, gpus, run_id)
        variables[MARK] = self.guardian.mark
        subject = examine(launch, attempt.node, gpus, gpu_problem, variables, self._give_sign)
        found = [check for examine_one in CHECKS for check in examine_one(subject)]
        for check in found:
            log.say(str(check))
        attempt.failed = [check for check in found if check.status == FAIL]
        if launch.rehearse:
            return self._rehearse(subject, variables)
        if attempt.failed:
            return self._refuse()
        self.config = dict(subject.config or {})
        if not self._may_start() or not self._make_caches(variables):
            return CHECKS_FAILED
        return self._launch_prime_rl(variables)

    def _rehearse(self, subject: Subject, variables: dict[str, str]) -> int:
        """Check what a launch finds out by itself too, and say whether it would start."""
        # Nothing that a launch has to load.
        from .rehearsal import Stage, rehearse

        launch, attempt, log = self.launch, self.attempt, self.log
        place = self._rehearse_caches(variables)
        stage = Stage(subject, variables, attempt.number, self._give_sign)
        for check in itertools.chain([place], rehearse(stage)):
            log.say(str(check))
            if check.status == FAIL:
                attempt.failed.append(check)
        if attempt.failed:
            return self._refuse()
        attempt.reason = REHEARSED
        log.say("rehearsal: every check passed; the real run would start with")
        if launch.gpus.shared:
            server = record.attempt_folder(launch.run_dir, attempt.number) / "inference.json"
            log.say(f"  {shlex.join(launch.server_command(server))}, and beside it")
        log.say(f"  {shlex.join(launch.command())}")
        return 0

    def _rehearse_caches(self, variables: dict[str, str]) -> Check:
        """Make the caches of a launch, empty: what is imported writes into none of the user's."""
        try:
            self.caches = caches.make(self.given, None, self.launch.caches.kept)
        except caches.CachesError as error:
            return Check("caches", FAIL, str(error), error.hint)
        self.guardian.watch_over(self.caches.root)
        variables.update(self.caches.variables)
        return Check("caches", OK, f"{self.caches.root} for this job alone")

    def _refuse(self) -> int:
        """Say in one line what is missing; why stands above it."""
        self.attempt.reason = "checks-failed"
        what = "the real run would not start" if self.launch.rehearse else "prime-rl is not started"
        names = dict.fromkeys(check.name for check in self.attempt.failed)
        self.log.say(f"{what}; missing: {', '.join(names)}")
        return CHECKS_FAILED

    def _may_start(self) -> bool:
        """Whether no other attempt lives, and this one is not one too many."""
        launch, attempt = self.launch, self.attempt
        survive = launch.survive
        if survive.requeue and attempt.restarts > survive.max_requeues:
            attempt.reason = "given-up"
            self.log.say(
                f"SLURM has restarted this job {times(attempt.restarts)}, and --max-requeues is "
                f"{survive.max_requeues}: prime-rl is not started\n"
                "hint: submit it again with --resume, and look at attempts.jsonl for why the attempts ended"
            )
            return False
        try:
            self._own_fence().take(self.log, _pause)
        except FencedError as error:
            attempt.reason = FENCED
            self.log.say(f"{error}: prime-rl is not started\nhint: {error.hint}")
            return False
        self._record_lost()
        return True

    def _record_lost(self) -> None:
        """Write the records of earlier attempts that could not do so themselves."""
        known = {line.get("attempt") for line in earlier_lines(self.launch.folder, self.launch.token)}
        attempts = self.launch.run_dir / "configs" / "attempts"
        for path in sorted(attempts.glob("*/started.json")):
            started = read(path)
            own = started.get("token") == self.launch.token and started.get("attempt") != self.attempt.number
            if own and started.get("attempt") not in known:
                with contextlib.suppress(OSError):
                    record.append_attempt(self.launch.folder, {**started, "reason": "lost"})

    def _make_caches(self, variables: dict[str, str]) -> bool:
        """Give the run caches of its own on this node, seeded from the warm copy.

        Args:
            variables: prime-rl's environment; changed to name them.

        Returns:
            Whether there is a place for them.
        """
        wishes, log, given = self.launch.caches, self.log, self.given
        swept = caches.sweep(given)
        if swept:
            log.say(f"removed {swept} cache folder(s) that killed jobs of yours had left on this node")
        devices = (self.attempt.node.driver.devices if self.attempt.node else None) or ()
        names = [device.name for device in devices if device.index in (self.attempt.gpus or ())]
        copy = warm.Warm.find(given, names, wishes.most_mib * 2**20) if wishes.warm else None
        try:
            self.caches = caches.make(given, copy, wishes.kept, self._is_stopped)
        except caches.CachesError as error:
            self.attempt.reason = FAILED
            log.say(f"{error}: prime-rl is not started\nhint: {error.hint}")
            return False
        self.guardian.watch_over(self.caches.root)
        for remark in self.caches.remarks:
            log.say(remark)
        variables.update(self.caches.variables)
        try:
            variables.update(prompt_router(variables, self.caches.root / "programs"))
        except OSError as error:
            log.say(f"vLLM's router will look for vLLM every 30 s only: {error}")
        if self._stopped is not None:
            raise StoppedError(self._stopped)
        return True

    def _is_stopped(self) -> bool:
        """Whether a signal to stop has arrived, while this process itself is at work."""
        self._beat()
        self._stopped = self._stopped or pending_stop()
        return self._stopped is not None

    def _launch_prime_rl(self, variables: Mapping[str, str]) -> int:
        """Start prime-rl on leased ports; once more on others when a service found its port taken.

        A port of the lease can still be lost between the lease and the service, to a program that asks
        for no lease. Once the trainer has made a step, nothing is started again here.
        """
        launch, attempt, log = self.launch, self.attempt, self.log
        if launch.entrypoint in RESUMABLE:
            folder = launch.fields.orchestrator_folder
            self.checkpoints = checkpoints_of(self.config, launch.run_dir, launch.entrypoint, folder)
        before = metrics_size(launch.run_dir)
        for count in range(1, MOST_LAUNCHES + 1):
            resume = find_resume(attempt, self.config, self.checkpoints, log, again=count > 1)
            try:
                lease, path = self._prepare_config(resume)
            except (NoPortsError, OSError) as error:
                attempt.reason = FAILED
                log.say(f"no ports for this run: {error}")
                return CHECKS_FAILED
            except ConfigError as error:
                attempt.reason = FAILED
                log.say(f"{error}\nhint: see that configs/attempts is a folder, its permissions and quota")
                return CHECKS_FAILED
            if lease is not None:
                log.say(f"ports {lease.first + 1} to {lease.first + lease.size - 1} are this run's own")
            began = time.monotonic()
            try:
                outcome = self._start_prime_rl(path, variables)
            finally:
                if lease is not None:
                    lease.release()
            if outcome is None:
                return CANNOT_START
            serves = launch.entrypoint not in RESUMABLE and time.monotonic() - began < SERVER_START_SECONDS
            again = outcome.reason == FAILED and outcome.stop is None and (lease is not None or serves)
            witness = address_in_use(*self._logs()) if again else None
            made_steps = attempt.steps > 0 or trained(launch.run_dir, before)
            if witness is None or count == MOST_LAUNCHES or made_steps:
                return self._conclude(outcome)
            # A server that people address keeps its ports. What is in the way of the others may be
            # somebody's connection, which is gone soon.
            where = "on other ports" if lease is not None else f"in {PORT_SECONDS:.0f} s"
            log.say(f"a service found its port taken ({witness}): starting again {where}")
            if lease is None:
                _pause(PORT_SECONDS)
        raise AssertionError("the last launch returns")

    def _logs(self) -> tuple[Path, ...]:
        """Where this launch's components write their logs."""
        run_dir = self.launch.run_dir
        return run_dir / self.form.logs, record.attempt_folder(run_dir, self.attempt.number)

    def _prepare_config(self, resume: Mapping[str, Any] | None) -> tuple[Lease | None, Path | None]:
        """Lease ports, and write this attempt's config.

        Returns:
            The lease, and the config's path; no path for a run whose config is left as it is.

        Raises:
            NoPortsError: None are free.
            OSError: They cannot be leased.
            ConfigError: The config cannot be written.
        """
        launch = self.launch
        lease = None
        if launch.ports is not None:
            lease = take(int(launch.ports["size"]), launch.ports["above"])
            self.attempt.ports = (lease.first + 1, lease.first + lease.size - 1)
        folders = self.caches.variables if self.caches is not None else None
        config = attempt_config(launch, self.config, lease, resume, self._memory_share(), folders)
        if launch.entrypoint not in RESUMABLE:
            return lease, None
        try:
            if launch.gpus.shared:
                server, config = split_server(config)
                record.write_attempt(launch.run_dir, self.attempt.number, "inference", server)
            path: Path | None = record.write_attempt(
                launch.run_dir, self.attempt.number, launch.entrypoint, config
            )
        except OSError as error:
            if lease is None and resume is None and not launch.gpus.shared:
                # The one that was written at submission says the same.
                self.log.say(f"cannot record the config of attempt {self.attempt.number}: {error}")
                return None, None
            if lease is not None:
                lease.release()
            raise ConfigError(f"cannot write the config of this attempt: {error}") from error
        return lease, path

    def _memory_share(self) -> float | None:
        """Work out vLLM's share of the GPU; the checks have seen that there is one."""
        if self.launch.memory is None or self.attempt.node is None:
            return None
        return share_for(self.launch.memory, gpu_mib(self.attempt.node.driver.devices, self.attempt.gpus))

    def _start_prime_rl(self, path: Path | None, variables: Mapping[str, str]) -> Outcome | None:
        """Start prime-rl, with a server before it where one GPU is shared, and stay to the end."""
        launch, attempt, log = self.launch, self.attempt, self.log
        command = launch.command(path)
        self._keep("launched", self._launched(command, variables))
        early = pending_stop()
        if early is not None:
            raise StoppedError(early)
        self._set_logs_aside()
        watch = self.watch = Watch(attempt, self.config, self.given, self._own_fence(), log)
        supervisor = Supervisor(
            log,
            launch.survive.grace_seconds,
            self._spare,
            self._note_signal,
            self._seconds_to_hold_the_end,
            lambda: self._look(watch),
        )
        began = time.monotonic()
        try:
            if launch.gpus.shared:
                ended = self._start_beside_server(supervisor, path, variables)
                if ended is not None:
                    return ended
            else:
                log.say(f"starting {shlex.join(command)}")
                self._start_launcher(supervisor, command, variables)
        except OSError as error:
            attempt.reason = FAILED
            log.say(f"prime-rl cannot be started: {error}")
            end_all(self._note_signal, spare=self._spare)
            return None
        outcome = supervisor.run()
        watch.stop()
        self.variables = variables
        seconds = time.monotonic() - began
        if outcome.code < 0:
            log.say(f"prime-rl was killed by {signal.Signals(-outcome.code).name} after {seconds:.1f} s")
        else:
            log.say(f"prime-rl ended with exit code {outcome.code} after {seconds:.1f} s")
        return outcome

    def _set_logs_aside(self) -> None:
        """Keep an earlier launch's logs where prime-rl would write over them."""
        logs = self.launch.run_dir / self.form.logs
        if self.form.keeps_logs or self.launch.entrypoint not in RESUMABLE or not logs.is_dir():
            return
        count = 1
        while (kept := logs.with_name(f"{logs.name}_{count}")).exists():
            count += 1
        try:
            logs.rename(kept)
        except OSError as error:
            self.log.say(f"cannot keep the logs of an earlier launch: {error}")
        else:
            self.log.say(f"the logs of an earlier launch are in {kept.name} now")

    def _look(self, watch: Watch) -> Verdict | None:
        """Look at the run, and once at what it has compiled."""
        verdict = watch.tick()
        if not self._compiled_given and self.attempt.steps >= COMPILED_STEPS and self.caches is not None:
            # Not only at the end: a requeued run would compile everything again.
            self._compiled_given = True
            self.caches.give_back_beside(self.log)
        return verdict

    def _start_launcher(
        self,
        supervisor: Supervisor,
        command: Sequence[str],
        variables: Mapping[str, str],
        sign: int | None = None,
    ) -> None:
        launch = self.launch
        output = record.attempt_folder(launch.run_dir, self.attempt.number) / "prime_rl.log"
        started = supervisor.start(
            LAUNCHER, command, variables, launch.working_directory, output, shown=True, sign=sign
        )
        self.guardian.follow(started.process.pid)

    def _start_beside_server(
        self, supervisor: Supervisor, path: Path | None, variables: Mapping[str, str]
    ) -> Outcome | None:
        """Start vLLM and prime-rl's launcher; the trainer waits until vLLM has measured the GPU they share.

        Of RL the trainer alone waits. Of an SFT all of the launcher does, whose imports are made meanwhile:
        what it starts does not wait for vLLM, and could clean up the weights for an evaluation unread.

        Returns:
            Nothing; or how the run ended, when it did so before the trainer was let go.
        """
        launch, log = self.launch, self.log
        sign, giver = os.pipe()
        try:
            began = time.monotonic()
            is_ready = self._start_server(supervisor, variables)
            command = shlex.join(launch.command(path))
            log.say(f"starting {command}; the trainer waits until vLLM has its share of the GPU")
            if launch.entrypoint == "rl" and self.caches is not None:
                held = held_trainer(variables, self.caches.root / "held")
                self._start_launcher(supervisor, launch.command(path), held, sign)
            else:
                self._start_launcher(supervisor, launch.held_command(path), variables, sign)
            ended = supervisor.until(is_ready)
            if ended is None:
                log.say(f"vLLM has its share of the GPU after {time.monotonic() - began:.1f} s")
                with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen next
                    os.write(giver, b"\n")
            return ended
        finally:
            os.close(sign)
            os.close(giver)

    def _start_server(self, supervisor: Supervisor, variables: Mapping[str, str]) -> Callable[[], bool]:
        """Start vLLM; gives what tells whether others may come to its GPU."""
        launch, log = self.launch, self.log
        folder = record.attempt_folder(launch.run_dir, self.attempt.number)
        server = read(folder / "inference.json")
        command = launch.server_command(folder / "inference.json")
        log.say(f"starting {shlex.join(command)}; what it prints is in {folder / 'inference.log'}")
        started = supervisor.start(
            "inference",
            command,
            inference_environment(self.config, variables),
            launch.working_directory,
            folder / "inference.log",
            shown=False,
        )
        self.guardian.follow(started.process.pid)
        address = server.get("server") or {}

        def is_ready() -> bool:
            # What an SFT starts needs a server that answers.
            early = launch.entrypoint == "rl" and has_measured(
                folder / "inference.log", self.form.memory_measured
            )
            return early or is_healthy(address.get("host"), int(address.get("port") or 8000))

        return is_ready

    def _own_fence(self) -> Fence:
        """The heartbeat, which every launch has."""
        if self.fence is None:
            raise AssertionError("prime-rl is started behind a fence only")
        return self.fence

    def _launched(self, command: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
        launch = self.launch
        folder = record.attempt_folder(launch.run_dir, self.attempt.number)
        changed = {name: value for name, value in variables.items() if self.given.get(name) != value}
        server = launch.server_command(folder / "inference.json") if launch.gpus.shared else None
        return {
            "command": list(command),
            "server_command": None if server is None else list(server),
            "working_directory": str(launch.working_directory),
            "gpus": list(self.attempt.gpus or ()),
            "environment": {name: self.log.redact(value) for name, value in sorted(changed.items())},
        }

    def _note_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        self.attempt.signals.append(name)
        meaning = {
            signal.SIGUSR2: "ending prime-rl in order",
            signal.SIGTERM: "ending prime-rl",
        }.get(signal.Signals(number), "passed on to prime-rl")
        self.log.say(f"{name}: {meaning}")
        try:
            record.append_signal(self.launch.run_dir, self.attempt.number, name)
        except OSError as error:
            self.log.say(f"cannot record {name}: {error}")

    def _seconds_to_hold_the_end(self) -> float:
        """How long a run that is to end may finish the checkpoint that it is writing."""
        if self.checkpoints is None or not self.checkpoints.being_written(self._launched_at()):
            return 0.0
        seconds = self.launch.survive.signal_seconds / 2
        if not self._holds:
            self._holds = True
            self.log.say(f"waiting for the checkpoint that is being written, for up to {seconds:.0f} s")
        return seconds

    def _launched_at(self) -> float:
        """When prime-rl was started, by the clock of the run directory's file system."""
        folder = record.attempt_folder(self.launch.run_dir, self.attempt.number)
        try:
            return (folder / "launched.json").stat().st_mtime
        except OSError:
            return 0.0

    def _conclude(self, outcome: Outcome) -> int:
        """Say how it went, and decide what follows."""
        attempt, after = self.attempt, self._afterwards()
        attempt.reason = outcome.reason
        if self.checkpoints is not None:
            attempt.checkpoint = self.checkpoints.newest()
        if outcome.stop is not None and outcome.reason == "signalled":
            attempt.reason = after.why_stopped(outcome.stop)
        elif outcome.stop is not None and outcome.reason == FAILED and after.was_cancelled():
            # It failed, and then somebody ended it for good.
            attempt.reason = "cancelled"
        if outcome.reason == FAILED and outcome.component is not None:
            attempt.failure = str(self._describe(*outcome.component))
            self.log.say(f"failed first: {attempt.failure}")
        after.decide()
        stopped = outcome.stop is not None or self._stopped is not None
        if attempt.reason == FINISHED and self.launch.export and self.checkpoints is not None and not stopped:
            self._export()
        if outcome.code < 0:
            return SIGNALLED - outcome.code
        if outcome.code == 0 and attempt.reason != FINISHED:
            # A run that was stopped has not done its work, however well it took that.
            return SIGNALLED + (outcome.stop or signal.SIGTERM)
        return outcome.code

    def _export(self) -> None:
        """Write the last checkpoint's weights for others to load; a finished run is finished without."""
        # The classes of torch's world are nothing to load for a run that does not come here.
        from .borrowed import NO_CHECKPOINT
        from .export import export_command

        launch, log = self.launch, self.log
        if self.watch is not None:
            self.watch.enter(EXPORTING)
        command = export_command(launch)
        began = time.monotonic()
        try:
            answer = ask(
                command,
                self.variables,
                launch.working_directory,
                EXPORT_SECONDS,
                on_stop=self._note_late,
                meanwhile=self._beat,
            )
        except OSError as error:
            log.say(f"the weights cannot be exported: {error}")
            self.attempt.unexported = str(error)
            return
        lines = answer.output.strip().splitlines()
        seconds = time.monotonic() - began
        if answer.code == 0 and lines:
            log.say(f"weights of the last checkpoint, exported in {seconds:.0f} s: {lines[-1]}")
            return
        if answer.code == NO_CHECKPOINT:
            log.say(
                "no checkpoint was saved, so there are no weights to export: [ckpt] in the config saves one"
            )
            return
        how = answer.ending if answer.killed else f"exit code {answer.code}"
        if answer.code is None:
            how = f"gave up after {seconds:.0f} s"
        for line in lines[-EXPORT_LINES:]:
            log.say(f"export: {line}")
        said = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
        self.attempt.unexported = ": ".join(filter(None, (how, said[len(ERROR) :])))
        log.say(
            f"the run is finished, and its weights are not exported ({how}): the checkpoint stays\n"
            f"hint: medarc_slurm export {shlex.quote(str(launch.run_dir))}"
        )

    def _give_sign(self) -> None:
        """Give a sign of life."""
        if self.fence is not None:
            self.fence.beat()

    def _beat(self) -> None:
        """Give a sign of life, and end what is under way when the run has another owner."""
        if self.fence is not None and not self.fence.beat():
            self._note_late(signal.SIGTERM)

    def _note_late(self, number: int) -> None:
        """Note a signal that arrives when the training is over: what is left to do is cut short."""
        self._stopped = self._stopped or number
        self._note_signal(number)
        signal_all(signal.SIGTERM, self._spare)

    def _describe(self, component: str, code: int) -> failures.Failure:
        folder = record.attempt_folder(self.launch.run_dir, self.attempt.number)
        elsewhere = {LAUNCHER: folder / "prime_rl.log"}
        if self.launch.gpus.shared:
            elsewhere["inference"] = folder / "inference.log"
        return failures.describe(
            self.launch.run_dir, component, code, self.form, logs_elsewhere=elsewhere, redact=self.log.redact
        )

    def _clean_up(self) -> None:
        """Leave nothing behind on the node."""
        end_all(self._note_signal, spare=self._spare, grace=0.0)
        reap(())
        if self.caches is None:
            return
        good = self.attempt.reason == FINISHED and self._stopped is None
        said = [self.caches.give_back(self._is_stopped)] if good else []
        for text in (*said, self.caches.remove()):
            if text:
                self.log.say(text)
        self.caches = None

    def _keep(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a record of this attempt; the run goes on without it."""
        try:
            record.write_attempt(self.launch.run_dir, self.attempt.number, name, document)
        except OSError as error:
            self.log.say(f"cannot record how attempt {self.attempt.number} {name}: {error}")


def _pause(seconds: float) -> None:
    """Wait, unless a signal to stop arrives.

    Raises:
        StoppedError: One did.
    """
    arrived = signal.sigtimedwait(STOPS, seconds)
    if arrived is not None:
        raise StoppedError(arrived.si_signo)
