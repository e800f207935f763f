"""A run's course, read from its own directory: steps, evaluations, GPUs, attempts and their phases.

Nothing else is asked, so that it works long after SLURM has forgotten the job. Files may be missing, torn or
still growing: what is whole is used, and what could not be read is said in `History.trouble`.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime as dt
import json
import math
import re
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medarc_plugin import runs
from medarc_plugin.job.formats import EVALS, ORCHESTRATOR, TRAINER, Format, form_of, read_line, seconds
from medarc_plugin.job.progress import duration as duration  # noqa: PLC0414 - for those who show a history
from medarc_plugin.records import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from medarc_plugin.runs import Run

LONGEST_ROW = 4 * 1024 * 1024
"""Bytes of a row of metrics; a longer one is none."""

SILENT_SECONDS = 120.0
"""Without a sign of life for this long, an attempt that has not ended is not taken to run; it gives one every
five seconds."""

NAN = math.nan


@dataclass
class Series:
    """A figure by step, each step once, in order.

    A step that comes again was made again after a resume. The later value counts, and what had been made
    from that step on is of a branch that the run did not go on with: it is kept apart.

    Attributes:
        name: What it is.
        unit: Its unit; empty when it has none.
        steps: The steps.
        values: Their values.
        times: When each was written, in seconds of the epoch; NaN where that is not known.
        abandoned_steps: Steps of branches that were left.
        abandoned_values: Their values.
        not_finite: Steps whose value is no number (NaN, infinity).
    """

    name: str
    unit: str = ""
    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))
    times: array[float] = field(default_factory=lambda: array("d"))
    abandoned_steps: array[float] = field(default_factory=lambda: array("d"))
    abandoned_values: array[float] = field(default_factory=lambda: array("d"))
    not_finite: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, value: float, moment: float = NAN) -> None:
        """Take a value as it comes."""
        if (self.steps and step <= self.steps[-1]) or (self.not_finite and step <= self.not_finite[-1]):
            self.leave(step)
        if not math.isfinite(value):
            self.not_finite.append(step)
            return
        self.steps.append(step)
        self.values.append(value)
        self.times.append(moment)

    def leave(self, step: int) -> None:
        """Keep apart what was made from a step on."""
        place = bisect.bisect_left(self.steps, step)
        self.abandoned_steps.extend(self.steps[place:])
        self.abandoned_values.extend(self.values[place:])
        for kept in (self.steps, self.values, self.times):
            del kept[place:]
        self.not_finite = [each for each in self.not_finite if each < step]

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.values[-1] if self.values else None


@dataclass(frozen=True)
class Parts:
    """How long steps took, and what took it.

    Attributes:
        whole: Seconds of each step.
        parts: The same by part, at the same steps.
    """

    whole: Series
    parts: Mapping[str, Series]

    def add(self, step: int, whole: float, parts: Mapping[str, float], moment: float = NAN) -> None:
        """Take a step's times; what no part accounts for is `other`."""
        if not math.isfinite(whole):
            return
        self.whole.add(step, whole, moment)
        known = {name: value for name, value in parts.items() if math.isfinite(value)}
        for name, series in self.parts.items():
            rest = max(0.0, whole - sum(known.values()))
            series.add(step, rest if name == "other" else known.get(name, 0.0), moment)


@dataclass(frozen=True)
class GpuSeries:
    """What one GPU did over time; NaN stands for what it did not say.

    Attributes:
        index: Its number on its node.
        attempts: The attempt that each sample belongs to.
        times: Seconds of the epoch.
        memory_used: MiB.
        memory_total: MiB.
        use: Percent of the time in which it computed.
    """

    index: int
    attempts: array[float] = field(default_factory=lambda: array("d"))
    times: array[float] = field(default_factory=lambda: array("d"))
    memory_used: array[float] = field(default_factory=lambda: array("d"))
    memory_total: array[float] = field(default_factory=lambda: array("d"))
    use: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class Phase:
    """A stretch of an attempt.

    Attributes:
        name: What it was at; `None` where that was not kept.
        began: Seconds of the epoch.
        ended: Likewise; of the last one of an attempt that runs, its newest sign of life.
    """

    name: str | None
    began: float
    ended: float


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run.

    Attributes:
        number: 1 for the first.
        record: Its line of `attempts.jsonl`, or what it wrote at its start.
        over: Whether its end was recorded.
        started: Seconds of the epoch; `None` when it is not known.
        ended: When it ended, or gave its newest sign of life; `None` when neither is known.
        gpus: How many GPUs it held.
        phases: What it was at, in order.
        phases_kept: Whether the job kept them; else they are made up from its steps.
        launched: What it started: `launched.json`.
    """

    number: int
    record: Mapping[str, Any]
    over: bool
    started: float | None
    ended: float | None
    gpus: int
    phases: tuple[Phase, ...]
    phases_kept: bool
    launched: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """How long it has lasted."""
        if self.started is None or self.ended is None:
            return None
        return max(0.0, self.ended - self.started)

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs that it held, whatever it used of them."""
        return (self.seconds or 0.0) * self.gpus / 3600

    @property
    def reason(self) -> str | None:
        """Why it ended, in a word; `None` while nobody has said so."""
        reason = self.record.get("reason")
        return reason if self.over and isinstance(reason, str) else None

    def is_alive(self, now: float) -> bool:
        """Whether it gave a sign of life of late."""
        return not self.over and self.ended is not None and now - self.ended < SILENT_SECONDS


