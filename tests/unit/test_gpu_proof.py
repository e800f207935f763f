"""What drives the proof on GPUs: order, budget, resumption, and what it reads from logs and results."""

import dataclasses
import gzip
import json
import re
import threading
import time
import tomllib
from datetime import datetime
from types import SimpleNamespace

import pytest
from gpu_proof import __main__ as proof
from gpu_proof import jobs, keep, moments, rewards, stages, table
from gpu_proof.place import OutOfTimeError, Place, StageError, alone, call
from gpu_proof.stages import Stage

from medarc_plugin.sandbox.processes import is_alive, wait_until


@pytest.fixture
def place(tmp_path):
    (tmp_path / "results").mkdir()
    return Place(
        work=tmp_path, prime_rl=tmp_path, python=tmp_path / "python", gpus=2, ends=time.monotonic() + 1000
    )


@pytest.fixture
def drive(place, monkeypatch):
    """Drive stages of one's own; gives the order in which they ended."""
    ended = []

    def drive(*described, place=place):
        def make(name, run):
            def counted(place):
                found = run(place)
                ended.append(name)
                return found

            return counted

        chosen = [
            Stage(name, "", make(name, run), gpus=gpus, seconds=1, **more)
            for name, run, gpus, more in described
        ]
        monkeypatch.setattr(stages, "STAGES", tuple(chosen))
        proof.drive(place, chosen)
        return ended

    return drive


def finds(_):
    return {"seen": True}


def fails(_):
    raise StageError("it went wrong")


def test_a_stage_begins_when_those_before_it_are_done(drive, place):
    ended = drive(("rl", finds, 1, {"after": ("sft",)}), ("sft", finds, 1, {}))

    assert ended == ["sft", "rl"]
    assert json.loads(place.result("rl").read_text())["found"] == {"seen": True}


def test_what_is_done_is_not_done_again(drive, place):
    place.result("sft").write_text('{"seconds": 1, "found": {}}')

    assert drive(("sft", fails, 1, {}), ("rl", finds, 1, {"after": ("sft",)})) == ["rl"]


def test_a_failed_stage_is_recorded_and_those_behind_it_are_not_begun(drive, place):
    ended = drive(("sft", fails, 1, {}), ("rl", finds, 1, {"after": ("sft",)}), ("base", finds, 1, {}))

    assert ended == ["base"]
    assert "it went wrong" in (place.work / "results" / "sft.failed").read_text()
    assert not place.result("rl").exists()


def test_gpus_are_never_promised_twice(drive):
    running, most, lock = 0, [], threading.Lock()

    def works(_):
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        threading.Event().wait(0.05)
        with lock:
            running -= 1
        return {}

    drive(*((f"run-{number}", works, 1, {}) for number in range(5)))

    assert len(most) == 5
    assert max(most) <= 2


def test_what_needs_more_gpus_than_there_are_is_left_out_unless_it_is_asked_for(place):
    one = dataclasses.replace(place, gpus=1)

    assert {stage.gpus for stage in proof.choose(one)} == {0, 1}
    with pytest.raises(StageError, match="rl-two takes 2 GPUs, and this machine has 1"):
        proof.choose(dataclasses.replace(one, chosen=("tiny", "rl-two")))


def test_a_result_that_was_cut_is_not_done(drive, place):
    place.result("sft").write_text('{"seconds": 1, "fou')

    assert drive(("sft", finds, 1, {})) == ["sft"]


def test_what_cannot_be_written_down_is_not_done(drive, place, capsys):
    def runs(place):
        place.result("sft").with_name(".sft.json").mkdir()  # where it is drafted
        return {}

    drive(("sft", runs, 1, {}))

    assert "sft: FAILED, IsADirectoryError" in capsys.readouterr().out
    assert place.found("sft") is None


def test_a_stage_that_is_not_begun_takes_its_waiting_job_with_it(place, submitted, capsys):
    place.submitted["rl-one"] = stages.submit_rl_one(place, jobs.Job("1", place.run_dir("tiny-sft")))
    short = dataclasses.replace(place, ends=time.monotonic() + 100, chosen=("rl-one",))

    proof.drive(short, proof.choose(short))

    said = capsys.readouterr().out
    assert re.search(r"rl-one: not begun, it takes some 400 s, and \d+ s of the budget are left", said)
    assert submitted.cancelled == ["1"]
    assert not short.asks_for("rl-one")


