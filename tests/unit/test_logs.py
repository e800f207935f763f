"""A run's logs: which there are, and following them."""

import os
import threading

import pytest
from standins import recorded
from standins.recorded import MARK, begin, end

from medarc_plugin import logs, records, watching
from medarc_plugin.logs import COMPONENTS, Follower, find, last_lines, of_attempt

START = 1_700_000_000


@pytest.fixture
def run(work):
    return recorded.make_run(work / "runs" / "a")


def write(path, text, at=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if at is not None:
        os.utime(path.parent, (at, at))


def attempt_began(run, number, at, job_id="17"):
    begin(run, number, job_id=job_id)
    path = run.run_dir / "configs/attempts" / str(number) / "started.json"
    os.utime(path, (at, at))


def found(run, *components, attempt=None):
    told = records.read(run)
    everything = find(run, told, components or COMPONENTS)
    return of_attempt(everything, told, attempt)


def test_prime_rls_launches_are_told_apart_by_attempt(run):
    # Of three attempts the second did not start prime-rl, and the third started it twice.
    for number, at in ((1, START), (2, START + 100), (3, START + 200)):
        attempt_began(run, number, at)
    for launch, at in ((1, START + 10), (2, START + 210), (10, START + 220)):
        write(run.run_dir / f"logs/attempt_{launch}/trainer.log", "x\n", at)

    everything = find(run, records.read(run), ["trainer"])

    assert [(log.attempt, log.path.parent.name) for log in everything] == [
        (1, "attempt_1"),
        (3, "attempt_2"),
        (3, "attempt_10"),
    ]
    assert [log.path.parent.name for log in found(run, "trainer")] == ["attempt_2", "attempt_10"]
    assert [log.path.parent.name for log in found(run, "trainer", attempt=1)] == ["attempt_1"]
    assert found(run, "trainer", attempt=2) == []


def test_each_component_has_its_log(run):
    attempt_began(run, 1, START)
    folder = run.run_dir / "logs/attempt_1"
    for name in (
        "trainer",
        "orchestrator",
        "inference",
        "evals",
        "envs/train/reverse-text",
        "envs/eval/math",
    ):
        write(folder / f"{name}.log", "x\n")
    write(run.run_dir / "configs/attempts/1/inference.log", "x\n")
    write(run.run_dir / "job_17.log", "x\n")
    os.utime(folder, (START + 1, START + 1))

    labels = [log.label for log in found(run)]

    assert labels == [
        *("job", "trainer", "orchestrator", "inference", "evals", "env eval/math", "env train/reverse-text"),
        "inference",
    ]


def test_an_older_prime_rl_keeps_its_logs_elsewhere(work):
    run = recorded.make_run(work / "runs" / "a", plan={"fields": {"shape": "v0.8.0"}})
    for number, at in ((1, START), (2, START + 100), (3, START + 200)):
        attempt_began(run, number, at)
    for name, at in (("logs_1", START + 10), ("logs_2", START + 110), ("logs", START + 210)):
        write(run.run_dir / name / "trainer.log", "x\n", at)
    (run.run_dir / "logs_old").mkdir()

    everything = find(run, records.read(run), ["trainer"])

    assert [(log.attempt, log.path.parent.name) for log in everything] == [
        (1, "logs_1"),
        (2, "logs_2"),
        (3, "logs"),
    ]


def test_the_newest_jobs_log_is_meant_and_an_older_attempts_can_be_asked_for(run):
    attempt_began(run, 1, START, job_id="9")
    for job in ("9", "17"):
        write(run.run_dir / f"job_{job}.log", f"of {job}\n")

    assert [log.path.name for log in found(run, "job")] == ["job_17.log"]
    assert [log.path.name for log in found(run, "job", attempt=1)] == ["job_9.log"]


def test_a_job_that_was_submitted_by_hand_has_a_log_too(work):
    run = recorded.make_run(work / "runs" / "a", job_id=None)
    write(run.run_dir / "job_23.log", "x\n")

    assert [log.path.name for log in found(run)] == ["job_23.log"]


def test_of_a_jobs_log_an_attempt_is_shown_alone(run):
    head = "medarc | a: rl, attempt {0}, job 17\n"
    text = "".join(head.format(number) + f"says {number}\nmedarc | x\n" for number in (1, 2, 3))
    write(run.run_dir / "job_17.log", text)
    for number in (1, 2, 3):
        attempt_began(run, number, START)
    (log,) = found(run, "job", attempt=2)

    assert last_lines(log, 9, 2)[0] == [b"medarc | a: rl, attempt 2, job 17", b"says 2", b"medarc | x"]
    assert last_lines(log, 1, 3)[0] == [b"medarc | x"]
    assert last_lines(log, 9, 4)[0] == []


def test_a_local_runs_output_stands_for_its_jobs(work):
    run = recorded.make_run(work / "runs" / "a", job_id=None, backend="local")
    attempt_began(run, 1, START)
    write(run.run_dir / "configs/attempts/1/prime_rl.log", "x\n")

    assert [(log.component, log.path.name) for log in found(run)] == [("job", "prime_rl.log")]


class Followed:
    """Follows a run in which something happens at each pause."""

    def __init__(self, run, happens, **options):
        self.shown, self.said = [], []
        self._happens = list(happens)
        wanted = options.pop("components", COMPONENTS)
        self.status = Follower(
            *(run, wanted, options.pop("attempt", None), options.pop("lines", 2)),
            show=lambda log, lines: self.shown.extend(f"{log.label}: {line.decode()}" for line in lines),
            say=self.said.append,
            pause=self._pause,
        ).follow()

    def _pause(self, _seconds):
        # SLURM's answers come beside the looks.
        for thread in threading.enumerate():
            if thread.name == watching.ASKING:
                thread.join(5)
        if self._happens:
            self._happens.pop(0)()


def job(slurm, **fields):
    return lambda: slurm.set(jobs={"17": {"comment": MARK, **fields}})


def append(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def test_a_run_is_followed_from_the_queue_across_a_requeue_to_its_end(run, slurm, monkeypatch):
    monkeypatch.setattr("medarc_plugin.watching.FIRST", 0.0)
    monkeypatch.setattr("medarc_plugin.watching.MOST", 0.0)
    log = run.run_dir / "job_17.log"
    trainer = run.run_dir / "logs"
    job(slurm, state="PENDING", reason="Resources", start="2030-01-02T03:04:00")()

    followed = Followed(
        run,
        [
            job(slurm, state="RUNNING", node="node1"),
            lambda: (begin(run, 1), append(log, "one\n")),
            lambda: append(trainer / "attempt_1/trainer.log", "step 1\nste"),
            lambda: append(trainer / "attempt_1/trainer.log", "p 2\n"),
            lambda: (end(run, 1, "time-limit", 143, requeued=True), append(log, "requeued\n")),
            job(slurm, state="PENDING", reason="BeginTime"),
            lambda: (job(slurm, state="RUNNING", node="node1")(), begin(run, 2), append(log, "two\n")),
            lambda: append(trainer / "attempt_2/trainer.log", "step 3\n"),
            lambda: (end(run, 2), job(slurm, state="COMPLETED")()),
            lambda: append(log, "no end"),
        ],
    )

    assert followed.shown == [
        *("job: one", "trainer: step 1", "trainer: step 2", "job: requeued", "job: two", "trainer: step 3"),
        "job: no end",
    ]
    assert followed.said[0] == "job 17 is waiting (Resources), expected to start at 2030-01-02 03:04"
    assert followed.said[-1] == "job 17 is over: COMPLETED, exit code 0"
    attempts = [text for text in followed.said if text.startswith("attempt")]
    assert [text.removesuffix(" on node1") for text in attempts] == ["attempt 1", "attempt 2"]
    assert followed.status.state == "COMPLETED"


def test_the_last_lines_come_first_and_older_attempts_not_at_all(run, slurm):
    for number in (1, 2):
        attempt_began(run, number, START + 100 * number)
        write(
            run.run_dir / f"logs/attempt_{number}/trainer.log", f"a\nb\nc{number}\n", START + 100 * number + 1
        )
    slurm.set(jobs={"17": {"state": "FAILED", "comment": MARK}})

    followed = Followed(run, [], components=["trainer"])

    assert followed.shown == ["trainer: b", "trainer: c2"]


def test_a_half_line_at_the_beginning_is_shown_once_and_whole(run, slurm):
    path = run.run_dir / "job_17.log"
    path.write_text("a\nhal")
    job(slurm, state="RUNNING")()

    followed = Followed(
        run, [lambda: append(path, "f\n"), lambda: (end(run), job(slurm, state="COMPLETED")())]
    )

    assert followed.shown == ["job: a", "job: half"]


def test_an_attempt_that_is_asked_for_is_followed_to_its_own_end(run, slurm):
    job(slurm, state="RUNNING")()
    begin(run, 1)

    followed = Followed(run, [lambda: end(run, 1, "preempted", 143, requeued=True)], attempt=1)

    assert followed.said[-1] == "job 17 is RUNNING"


def test_slurms_silence_is_said_once_and_the_files_are_followed(run, slurm):
    begin(run)
    slurm.set(up=False)
    log = run.run_dir / "job_17.log"

    followed = Followed(run, [lambda: append(log, "a\n"), lambda: append(log, "b\n"), lambda: end(run)])

    assert followed.shown == ["job: a", "job: b"]
    assert len([text for text in followed.said if "SLURM did not answer" in text]) == 1
    assert followed.said[-1] == "job 17 is over: COMPLETED, exit code 0"


def test_every_component_has_a_colour():
    from medarc_plugin.cli import reading

    assert set(reading.COLOURS) == set(COMPONENTS)
    assert max(map(len, logs.COMPONENTS)) == reading.LABEL