@dataclass(frozen=True)
class History:
    """A run's course.

    Attributes:
        run: The run.
        at: When it was read, in seconds of the epoch.
        state: `state.json`.
        config: The config as prime-rl resolved it.
        provenance: The command as typed, versions and commits.
        reward: Mean reward of the rollouts that each step trained on.
        loss: Mean loss.
        validation_loss: Mean loss over the validation set.
        throughput: Tokens a second of the trainer.
        peak_memory: GPU memory that the trainer reserved at most, in GiB.
        step_seconds: Times of the trainer's steps.
        rollout_seconds: Times of the orchestrator's.
        evals: Mean reward of the evaluations of each environment.
        gpus: What each GPU did.
        attempts: All attempts, in order.
        source: What the steps were read from: `metrics`, `logs`, or empty when there was neither.
        trouble: What could not be read, a sentence each.
    """

    run: Run
    at: float
    state: Mapping[str, Any]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    reward: Series
    loss: Series
    validation_loss: Series
    throughput: Series
    peak_memory: Series
    step_seconds: Parts
    rollout_seconds: Parts
    evals: Mapping[str, Series]
    gpus: tuple[GpuSeries, ...]
    attempts: tuple[Attempt, ...]
    source: str
    trouble: tuple[str, ...]

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs that all attempts held."""
        return sum(attempt.gpu_hours for attempt in self.attempts)

    @property
    def max_steps(self) -> int | None:
        """The run's last step; `None` is without end."""
        return whole_number(self.config.get("max_steps"))

    @property
    def step(self) -> int | None:
        """The last whole step; `None` before the first."""
        steps = self.step_seconds.whole.steps
        return int(steps[-1]) if steps else whole_number(self.state.get("step"))

    @property
    def last_attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None


def read(run: Run, now: Callable[[], float] = time.time) -> History:
    """Read a run's course.

    Args:
        run: The run.
        now: Seconds of the epoch.
    """
    trouble = list(run.trouble)
    launch = run.files.launch
    config = runs.read_table(run.files.config, trouble)
    provenance = runs.read_table(run.files.provenance, trouble)
    form = _form(run.plan, provenance)
    collected = _Collected(form)
    source = collected.read(run, config, trouble)
    state = runs.read_table(launch / "state.json", trouble)
    attempts = _attempts(run, state, collected.step_seconds.whole)
    return History(
        run=run,
        at=now(),
        state=state,
        config=config,
        provenance=provenance,
        reward=collected.reward,
        loss=collected.loss,
        validation_loss=collected.validation_loss,
        throughput=collected.throughput,
        peak_memory=collected.peak_memory,
        step_seconds=collected.step_seconds,
        rollout_seconds=collected.rollout_seconds,
        evals=dict(sorted(collected.evals.items())),
        gpus=_gpus(launch / "gpus.jsonl"),
        attempts=attempts,
        source=source,
        trouble=tuple(trouble),
    )


def metrics_files(run: Run) -> list[Path]:
    """Where a run's components write their metrics; empty for a config without."""
    config = runs.read_table(run.files.config)
    form = _form(run.plan, runs.read_table(run.files.provenance))
    return _metrics_files(run, config, form)


def read_metrics(run: Run, wanted: Iterable[str]) -> dict[str, Series]:
    """Read any figures of the metrics files, by the keys that prime-rl gives them.

    Args:
        run: The run.
        wanted: The keys.

    Returns:
        A series for each key; an empty one when no row has it.
    """
    found = {key: Series(key) for key in wanted}
    marks = [json.dumps(key).encode() for key in found]
    for path in metrics_files(run):
        for row in rows(path, lambda line: any(mark in line for mark in marks)):
            step = whole_number(row.get("step"))
            for key, series in found.items():
                value = number(row.get(key))
                if step is not None and value is not None:
                    series.add(step, value, _moment(row))
    return found