def test_the_rl_that_slurm_starts_behind_sft_is_the_one_that_is_followed(place, submitted, monkeypatch):
    followed = []
    monkeypatch.setattr(jobs, "follow_to_success", lambda _place, job: followed.append(job.run_dir.name))
    place.submitted["rl-one"] = stages.submit_rl_one(place, jobs.Job("1", place.run_dir("tiny-sft")))
    monkeypatch.setattr(jobs, "submit", None)

    stages.rl_one(place)

    assert followed == ["rl-one"]
    assert "rl-one" not in place.submitted


def test_a_folder_belongs_to_one_proof_at_a_time(tmp_path):
    with (
        alone(tmp_path),
        pytest.raises(StageError, match="another scripts/prove is at work"),
        alone(tmp_path),
    ):
        pass
    with alone(tmp_path):
        pass


@pytest.mark.parametrize("typed", ["0", "-5", "nan", "inf", "soon"])
@pytest.mark.parametrize("option", ["--budget", "--pace"])
def test_a_time_is_a_number_of_seconds(typed, option, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prove", f"{option}={typed}"])

    with pytest.raises(SystemExit) as stopped:
        proof.parse()

    assert stopped.value.code == 2
    assert option in capsys.readouterr().err


def test_a_command_ends_with_the_proof_and_all_that_it_has_started(place, tmp_path):
    started = tmp_path / "started"
    waiter = threading.Thread(
        target=lambda: (
            wait_until(lambda: started.exists() and started.read_text(), 30),
            place.stopped.set(),
        ),
        daemon=True,
    )
    waiter.start()

    with pytest.raises(OutOfTimeError, match="stopped"):
        call(place, "sft", ["/bin/sh", "-c", f"/bin/sleep 1000 & echo $! > {started}; wait"])

    child = int(started.read_text())
    assert wait_until(lambda: not is_alive(child), 30)


def test_nothing_is_begun_that_the_budget_cannot_hold(drive, tmp_path):
    short = Place(tmp_path, tmp_path, tmp_path, gpus=1, ends=time.monotonic() + 0.5)

    assert drive(("sft", finds, 1, {}), place=short) == []


def test_waiting_ends_with_the_budget(tmp_path):
    over = Place(tmp_path, tmp_path, tmp_path, gpus=1, ends=time.monotonic() - 1)

    with pytest.raises(OutOfTimeError, match="budget"):
        over.pause()


def test_a_command_that_fails_says_so_and_leaves_its_output(place):
    with pytest.raises(StageError, match=r"sh failed \(exit code 3\): error: no such thing"):
        call(
            place,
            "sft",
            ["/bin/sh", "-c", "echo told; { echo error: no such thing; echo after; } >&2; exit 3"],
        )

    log = place.log("sft").read_text()
    assert "told" in log
    assert "after" in log


def test_moments_are_seconds_after_the_start_by_the_logs_clock(tmp_path):
    began = datetime(2026, 3, 1, 23, 59, 50).timestamp()  # noqa: DTZ001 - logs have local time
    server = tmp_path / "inference.log"
    server.write_text(
        "\x1b[0;36m(Core pid=7)\x1b[0;0m INFO 03-01 23:59:55 [runner.py:1] Starting to load model x...\n"
        "no time here: GPU KV cache size\n"
        "INFO 03-02 00:00:20 [kv.py:1] GPU KV cache size: 5 tokens\n"
    )
    trainer = tmp_path / "trainer.log"
    trainer.write_text(
        "[trainer0]:\x1b[32m00:00:01\x1b[0m \x1b[1m   INFO\x1b[0m begins\n"
        "[trainer0]:00:01:00 SUCCESS Step 1 | 2s\n"
    )

    found = moments.timeline({"inference": [server], "trainer": [tmp_path / "none", trainer]}, began)

    assert found["vLLM's engine has imported"] == 5
    assert found["memory is measured"] == 30
    assert found["trainer has imported"] == 11
    assert found["first step of the trainer"] == 70
    assert found["vLLM's server listens"] is None


def test_step_times_leave_the_first_step_out(tmp_path):
    rows = [
        {
            "step": step,
            "time": 1.0,
            "time/step": seconds,
            "time/wait_for_batch": 1.0,
            "time/forward_backward": 0.5,
        }
        for step, seconds in ((1, 60.0), (2, 4.0), (3, 6.0), (4, 5.0))
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in [*rows, {"step": 4, "other": 1}])
    (tmp_path / "metrics.jsonl").write_text(text + '{"torn')

    found = moments.step_seconds(tmp_path)

    assert found == {"steps": 3, "median": 5.0, "wait_for_batch": 1.0, "forward_backward": 0.5, "sum": 15.0}


def test_the_standard_error_is_over_strings(tmp_path):
    rows = [{"example_id": string, "reward": reward} for string in (1, 2) for reward in (string - 1.0,) * 3]

    assert rewards.summary(rows) == {"reward": 0.5, "standard_error": 0.5, "strings": 2, "rollouts": 6}
    with pytest.raises(StageError, match="no rewards"):
        rewards.summary([])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"reward": 0.0, "error": "ModelError"}, "1 of 2 answers failed, the first with ModelError"),
        ({"reward": float("nan")}, "no number"),
        ({"reward": None}, "no number"),
    ],
)
def test_an_answer_that_failed_is_no_reward_of_nothing(row, said):
    with pytest.raises(StageError, match=said):
        rewards.summary([{"example_id": 1, "reward": 1.0, "error": None}, {"example_id": 2, **row}])


