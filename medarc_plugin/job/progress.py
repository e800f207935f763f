"""How a run goes: read, as it grows, from what prime-rl writes, and kept in `state.json`."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .formats import EVALS, MAIN, ORCHESTRATOR, TRAINER, Format, read_line, seconds
from .record import write_whole
from .tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .gpuwatch import Reading

WAITING, WARMING_UP, TRAINING = "waiting for vLLM", "warming up", "training"
EVALUATING, EXPORTING, DONE, SERVING = "evaluating", "exporting", "done", "serving"

FORMAT = 1

HISTORY = 2 * 1024 * 1024
"""Bytes at the end of an earlier attempt's metrics that are read for where it had come to."""

LOG_BYTES = 64 * 1024
"""Bytes of a log that one tick reads at most."""

RECENT = 20
"""Steps whose times the remaining time is estimated from."""

REWARD_SECONDS = 3.0
"""How long a step's line waits for the reward, which another process writes."""

INTERVAL = 1.0
"""Seconds between two writes of `state.json` at least."""

HEARTBEAT = 15.0
"""Seconds after which it is written though nothing changed."""

_WORDS = {
    "wait_for_batch": "waiting for the batch",
    "load_data": "loading",
    "forward_backward": "forward and backward",
    "broadcast_weights": "weights",
    "save_ckpt": "checkpoint",
    "other": "other",
}


@dataclass
class Step:
    """What is known of one step.

    Attributes:
        number: The step.
        loss: Its mean loss.
        reward: Mean reward of the rollouts that it trained on.
        throughput: Tokens a second.
        peak_memory: GPU memory that the trainer reserved at most, in GiB.
        seconds: How long it took; `None` while the trainer is not through with it.
        parts: Seconds by part of it.
        ended: When the trainer was through with it, in seconds of the epoch.
    """

    number: int
    loss: float | None = None
    reward: float | None = None
    throughput: float | None = None
    peak_memory: float | None = None
    seconds: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    ended: float | None = None