def metric_keys(run: Run) -> list[str]:
    """List the figures that a run's metrics files have, in the order of their names."""
    found: set[str] = set()
    for path in metrics_files(run):
        for row in rows(path):
            found.update(key for key in row if key not in found and number(row[key]) is not None)
    return sorted(found - {"step", "time"})


def _form(plan: Mapping[str, Any], provenance: Mapping[str, Any]) -> Format:
    fields = plan.get("fields")
    shape = fields.get("shape") if isinstance(fields, dict) else provenance.get("shape")
    return form_of(str(shape))


def _metrics_files(run: Run, config: Mapping[str, Any], form: Format) -> list[Path]:
    paths = form.metrics_paths(run.run_dir, config) if run.entrypoint != "inference" else ()
    return list(dict.fromkeys(paths))


class _Collected:
    """What the rows of metrics, or the lines of logs, come to.

    Args:
        form: How this prime-rl words things.
    """

    def __init__(self, form: Format) -> None:
        self._form = form
        keys = form.metrics
        told = (keys.loss, keys.validation_loss, keys.throughput, keys.peak_memory, keys.step_seconds)
        marks = [re.escape(json.dumps(key)) for key in told]
        # Most rows of a run say nothing of these, and are not worth being read.
        self._speaks = re.compile("|".join([*marks, '"(?:train|eval)/']).encode()).search
        self.reward = Series("reward")
        self.loss = Series("loss")
        self.validation_loss = Series("validation loss")
        self.throughput = Series("throughput", "tokens/s")
        self.peak_memory = Series("trainer's peak memory", "GiB")
        self.step_seconds = _parts((*keys.trainer_seconds, "other"))
        self.rollout_seconds = _parts((*keys.rollout_seconds, "other"))
        self.evals: dict[str, Series] = {}

    def read(self, run: Run, config: Mapping[str, Any], trouble: list[str]) -> str:
        """Read a run's metrics; without any, its logs.

        Returns:
            What was read.
        """
        if run.entrypoint == "inference":
            return ""
        paths = [path for path in _metrics_files(run, config, self._form) if is_there(path)]
        for path in paths:
            try:
                for row in rows(path, self._speaks):
                    self._take_row(row)
            except OSError as error:
                trouble.append(f"{path} cannot be read: {error.strerror}")
        if paths:
            return "metrics"
        for folder in _log_folders(run.run_dir, self._form):
            self._take_logs(folder)
        return "logs" if len(self.loss) or len(self.reward) else ""

    def _take_row(self, row: Mapping[str, Any]) -> None:
        step, keys = whole_number(row.get("step")), self._form.metrics
        if step is None or step < 0:
            return
        moment = _moment(row)
        self._take_rewards(step, row, moment)
        whole = number(row.get(keys.step_seconds))
        if keys.rollout_seconds["wait_for_policy"] in row and whole is not None:
            self.rollout_seconds.add(step, whole, _known(row, keys.rollout_seconds), moment)
        if keys.trainer_seconds["forward_backward"] in row and whole is not None:
            self.step_seconds.add(step, whole, _known(row, keys.trainer_seconds), moment)
        for key, series in (
            (keys.loss, self.loss),
            (keys.validation_loss, self.validation_loss),
            (keys.throughput, self.throughput),
            (keys.peak_memory, self.peak_memory),
        ):
            value = number(row.get(key))
            if value is not None:
                series.add(step, value, moment)

    def _take_rewards(self, step: int, row: Mapping[str, Any], moment: float) -> None:
        """Take the mean over the agents, of the rollouts that were trained on and of each evaluation."""
        keys = self._form.metrics
        evals: dict[str, list[float]] = {}
        rewards: list[float] = []
        for key, value in row.items():
            if key.startswith("eval/") and (found := keys.eval_reward.fullmatch(key)):
                evals.setdefault(found["name"], []).append(_or_nan(value))
            elif key.startswith("train/") and keys.train_reward.fullmatch(key):
                rewards.append(_or_nan(value))
        for name, values in evals.items():
            self._take_eval(name, step, _mean(values), moment)
        if rewards:
            self.reward.add(step, _mean(rewards), moment)

    def _take_eval(self, name: str, step: int, reward: float, moment: float = NAN) -> None:
        self.evals.setdefault(name, Series(name)).add(step, reward, moment)

    def _take_logs(self, folder: Path) -> None:
        form = self._form
        for component in (TRAINER, ORCHESTRATOR, EVALS):
            for message in _messages(folder / form.log.get(component, "missing")):
                # A line may look like a step's and have no numbers where they should be.
                with contextlib.suppress(ValueError, OverflowError):
                    self._take_message(component, message)

    def _take_message(self, component: str, message: str) -> None:
        form = self._form
        if component == TRAINER and (found := form.trainer_step.match(message)):
            step, *figures = map(float, found.group("step", "loss", "throughput", "peak_memory"))
            # A log says only how long it took.
            took = seconds(found["seconds"])
            for series, value in zip((self.loss, self.throughput, self.peak_memory), figures, strict=True):
                series.add(int(step), value)
            self.step_seconds.whole.add(int(step), took)
        elif component == ORCHESTRATOR and (found := form.rollout_step.match(message)):
            step, reward = map(float, found.group("step", "reward"))
            took = seconds(found["seconds"])
            self.reward.add(int(step), reward)
            self.rollout_seconds.whole.add(int(step), took)
        elif found := form.eval_result.match(message):
            step, reward = map(float, found.group("step", "reward"))
            self._take_eval(found["name"], int(step), reward)