def test_the_table_names_what_was_not_seen(place):
    (place.work / "results" / "tiny-sft.failed").write_text("Traceback\nFAILED, job 3 ended\n")
    (place.work / "results" / "tiny.failed").touch()  # the disk was full

    text = table.render(place)

    assert "| tiny-sft | SFT on one GPU | FAILED, job 3 ended |" in text
    assert "| tiny | model and data are made | FAILED, and could not write why |" in text
    assert "| rl-two | RL on two GPUs | NOT SEEN |" in text
    assert "| after SFT | not seen | not seen |" in text


def run_of(median, total):
    return {
        "step_seconds": {"steps": 24, "median": median, "sum": total},
        "timeline": {"first step of the trainer": 91.0},
        "memory": {},
        "trainer_peak_memory_gib": 0.3,
    }


def ended(began, *seconds):
    """Steps of that many seconds, one after the other, behind those that do not count."""
    at, steps = began - stages.SETTLED, []
    for took in (1.0,) * stages.SETTLED + seconds:
        at += took
        steps.append((at, took))
    return steps


def test_the_table_compares_the_runs_while_both_were_at_work(place):
    def show(name, ours, theirs):
        found = {
            "plugin": {**run_of(4.0, 100.0), "steps_ended": ours},
            "by-hand": {**run_of(5.0, 120.0), "steps_ended": theirs},
        }
        place.result(name).write_text(json.dumps({"seconds": 1, "found": found}))

    # prime-rl's own starts a minute later, and has the machine to itself at the end.
    show("pace", ended(0, 30.0, 30.0, *[2.25] * 64), ended(60, *[2.0] * 72, *[0.5] * 100))
    one = table.render(place)
    # The machine is half as fast in the middle: that is no difference between the two.
    slow = [*[2.25] * 32, *[4.5] * 32], [*[2.0] * 36, *[4.0] * 36]
    show("pace-again", ended(0, *slow[0]), ended(0, *slow[1]))
    both = table.render(place)

    assert "the plugin's made 64 steps and prime-rl's own 72; one of the plugin took 1.125 ± 0.000" in one
    assert "the plugin's made 128 steps and prime-rl's own 144; one of the plugin took 1.125 ± 0.000" in both
    assert "| first step of the trainer | 91 | 91 | 91 | 91 |" in both
    assert "| prime-rl's own `rl`, again | 24 | 5.0 | None | None |" in both


def test_the_table_tells_memory_as_it_was_planned_and_used(place):
    memory = {
        "share": 0.493,
        "planned": {"trainer_bytes": 2**29, "inference_bytes": 2**30, "reserve_bytes": 5 * 2**29},
        "most_used_mib": {"1": 72704},
    }
    runs = {"rl-one": memory, "rl-two": {"share": None, "planned": None, "most_used_mib": {}}}
    for name, seen in runs.items():
        found = {**run_of(4.0, 100.0), "memory": seen}
        place.result(name).write_text(json.dumps({"seconds": 1, "found": found}))

    text = table.render(place)

    assert (
        "- rl-one: vLLM's share 0.493, planned trainer 0.50 GiB, planned vLLM at least 1.00 GiB, "
        "planned beside both 2.50 GiB, used at most 71.0 GiB of GPU 1, "
        "reserved by the trainer 0.30 GiB\n"
    ) in text
    assert "- rl-two: reserved by the trainer 0.30 GiB\n" in text