class Progress:
    """Follows one attempt of a run. Make it before prime-rl is started, and call `tick` now and then.

    What an earlier attempt left is where this one begins: a step that is made again replaces what was
    known of it, and is counted once.

    Args:
        run_dir: The run directory.
        entrypoint: `rl`, `sft` or `inference`.
        config: The config as prime-rl reads it.
        form: How this prime-rl words things.
        clock: Seconds of the epoch.
    """

    def __init__(
        self,
        run_dir: Path,
        entrypoint: str,
        config: Mapping[str, Any],
        form: Format = MAIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._entrypoint = entrypoint
        self._form = form
        self._clock = clock
        self._started = clock()
        self._max_steps = _whole(config.get("max_steps"))
        self._evals = config.get("eval") is not None
        self._pool_ready = not (entrypoint == "rl" or (entrypoint == "sft" and self._evals))
        self._pending: set[str] = set()
        self._trainer_ended = False
        self._entered: str | None = None

        self.step: int | None = None
        self.highest_step = 0
        self.steps_made = 0
        self._steps: dict[int, Step] = {}
        self._times: deque[float] = deque(maxlen=RECENT)
        self._reward: float | None = None
        self._validation_loss: float | None = None
        self._rollout_seconds: dict[str, float] = {}
        self._eval_rewards: dict[str, dict[str, Any]] = {}
        self._unsaid: deque[tuple[float, Step]] = deque()
        self._lines: list[str] = []
        self.gpus: Sequence[Reading] | None = None

        self._logs = run_dir / form.logs
        # Until prime-rl has begun its own, the newest logs are an earlier launch's.
        self._log_target = _identity(self._logs)
        self._log_tails: dict[str, Tail] = {}
        paths = form.metrics_paths(run_dir, config) if entrypoint != "inference" else ()
        self._metrics = [Tail(path) for path in paths]
        self._read_history()

    # What the owner says and asks

    def enter(self, phase: str) -> None:
        """Say that the run is in a phase that prime-rl's files do not tell: `exporting`, `done`."""
        self._entered = phase

    def tick(self) -> list[str]:
        """Read what is new.

        Returns:
            Lines for the log: one for each step that was made, and one for each evaluation.
        """
        if self._entrypoint == "inference":
            return []
        self._read_logs()
        for metrics in self._metrics:
            for line in metrics.read():
                self._take_row(line, new=True)
        self._say_steps()
        lines, self._lines = self._lines, []
        return lines

    @property
    def phase(self) -> str:
        """What the run is at."""
        if self._entered is not None:
            return self._entered
        if self._entrypoint == "inference":
            return SERVING
        if self._trainer_ended:
            return EVALUATING if self._pending or (self._evals and self._entrypoint == "sft") else TRAINING
        # SFT trains on while others evaluate; in RL an evaluation takes the place of the rollouts.
        if self._pending and self._entrypoint == "rl":
            return EVALUATING
        if self.steps_made:
            return TRAINING
        return WARMING_UP if self._pool_ready else WAITING

    def state(self) -> dict[str, Any]:
        """What `state.json` holds; docs/job-anatomy.md lists the fields with their units."""
        now = self._clock()
        common = {
            "format": FORMAT,
            "entrypoint": self._entrypoint,
            "phase": self.phase,
            "started": _utc(self._started),
            "updated": _utc(now),
            "gpus": None if self.gpus is None else [reading.document() for reading in self.gpus],
        }
        if self._entrypoint == "inference":
            return common
        step = self._steps.get(self.step) if self.step is not None else None
        left = self.seconds_left(now)
        return {
            **common,
            "step": self.step,
            "max_steps": self._max_steps,
            "highest_step": self.highest_step,
            "steps_this_attempt": self.steps_made,
            "loss": step.loss if step else None,
            "validation_loss": self._validation_loss,
            "reward": step.reward if step and step.reward is not None else self._reward,
            "evals": {name: dict(result) for name, result in self._eval_rewards.items()},
            "tokens_per_second": step.throughput if step else None,
            "trainer_peak_memory_gib": step.peak_memory if step else None,
            "step_seconds": {"step": step.seconds, **step.parts} if step else None,
            "rollout_seconds": dict(self._rollout_seconds) or None,
            "seconds_left": None if left is None else round(left),
            "eta": None if left is None else _utc(now + left),
            "last_step_at": _utc(step.ended) if step and step.ended is not None else None,
        }

    def seconds_left(self, now: float) -> float | None:
        """Estimate the remaining time: the steps to make, at the median of the last steps' times.

        Args:
            now: Seconds of the epoch.
        """
        if self._max_steps is None or self.step is None or not self._times:
            return None
        times = sorted(self._times)
        middle = (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2
        left = max(0, self._max_steps - self.step) * middle
        step = self._steps.get(self.step)
        passed = now - step.ended if step and step.ended is not None else 0.0
        # What has passed of a step counts; a step that takes long does not eat up those behind it.
        return max(0.0, left - min(max(0.0, passed), middle))

    # Metrics

    def _read_history(self) -> None:
        """Read where an earlier attempt had come to."""
        for metrics in self._metrics:
            usual, metrics.backlog = metrics.backlog, HISTORY
            before = -1
            while metrics.offset != before:
                before = metrics.offset
                for line in metrics.read():
                    self._take_row(line, new=False)
            metrics.backlog = usual

    def _take_row(self, line: str, *, new: bool) -> None:
        row = _row(line)
        number = _whole(row.get("step"))
        if number is None or number < 0:
            return
        keys = self._form.metrics
        rewards: dict[str, list[float]] = {}
        for key, value in row.items():
            found = keys.eval_reward.fullmatch(key) if key.startswith("eval/") else None
            reward = _number(value)
            if found and reward is not None:
                rewards.setdefault(found["name"], []).append(reward)
        for name, values in rewards.items():
            self._take_eval(name, number, sum(values) / len(values), new=new)
        if keys.rollout_seconds["wait_for_policy"] in row:
            self._take_rollouts(number, row, new=new)
        elif not rewards:
            self._take_trainer_row(number, row, new=new)

    def _take_eval(self, name: str, number: int, reward: float, *, new: bool) -> None:
        self._eval_rewards[name] = {"step": number, "reward": reward}
        self._pending.discard(name)
        if new:
            self._pool_ready = True
            self._lines.append(f"evaluation of {name} at step {number}: reward {reward:.4f}")

    def _take_rollouts(self, number: int, row: Mapping[str, Any], *, new: bool) -> None:
        keys = self._form.metrics
        found = [_number(value) for key, value in row.items() if keys.train_reward.fullmatch(key)]
        rewards = [reward for reward in found if reward is not None]
        if rewards:
            self._reward = self._at(number).reward = sum(rewards) / len(rewards)
        self._rollout_seconds = _parts(row, {"step": keys.step_seconds, **keys.rollout_seconds})
        self._pool_ready |= new

    def _take_trainer_row(self, number: int, row: Mapping[str, Any], *, new: bool) -> None:
        keys = self._form.metrics
        validation = _number(row.get(keys.validation_loss))
        if validation is not None:
            self._validation_loss = validation
        values = {
            "loss": _number(row.get(keys.loss)),
            "throughput": _number(row.get(keys.throughput)),
            "peak_memory": _number(row.get(keys.peak_memory)),
        }
        for name, value in values.items():
            if value is not None:
                setattr(self._at(number), name, value)
        took = _number(row.get(keys.step_seconds))
        if keys.trainer_seconds["forward_backward"] in row and took is not None:
            parts = _parts(row, keys.trainer_seconds)
            parts["other"] = max(0.0, took - sum(parts.values()))
            self._end_step(number, took, parts, _number(row.get("time")), new=new)

    def _at(self, number: int) -> Step:
        """The record of a step; only those of the last steps are kept."""
        step = self._steps.get(number)
        if step is None:
            step = self._steps[number] = Step(number)
            # In the order of arrival: after a resume the lower numbers are the newer ones.
            while len(self._steps) > 2 * RECENT:
                del self._steps[next(iter(self._steps))]
        return step

    def _end_step(
        self, number: int, took: float, parts: dict[str, float], ended: float | None, *, new: bool
    ) -> None:
        step = self._at(number)
        again = new and self.steps_made > 0 and self.step is not None and number <= self.step
        step.seconds, step.parts = took, parts
        step.ended = ended if ended is not None else self._clock()
        self.highest_step = max(self.highest_step, number)
        if again:
            return
        self.step = number
        if not new:
            return
        self.steps_made += 1
        if self.steps_made == 2:  # noqa: PLR2004 - the first one compiled, which no other does
            self._times.clear()
        self._times.append(took)
        self._unsaid.append((self._clock(), step))

    def _say_steps(self) -> None:
        """Make the lines of steps that are complete, in order."""
        while self._unsaid:
            since, step = self._unsaid[0]
            complete = step.reward is not None or self._entrypoint != "rl" or len(self._unsaid) > 1
            if not complete and self._clock() - since < REWARD_SECONDS:
                return
            self._unsaid.popleft()
            self._lines.append(self._words(step))

    def _words(self, step: Step) -> str:
        facts = [] if step.loss is None else [f"loss {step.loss:.4f}"]
        if step.reward is not None:
            facts.append(f"reward {step.reward:.4f}")
        took = step.seconds or 0.0
        parts = sorted(step.parts.items(), key=lambda part: -part[1])
        shown = [f"{_WORDS.get(name, name)} {part:.1f}" for name, part in parts if part >= 0.05 * took > 0]
        facts.append(f"{took:.1f} s" + (f" ({', '.join(shown)})" if shown else ""))
        if step.throughput is not None:
            facts.append(f"{step.throughput:.0f} tokens/s")
        left = self.seconds_left(self._clock())
        if left is not None and step.number == self.step:
            facts.append(f"{duration(left)} left")
        of = f" of {self._max_steps}" if self._max_steps is not None else ""
        return f"step {step.number}{of}: {', '.join(facts)}"

    # Logs

    def _read_logs(self) -> None:
        target = _identity(self._logs)
        if target is None:
            return
        if target != self._log_target:
            self._log_target = target
            self._pending.clear()
            self._trainer_ended = False
            folder = self._logs.resolve()
            self._log_tails = {
                component: Tail(folder / self._form.log[component])
                for component in (TRAINER, ORCHESTRATOR, EVALS)
                if component in self._form.log
            }
        for component, tail in self._log_tails.items():
            for line in tail.read(LOG_BYTES):
                self._take_message(component, read_line(line).message)

    def _take_message(self, component: str, message: str) -> None:
        form = self._form
        if component == TRAINER:
            self._take_trainer_message(message)
            return
        if form.pool_ready.search(message):
            self._pool_ready = True
        found = form.evals_start.search(message)
        if found:
            self._pending.update(found["names"].split(", "))
        found = form.eval_ends.search(message)
        if found:
            self._pending.discard(found["name"] or found["skipped"])
        found = form.eval_result.match(message) if not self._metrics else None
        if found:
            self._take_eval(found["name"], int(found["step"]), float(found["reward"]), new=True)
        found = form.rollout_step.match(message) if not self._metrics else None
        if found:
            self._pool_ready = True
            self._reward = self._at(int(found["step"])).reward = float(found["reward"])

    def _take_trainer_message(self, message: str) -> None:
        form = self._form
        found = form.resumed.search(message)
        if found and not self.steps_made:
            self.step = int(found["step"])
            self.highest_step = max(self.highest_step, self.step)
            self._steps = {number: step for number, step in self._steps.items() if number <= self.step}
        if form.trainer_ends.search(message):
            self._trainer_ended = True
        found = form.trainer_step.match(message) if not self._metrics else None
        if found:
            step = self._at(int(found["step"]))
            step.loss, step.throughput = float(found["loss"]), float(found["throughput"])
            step.peak_memory = float(found["peak_memory"])
            self._end_step(step.number, seconds(found["seconds"]), {}, None, new=True)


def _row(line: str) -> Mapping[str, Any]:
    """Read a row; of one that was written behind another's torn beginning, the whole one."""
    for text in (line, line[line.rfind('{"step"') :]):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(text)
            if isinstance(row, dict):
                return row
    return {}


def _parts(row: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, float]:
    found = {name: _number(row.get(key)) for name, key in keys.items()}
    return {name: value for name, value in found.items() if value is not None}


def _number(value: object) -> float | None:
    """Take a number; what JSON calls NaN or infinity is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < float("inf") else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _identity(path: Path) -> str | None:
    """What tells a launch's folder of logs from another's: where a link leads to, or which folder it is."""
    with contextlib.suppress(OSError):
        return os.readlink(path)  # noqa: PTH115 - twice a second
    with contextlib.suppress(OSError):
        return str(os.stat(path).st_ino)  # noqa: PTH116 - likewise
    return None


def _utc(moment: float) -> str | None:
    utc = dt.timezone.utc  # noqa: UP017 - datetime.UTC is not in Python 3.9
    try:
        return dt.datetime.fromtimestamp(moment, utc).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        # A run without an end to speak of.
        return None


def duration(length: float) -> str:
    """Word a time in its two highest units.

    Args:
        length: Seconds.
    """
    minutes, rest = divmod(round(length), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    first = next((index for index, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2] if number) or "0 s"


class StateFile:
    """`state.json`: written when something changed, at most once a second, and now and then anyway.

    Args:
        path: The file.
        clock: Seconds that only go up.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._written = -HEARTBEAT
        self._last: dict[str, Any] = {}

    def write(self, state: Mapping[str, Any], *, at_once: bool = False) -> bool:
        """Write a state if it is time.

        Args:
            state: What `Progress.state` returned, and whatever the owner adds.
            at_once: Whether it cannot wait: the last one.

        Returns:
            Whether it was written.

        Raises:
            OSError: It cannot be written. It is not tried again before another second.
        """
        now = self._clock()
        since = now - self._written
        facts = {name: value for name, value in state.items() if name not in _PASSING}
        if not at_once and (since < INTERVAL or (facts == self._last and since < HEARTBEAT)):
            return False
        self._written, self._last = now, facts
        write_whole(self.path, state)
        return True


_PASSING = frozenset({"updated", "seconds_left", "eta"})
"""Fields that change with time alone."""