def _parts(names: Iterable[str]) -> Parts:
    return Parts(Series("step", "s"), {name: Series(name, "s") for name in names})


def _known(row: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, float]:
    found = {name: number(row.get(key)) for name, key in keys.items()}
    return {name: value for name, value in found.items() if value is not None}


def _log_folders(run_dir: Path, form: Format) -> list[Path]:
    """The folders of all launches' logs, oldest first."""
    newest = run_dir / form.logs
    if form.keeps_logs:
        return _numbered(newest.parent.glob("attempt_*"))
    return [*_numbered(run_dir.glob(f"{form.logs}_*")), newest]


def _numbered(paths: Iterable[Path]) -> list[Path]:
    named = [(re.search(r"_(\d+)$", path.name), path) for path in paths]
    return [path for _, path in sorted((int(found[1]), path) for found, path in named if found)]


def _messages(path: Path) -> Iterator[str]:
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            yield read_line(line).message


# Rows


def rows(path: Path, wanted: Callable[[bytes], object] | None = None) -> Iterator[dict[str, Any]]:
    """Read a file of JSON lines one by one, as far as they are whole.

    Args:
        path: The file; a missing one has no rows.
        wanted: Says of a line whether it is worth reading.

    Raises:
        OSError: It cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while line := file.readline(LONGEST_ROW):
            if not line.endswith(b"\n") and len(line) == LONGEST_ROW:
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_ROW)
                continue
            if wanted is not None and not wanted(line):
                continue
            row = _row(line)
            if row is not None:
                yield row


def _row(line: bytes) -> dict[str, Any] | None:
    """Read a row; of one that was written behind another's torn beginning, the whole one."""
    place = line.rfind(b'{"step"')
    for text in (line, line[place:] if place > 0 else b""):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(text)
            if isinstance(row, dict):
                return row
    return None