def test_steps_are_counted_with_the_part_of_the_one_that_a_run_is_at():
    steps = [(10.0, 4.0), (14.0, 4.0), (24.0, 10.0)]

    assert [table.steps_made(steps, at) for at in (9.0, 10.0, 12.0, 19.0, 24.0, 99.0)] == [
        0,
        1,
        1.5,
        2.5,
        3,
        3,
    ]


@pytest.mark.parametrize(
    ("zone", "began", "clock", "after"),
    [
        ("Europe/Berlin", "2026-03-28T23:59:50+00:00", (1, 0, 5), 15),
        ("Europe/Berlin", "2026-03-29T00:59:30+00:00", (3, 0, 30), 60),  # summer time begins
        ("Europe/Berlin", "2026-10-25T00:59:30+00:00", (2, 0, 30), 60),  # and ends
        ("America/New_York", "2026-03-01T04:59:50+00:00", (0, 0, 20), 30),  # midnight
        ("Asia/Kolkata", "2026-03-01T10:00:00+00:00", (15, 29, 56), -4),
    ],
)
def test_the_clock_of_a_log_is_read_across_midnight_and_summer_time(zone, began, clock, after, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert moments.seconds_after(clock, datetime.fromisoformat(began).timestamp()) == after
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_step_ends_once_though_two_components_tell_of_it(tmp_path):
    trainers = [
        {"step": n, "time": 100.0 + n, "time/step": 1.5, "time/forward_backward": 1.0} for n in (2, 1)
    ]
    others = [{"step": 1, "time": 101.0, "time/step": 9.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in trainers + others))

    assert moments.steps_ended(tmp_path) == [(101.0, 1.5), (102.0, 1.5)]


def test_the_trainers_memory_is_the_most_that_it_had_in_a_step(tmp_path):
    rows = [
        row  # prime-rl writes its times and its performance in rows of their own
        for n, gib in ((1, 0.42), (2, 0.46), (3, 0.44))
        for row in (
            {"step": n, "time": 1.0, "perf/mfu": 0.1, "perf/peak_memory": gib},
            {"step": n, "time": 1.0, "time/step": 1.0, "time/forward_backward": 1.0},
        )
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    assert moments.peak_memory_gib(tmp_path) == 0.46
    assert moments.peak_memory_gib(tmp_path / "none") is None


def test_the_table_names_the_machine_of_each_call(place):
    calls = [{"at": "10:00", "cpus": 16}, {"at": "11:00", "cpus": 16}]
    (place.work / "machine.json").write_text(json.dumps(calls))

    text = table.render(place)

    assert "- at: 10:00, then 11:00\n- cpus: 16\n" in text


def test_what_is_kept_of_a_proof_names_no_path_of_the_machine(place, tmp_path):
    place.result("rl-one").write_text(f'{{"at": "{place.work}/runs/rl-one"}}')
    run_dir = place.run_dir("rl-one")
    run_dir.mkdir(parents=True)
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
    place.run_dir("serve-sft").mkdir()
    (place.run_dir("serve-sft") / "job_7.log").write_text("listens\n")  # a server makes no steps
    (place.work / "results" / ".rl-two.json").write_text("{")  # is being written
    answers = place.work / "evals" / "eval-sft-20" / "evals" / "x"
    answers.mkdir(parents=True)
    row = {
        "example_id": 7,
        "prompt": [{"content": "Reverse it."}, {"content": "abc"}],
        "completion": [{"content": "cab"}],
        "answer": "cba",
        "reward": 0.5,
        "timing": {},
    }
    (answers / "results.jsonl").write_text(json.dumps(row) + "\n")

    keep.keep(place.work, tmp_path / "kept", [(str(place.work), "/scratch")])

    kept = {file.name: file for file in (tmp_path / "kept").rglob("*.*")}
    assert json.loads(kept["rl-one.json"].read_text()) == {"at": "/scratch/runs/rl-one"}
    assert gzip.decompress(kept["rl-one.metrics.jsonl.gz"].read_bytes()) == b'{"step": 1}\n'
    assert gzip.decompress(kept["serve-sft.job_7.log.gz"].read_bytes()) == b"listens\n"
    assert ".rl-two.json" not in kept
    (line,) = gzip.decompress(kept["eval-sft-20.answers.jsonl.gz"].read_bytes()).splitlines()
    assert json.loads(line) == {"example_id": 7, "text": "abc", "said": "cab", "answer": "cba", "reward": 0.5}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["."], "is not the folder of a proof: it has no results"),
        ([".", "--path", "/scratch"], "'/scratch' is not OLD=NEW"),
        ([".", "--path", "=/scratch"], "'=/scratch' is not OLD=NEW"),
    ],
)
def test_what_cannot_be_kept_is_named(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["keep", *arguments, "kept"])

    with pytest.raises(SystemExit):
        keep.main()

    assert said in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_a_pair_is_measured_on_the_example_with_another_harness_and_a_policy_that_stays(place):
    def read(path):
        with path.open("rb") as file:
            return tomllib.load(file)

    paced, example = read(stages.paced_config(place)), read(jobs.example("rl.toml"))

    for part in ("train", "eval"):
        for source in paced["orchestrator"][part]["source"]:
            assert source["env"]["agent"]["harness"].pop("id") == "in-process-chat"
        for source in example["orchestrator"][part]["source"]:
            assert source["env"]["agent"]["harness"].pop("id") == "null"
    assert paced["trainer"].pop("optim") == {"lr": 1e-6}
    assert paced["orchestrator"].pop("batch_size") == 2 * example["orchestrator"].pop("batch_size")
    assert paced.pop("max_steps") == paced["orchestrator"]["eval"].pop("interval") == 100_000
    del example["max_steps"], example["trainer"]["optim"], example["orchestrator"]["eval"]["interval"]
    assert paced == example


