"""Why jobs wait: the reasons in plain words, who holds what, limits, and what would fit now."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standins import recorded
from standins.recorded import MARK

from medarc_plugin import why
from medarc_plugin.slurm import cluster as clusters
from medarc_plugin.slurm import jobs
from medarc_plugin.slurm.facts import (
    Accounting,
    Association,
    ClusterFacts,
    Node,
    Partition,
    Qos,
    Reservation,
    Settings,
)
from medarc_plugin.slurm.jobs import JobDetail, gpus_of, read_detail
from medarc_plugin.why import reasons

CAPTURED = Path(__file__).parents[1] / "captured" / "reasons"

# What SLURM 22.05.8 printed for a job that was submitted with --gres=gpu:h100:2 --mem=8G.
DETAIL = (
    "JobId=18 JobName=a Partition=fake JobState=RUNNING b UserId=ada(1000) GroupId=ada(1000) MCS_label=N/A "
    "Priority=4294901757 Nice=0 Account=(null) QOS=(null) JobState=PENDING "
    "Reason=ReqNodeNotAvail,_UnavailableNodes:node2 Dependency=afterok:12(unfulfilled) Requeue=1 Restarts=0 "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=01:00:00 TimeMin=N/A "
    "SubmitTime=2026-11-27T12:50:00 EligibleTime=2026-11-27T12:50:00 AccrueTime=2026-11-27T12:50:00 "
    "StartTime=2026-11-27T13:20:00 EndTime=2026-11-27T14:20:00 Deadline=N/A SuspendTime=None "
    "SecsPreSuspend=0 LastSchedEval=2026-11-27T12:50:10 Scheduler=Main Partition=gpu AllocNode:Sid=login:1 "
    "ReqNodeList=(null) ExcNodeList=node9 NodeList=(null) NumNodes=1-1 NumCPUs=16 NumTasks=1 CPUs/Task=16 "
    "ReqB:S:C:T=0:0:*:* TRES=cpu=16,mem=8G,node=1,billing=16 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* "
    "CoreSpec=* "
    "MinCPUsNode=16 MinMemoryNode=8G MinTmpDiskNode=0 Features=ib DelayBoot=00:00:00 OverSubscribe=OK "
    "Contiguous=0 Licenses=(null) Network=(null) Command=/runs/a/rl.sbatch WorkDir=/runs "
    "Comment=mine [medarc:0123456789ab]  StdErr=/runs/a/job_18.log StdIn=/dev/null StdOut=/runs/a/job_18.log "
    "Power= TresPerNode=gres:gpu:h100:2"
)


def node(name, used=0, **changes):
    known = {"partitions": ("gpu",), "state": "MIXED", "cpus": 64, "memory": 512000, "gpus": {"h100": 8}}
    known |= {"cpus_used": 8 * used, "memory_used": 16000 * used, "gpus_used": {"h100": used}}
    return Node(name, **{**known, **changes})


@pytest.fixture
def waiting(work, slurm, monkeypatch):
    """Let a job wait for a reason on a cluster, and explain it: `waiting("Resources", nodes=[...])`."""

    def wait(reason, nodes=(), entrypoint="sft", others=None, start="N/A", **facts):
        request = {
            "partitions": ("gpu",),
            "time_limit": 3600,
            "cpus": 16,
            "memory": 32000,
            "gpus": {"h100": 2},
        }
        own = [name for name in facts if name in JobDetail.__dataclass_fields__ and name != "partitions"]
        wish = {name: facts.pop(name) for name in own}
        detail = JobDetail("17", "PENDING", reason, **{**request, **wish})
        known = {"settings": Settings(), "partitions": (Partition("gpu", default=True),)}
        cluster = ClusterFacts("ada", **{**known, "nodes": None if nodes is None else tuple(nodes), **facts})
        monkeypatch.setattr(clusters, "ask", lambda _: cluster)
        details = {"17": detail}
        details |= {job_id: each for job_id, each in (others or {}).items() if isinstance(each, JobDetail)}
        monkeypatch.setattr(jobs, "detail", lambda _, job_id: details.get(job_id))
        own = {"state": "PENDING", "reason": reason, "comment": MARK, "start": start, "priority": "100"}
        running = {job_id: each for job_id, each in (others or {}).items() if isinstance(each, dict)}
        slurm.set(jobs={"17": own, **running})
        run = recorded.make_run(work / "runs" / "a", plan={"entrypoint": entrypoint})
        answer = why.explain(run)
        assert slurm.refused == ""
        return answer

    return wait


def told(answer):
    return answer.document()["waiting"]


def options(answer):
    return [change["options"] for change in told(answer)["sooner"] or ()]


@pytest.mark.parametrize("path", sorted(CAPTURED.iterdir()), ids=lambda path: path.name)
def test_every_reason_that_slurm_has_is_known(path):
    names = path.read_text().splitlines()

    assert len(names) > 150
    assert [name for name in names if reasons.meaning_of(name) is None] == []


def test_reasons_are_known_as_squeue_and_scontrol_write_them():
    for text in (
        "Resources",
        "(Resources)",
        "launch_failed_requeued_held",
        "(launch failed requeued held)",
        "ReqNodeNotAvail, UnavailableNodes:node[1-3]",
        "ReqNodeNotAvail,_UnavailableNodes:node1",
    ):
        assert reasons.meaning_of(text) is not None
    assert "maintenance" in reasons.meaning_of("ReqNodeNotAvail,_Reserved_for_maintenance").words
    assert reasons.meaning_of("SomethingNew") is None


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("QOSMaxGRESPerUser", (True, "user", "gpu", False, False)),
        ("QOSMaxWallDurationPerJobLimit", (True, "job", "wall", False, False)),
        ("QOSMinGRES", (True, "job", "gpu", True, False)),
        ("AssocGrpGRES", (False, "group", "gpu", False, False)),
        ("AssocMaxJobsLimit", (False, "user", "jobs", False, False)),
        ("AssocGrpCPURunMinutesLimit", (False, "group", "cpu", False, True)),
    ],
)
def test_a_limits_reason_is_taken_apart(reason, limit):
    assert reasons.limit_of(reason) == reasons.Limit(*limit)


def test_a_job_is_read_as_scontrol_prints_it():
    found = read_detail(DETAIL)

    assert (found.job_id, found.state, found.partitions) == ("18", "PENDING", ("gpu",))
    assert (found.cpus, found.memory, found.gpus, found.time_limit) == (16, 8192, {"h100": 2}, 3600)
    assert (found.constraint, found.exclude, found.nodelist, found.exclusive) == ("ib", "node9", None, False)
    assert found.dependency == "afterok:12(unfulfilled)"
    assert found.command == "/runs/a/rl.sbatch"


@pytest.mark.parametrize("text", ["gpu:2", "gres:gpu:2", "gres/gpu:2", "gres/gpu=2"])
def test_gpus_of_a_job_read_the_same_in_all_versions(text):
    assert gpus_of(text) == {"": 2}


def test_who_holds_the_gpus_is_named_with_when_each_ends_at_the_latest(waiting):
    end = (datetime.now().astimezone() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S")
    others = {
        "12": {"state": "RUNNING", "node": "node1", "gres": "gres/gpu:h100:5", "user": "bob", "end": end},
        "13": {"state": "RUNNING", "node": "node1", "gres": "gres:gpu:2", "user": "eve"},
    }

    answer = waiting("Resources", [node("node1", 7)], others=others, start="2099-01-01T00:00:00")

    text = "\n".join(answer.lines)
    assert [(job["job_id"], job["user"], job["gpus"]) for job in told(answer)["jobs"]] == [
        ("12", "bob", 5),
        ("13", "eve", 2),
    ]
    assert "7 of 8 GPUs (h100) in use, 8 CPUs free" in text
    assert "by job 12 (bob, 5 GPUs, until " in text
    assert "job 13 (eve, 2 GPUs)" in text
    assert "SLURM expects to start it at 2099-01-01 00:00" in text
    assert "SLURM's reason: Resources: it is the next in line" in text


@pytest.mark.parametrize(("reason", "doubted"), [("Priority", True), ("BeginTime", False)])
def test_an_expected_start_is_doubted_where_gpus_are_free(waiting, reason, doubted):
    answer = waiting(reason, [node("node1", 2)], start="2099-01-01T00:00:00")

    (line,) = [line for line in answer.lines if line.startswith("SLURM expects")]
    assert line.endswith("; 6 h100 GPUs of node1 are free now") == doubted


def test_gpus_of_jobs_that_slurm_hides_are_said_to_be_hidden(waiting):
    answer = waiting("Resources", [node("node1", 7)])

    assert any("7 GPUs by jobs that SLURM does not show you" in line for line in answer.lines)


def test_drained_nodes_are_named_with_the_operators_reason(waiting):
    drained = node("node2", state="IDLE", flags=frozenset({"DRAIN"}), reason="bad DIMM")

    answer = waiting("ReqNodeNotAvail, UnavailableNodes:node2", [drained])

    assert "node2 is drained: bad DIMM" in answer.lines
    assert told(answer)["nodes"][0]["trouble_reason"] == "bad DIMM"


def test_jobs_of_higher_priority_are_counted_and_named(waiting):
    others = {
        "15": {"state": "PENDING", "priority": "200", "user": "bob"},
        "16": {"state": "PENDING", "priority": "50", "user": "eve"},
    }

    answer = waiting("Priority", [node("node1", 8)], others=others)

    assert "1 job with a higher priority wait there: 15 (bob)" in "\n".join(answer.lines).replace(
        "waits", "wait"
    )


def test_an_unknown_reason_is_shown_and_said_to_be_unknown(waiting):
    answer = waiting("SomethingNew")

    assert (told(answer)["known"], told(answer)["kind"]) == (False, None)
    assert answer.lines[0].startswith("SLURM's reason: SomethingNew; it is not known here")
    assert options(answer) == []


def test_a_dependency_names_the_job_and_how_it_is(waiting):
    failed = JobDetail("12", "FAILED", exit_code="1:0")

    answer = waiting(
        "DependencyNeverSatisfied",
        dependency="afterok:12(failed),afterany:13(unfulfilled)",
        others={"12": failed},
    )

    assert "it depends on job 12 (afterok, failed), which is FAILED, with exit code 1:0" in answer.lines
    assert "it depends on job 13 (afterany, unfulfilled), which SLURM no longer knows" in answer.lines
    assert "it never starts" in answer.lines[0]
    assert answer.hints[0].startswith("cancel it and submit without --dependency")


def test_a_limit_is_shown_with_its_value_and_its_use(waiting):
    accounting = Accounting(
        "lab", (Association("lab", "ada"),), (), (Qos("short", max_tres_per_user={"gres/gpu": 4}),)
    )
    others = {"12": {"state": "RUNNING", "user": "ada", "gres": "gres/gpu:h100:3"}}

    answer = waiting("QOSMaxGRESPerUser", [node("node1")], qos="short", accounting=accounting, others=others)

    limit = told(answer)["limit"]
    assert (limit["name"], limit["value"], limit["in_use"], limit["asked"]) == ("QoS short", 4, 3, 2)
    assert (
        "the limit of QoS short is 4 GPUs, 3 GPUs of yours in use now, and this job asks for 2 GPUs"
        in answer.lines
    )
    assert any("job 12 (ada, 3 GPUs)" in line for line in answer.lines)


def test_a_job_that_never_starts_says_what_cannot_be_had(waiting):
    answer = waiting(
        "PartitionTimeLimit", [node("node1")], partitions=(Partition("gpu", default=True, max_time=1800),)
    )

    assert told(answer)["kind"] == "refused"
    assert any("00:30:00" in line for line in answer.lines)
    assert answer.hints[0] == "a shorter --time"


def test_a_held_job_is_to_be_released(waiting):
    assert waiting("JobHeldUser").hints == ("`scontrol release 17`",)


# What would start sooner


def test_fewer_gpus_that_are_free_are_proposed(waiting):
    assert options(waiting("Resources", [node("node1", 7)])) == ["--gpus 1"]


def test_one_shared_gpu_is_proposed_for_rl(waiting):
    assert options(waiting("Resources", [node("node1", 7)], entrypoint="rl")) == ["--single-gpu"]


def test_fewer_gpus_of_both_kinds_are_proposed_for_rl(waiting):
    answer = waiting("Resources", [node("node1", 5)], entrypoint="rl", gpus={"h100": 4})

    assert options(answer) == ["--train-gpus 2 --infer-gpus 1"]


def test_fewer_cpus_and_less_memory_are_proposed_where_the_gpus_are_free(waiting):
    busy = node("node1", 4, cpus_used=56, memory_used=500000)

    assert options(waiting("Resources", [busy]))[0] == "--cpus-per-gpu 4 --mem 11G"


def test_another_type_and_another_partition_are_proposed(waiting):
    full = node("node1", 8)
    free = node("node2", gpus={"a100": 8}, gpus_used={})
    beside = node("node3", partitions=("other",))
    partitions = (Partition("gpu", default=True), Partition("other"))

    answer = waiting("Resources", [full, free])
    assert options(answer) == ["--gpu-type a100"]
    answer = waiting("Resources", [full, beside], partitions=partitions)
    assert options(answer) == ["--partition other"]


def test_to_go_without_a_drained_node_by_name_is_proposed(waiting):
    drained = node("node2", state="IDLE", flags=frozenset({"DRAIN"}))

    answer = waiting("ReqNodeNotAvail, UnavailableNodes:node2", [node("node1"), drained], nodelist="node2")

    assert options(answer) == ["no --nodelist"]
    assert answer.hints == (
        "no --nodelist would fit what is free on node1 now: it asks for --nodelist node2",
    )


def test_a_time_that_ends_before_a_reservation_is_proposed(waiting):
    now = datetime.now().astimezone()
    start, end = ((now + timedelta(minutes=each)).strftime("%Y-%m-%dT%H:%M:%S") for each in (45, 105))
    service = Reservation("service", "INACTIVE", start, end, nodes="node1", flags=("MAINT",))

    answer = waiting("ReqNodeNotAvail, Reserved for maintenance", [node("node1")], reservations=(service,))

    (change,) = told(answer)["sooner"]
    assert change["options"] in {"--time 00:43:00", "--time 00:44:00"}
    assert any(line.startswith("reservation service has node1 from") for line in answer.lines)


def test_nothing_is_proposed_that_is_not_free(waiting):
    drained = node("node2", state="IDLE", flags=frozenset({"DRAIN"}))
    elsewhere = node("node3", partitions=("closed",))

    answer = waiting("Resources", [node("node1", 8), drained, elsewhere])

    assert (options(answer), answer.hints) == ([], ())


def test_nothing_is_proposed_where_nobody_says_what_is_free(waiting):
    assert options(waiting("Resources", nodes=None)) == []


def test_times_are_of_the_clock(waiting):
    begin = datetime.now(UTC) + timedelta(hours=1)

    answer = waiting("BeginTime", eligible=begin)

    assert any(line.startswith("it may start at ") for line in answer.lines)


def test_every_field_of_what_it_waits_for_is_described(waiting):
    text = (Path(__file__).parents[2] / "docs" / "why.md").read_text()
    others = {"12": {"state": "RUNNING", "node": "node1"}}
    found = told(waiting("Resources", [node("node1", 7)], others=others))

    names = {*found, *found["nodes"][0], *found["jobs"][0], *found["sooner"][0]}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