def number(value: object) -> float | None:
    """Take a number, also what JSON calls NaN or infinity; `None` for anything else."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def whole_number(value: object) -> int | None:
    """Take a whole number, which may be written as `3.0`; `None` for anything else."""
    found = number(value)
    return None if found is None or not found.is_integer() else int(found)


def _or_nan(value: object) -> float:
    found = number(value)
    return NAN if found is None else found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _moment(row: Mapping[str, Any]) -> float:
    return _or_nan(row.get("time"))


# GPUs


def _gpus(path: Path) -> tuple[GpuSeries, ...]:
    found: dict[int, GpuSeries] = {}
    # Of two attempts that overlap, each wrote in its own time.
    for moment, attempt, reading in sorted(_readings(path), key=lambda each: each[0]):
        index = whole_number(reading.get("index"))
        if index is None:
            continue
        series = found.setdefault(index, GpuSeries(index))
        series.attempts.append(attempt)
        series.times.append(moment)
        series.memory_used.append(_or_nan(reading.get("memory_used_mib")))
        series.memory_total.append(_or_nan(reading.get("memory_total_mib")))
        series.use.append(_or_nan(reading.get("use_percent")))
    return tuple(found[index] for index in sorted(found))


def _readings(path: Path) -> Iterator[tuple[float, float, Mapping[str, Any]]]:
    with contextlib.suppress(OSError):
        for row in rows(path):
            moment, readings = _or_nan(row.get("time")), row.get("gpus")
            if math.isfinite(moment) and isinstance(readings, list):
                for reading in readings:
                    if isinstance(reading, dict):
                        yield moment, _or_nan(row.get("attempt")), reading


# Attempts

STARTING, TRAINING, ENDING = "starting", "training", "ending"
"""Phases that are made up for an attempt whose job kept none."""


def _attempts(run: Run, state: Mapping[str, Any], steps: Series) -> tuple[Attempt, ...]:
    folder = run.run_dir / "configs" / "attempts"
    begun: dict[int, Mapping[str, Any]] = {}
    for path in folder.glob("*/started.json"):
        record = _checked(runs.read_table(path))
        if (attempt := whole_number(record.get("attempt"))) is not None:
            begun[attempt] = record
    if (attempt := whole_number(state.get("attempt"))) in begun:
        # Of one that runs, this tells how far it is.
        known = {**state, "steps": state.get("steps_this_attempt")}
        told = {name: known.get(name) for name in ("steps", "step", "resumed_from")}
        begun[attempt] = {**begun[attempt], **_checked(told)}
    ended: dict[int, Mapping[str, Any]] = {}
    for record in map(_checked, runs.read_rows(run.files.launch / "attempts.jsonl")):
        if (attempt := whole_number(record.get("attempt"))) is not None:
            # What was written at its start is in the line too, unless it was lost.
            ended[attempt] = {**begun.get(attempt, {}), **record}
    return tuple(
        _attempt(run, folder / str(attempt), attempt, ended, begun, steps)
        for attempt in sorted({*begun, *ended})
    )


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("attempt", "exit_code", "resumed_from", "checkpoint", "steps", "step"), int),
    **dict.fromkeys(("job_id", "host", "started", "ended", "reason", "failure"), str),
    **dict.fromkeys(("gpus", "signals", "failed"), list),
    "requeued": bool,
}


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Take of a record what is known here, and of the kind that it should be."""
    return {name: record[name] for name, kind in _TYPES.items() if isinstance(record.get(name), kind)}


def _attempt(
    run: Run,
    folder: Path,
    attempt: int,
    ended: Mapping[int, Mapping[str, Any]],
    begun: Mapping[int, Mapping[str, Any]],
    steps: Series,
) -> Attempt:
    record = ended.get(attempt) or begun[attempt]
    first, last = _epoch(record.get("started")), _epoch(record.get("ended"))
    if last is None:
        last = _written_at(folder / "heartbeat.json") or _written_at(folder / "started.json")
    kept = _kept_phases(folder / "phases.jsonl", first, last)
    return Attempt(
        number=attempt,
        record=record,
        over=attempt in ended,
        started=first,
        ended=last,
        gpus=_gpu_count(record, run.plan),
        phases=kept or _made_up_phases(first, last, steps),
        phases_kept=bool(kept),
        launched=runs.read_table(folder / "launched.json"),
    )


def _gpu_count(record: Mapping[str, Any], plan: Mapping[str, Any]) -> int:
    """How many GPUs an attempt held; when it could not tell, how many were planned."""
    held, planned = record.get("gpus"), plan.get("gpus")
    count = len(set(map(str, held))) if isinstance(held, list) else 0
    if count or not isinstance(planned, dict):
        return count
    return whole_number(planned.get("count")) or 0


def _written_at(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None


def _kept_phases(path: Path, started: float | None, ended: float | None) -> tuple[Phase, ...]:
    found: list[tuple[str | None, float]] = []
    for row in runs.read_rows(path):
        name, began = row.get("phase"), _epoch(row.get("time"))
        if began is not None and (name is None or isinstance(name, str)):
            found.append((name, began))
    if not found:
        return ()
    if started is not None and started < found[0][1]:
        found.insert(0, (STARTING, started))
    ends = [began for _, began in found[1:]]
    ends.append(max(found[-1][1], ended or found[-1][1]))
    return tuple(Phase(name, began, max(began, end)) for (name, began), end in zip(found, ends, strict=True))


def _made_up_phases(started: float | None, ended: float | None, steps: Series) -> tuple[Phase, ...]:
    """Tell from the times of its steps what an attempt was at."""
    if started is None or ended is None:
        return ()
    times = [moment for moment in steps.times if started <= moment <= ended]
    if not times:
        return (Phase(STARTING, started, ended),)
    first = bisect.bisect_left(steps.times, times[0])
    began = max(started, times[0] - steps.values[first])
    found = (Phase(STARTING, started, began), Phase(TRAINING, began, times[-1]))
    return (*found, Phase(ENDING, times[-1], ended))


def _epoch(text: object) -> float | None:
    """Read a time as the records have it, ISO 8601; `None` for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