@pytest.fixture
def submitted(place, monkeypatch):
    """Runs that are submitted instead of jobs, with the steps that each has made; all are cancelled."""
    steps, over, cancelled = {}, set(), []
    monkeypatch.setattr(jobs, "submit", lambda place, *a, **_: jobs.Job("1", place.run_dir(a[-1])))
    monkeypatch.setattr(stages, "submit_by_hand", lambda place, name, **_: jobs.Job("2", place.run_dir(name)))
    monkeypatch.setattr(stages, "wait_for_launch", lambda *_: None)
    monkeypatch.setattr(stages, "told", lambda *_: {})
    monkeypatch.setattr(stages, "told_by_hand", lambda *_: {})
    monkeypatch.setattr(jobs, "is_over", lambda job: job.job_id in over)
    monkeypatch.setattr(jobs, "follow", lambda *_: "CANCELLED")
    monkeypatch.setattr(jobs, "cancel", lambda job: cancelled.append(job.job_id))
    monkeypatch.setattr(moments, "steps_ended", lambda run_dir: steps.get(run_dir.name, []))
    monkeypatch.setattr(time, "time", lambda: 100.0)
    return SimpleNamespace(steps=steps, over=over, cancelled=cancelled)


def test_a_pair_works_together_for_a_time_and_is_ended(place, submitted, monkeypatch):
    asked = []

    def pause(_self, _seconds):
        asked.append(1)
        submitted.steps["pace-plugin"] = [(99.0, 1.0)] * stages.SETTLED
        if len(asked) == 3:
            submitted.steps["pace-by-hand"] = [(99.0, 1.0)] * stages.SETTLED

    monkeypatch.setattr(Place, "pause", pause)

    found = stages.pair("pace")(dataclasses.replace(place, pace_seconds=0.0))

    assert len(asked) == 4, "the time begins when both are past their first steps"
    assert submitted.cancelled == ["1", "2"]
    assert {part: len(told["steps_ended"]) for part, told in found.items()} == dict.fromkeys(
        stages.PARTS, stages.SETTLED
    )


def test_a_pair_of_which_one_cannot_be_submitted_leaves_the_other_no_gpu(place, submitted, monkeypatch):
    def refused(*_arguments, **_how):
        raise StageError("sbatch failed")

    monkeypatch.setattr(stages, "submit_by_hand", refused)

    with pytest.raises(StageError, match="sbatch failed"):
        stages.pair("pace")(place)

    assert submitted.cancelled == ["1"]


def test_a_pair_of_which_one_stands_still_is_no_comparison(place, submitted):
    submitted.steps |= {
        "pace-plugin": [(-100.0, 1.0)] * stages.SETTLED,
        "pace-by-hand": [(99.0, 1.0)] * stages.SETTLED,
    }

    with pytest.raises(StageError, match="pace-plugin has made no step for 200 s"):
        stages.pair("pace")(dataclasses.replace(place, pace_seconds=0.0))

    assert submitted.cancelled == ["1", "2"]


def test_a_pair_of_which_one_ends_is_no_comparison_and_leaves_no_job(place, submitted):
    submitted.over.add("2")

    with pytest.raises(StageError, match="pace-by-hand ended before the comparison did"):
        stages.pair("pace")(place)

    assert submitted.cancelled == ["1", "2"]


@pytest.mark.parametrize(("chosen", "behind"), [((), ["rl-one"]), (("tiny-sft", "pace"), [])])
def test_reinforcement_learning_waits_behind_the_fine_tuning_where_it_is_asked_for(
    place, submitted, monkeypatch, chosen, behind
):
    monkeypatch.setattr(stages, "weights", lambda _: "weights")
    monkeypatch.setattr(jobs, "follow_to_success", lambda *_: None)
    names = []
    monkeypatch.setattr(
        jobs, "submit", lambda place, *a, **_: names.append(a[-1]) or jobs.Job("1", place.run_dir(a[-1]))
    )

    stages.train_sft(dataclasses.replace(place, chosen=chosen))

    assert names == ["tiny-sft", *behind]


@pytest.fixture
def by_hand(place, monkeypatch):
    """Writes what a run by hand is submitted with; gives its config and its script."""
    configs = place.run_dir(stages.ONE) / "configs"
    for folder in ("attempts/1", "launch"):
        (configs / folder).mkdir(parents=True)
    config = {
        "max_steps": 40,
        "trainer": {"max_steps": 40},
        "orchestrator": {"max_steps": 40},
        "inference": {"vllm": {}, "server": {"port": 8000}},
        "at": str(place.run_dir(stages.ONE)),
    }
    slots = [{"offset": 2, "paths": ["inference.server.port"]}]
    served = {"vllm": {"gpu_memory_utilization": 0.3}}
    (configs / "rl.json").write_text(json.dumps(config))
    (configs / "launch" / "launch.json").write_text(json.dumps({"ports": {"size": 64, "slots": slots}}))
    (configs / "attempts" / "1" / "inference.json").write_text(json.dumps(served))
    monkeypatch.setattr(jobs, "submit_by_hand", lambda *arguments: arguments)

    def by_hand(name, **how):
        _, _, script, _ = stages.submit_by_hand(place, name, **how)
        return json.loads((place.work / "by-hand" / f"{name}.json").read_text()), script

    return by_hand


def test_a_run_by_hand_may_be_cut_short_in_every_part(by_hand, place):
    written, script = by_hand("pace-by-hand", steps=25)

    assert [written["max_steps"], *(written[part]["max_steps"] for part in ("trainer", "orchestrator"))] == [
        25
    ] * 3
    assert written["inference"]["vllm"] == {"gpu_memory_utilization": 0.3}
    assert written["at"] == str(place.run_dir("pace-by-hand"))
    assert "pace-by-hand.json" in script


def test_runs_by_hand_meet_on_prime_rls_ports_only_where_that_is_to_be_shown(by_hand):
    names = ("pace-by-hand", "pace-again-by-hand", stages.BY_HAND, *stages.FIXED_PORTS)

    ports = {name: by_hand(name)[0]["inference"]["server"]["port"] for name in names}

    assert [ports.pop(name) for name in stages.FIXED_PORTS] == [8000, 8000]
    assert len(set(ports.values()) - {8000}) == 3


def test_a_cold_run_by_hand_finds_nothing_that_another_has_compiled(by_hand):
    scripts = [by_hand(stages.BY_HAND, cold=True)[1], by_hand("pace-by-hand")[1]]

    folders = [re.search(r"VLLM_CACHE_ROOT=(\S+)", script)[1] for script in scripts]
    assert len(set(folders)) == 2


def test_the_checks_of_a_job_are_read_from_its_log(tmp_path):
    (tmp_path / "job_7.log").write_text(
        "noise\nmedarc | [ ok ] GPUs: 1\nmedarc | [FAIL] prime-rl: none\nmedarc |          hint: get it\n"
    )

    assert jobs.checks(tmp_path) == ["[ ok ] GPUs: 1", "[FAIL] prime-rl: none"]
