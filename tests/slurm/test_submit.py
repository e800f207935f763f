"""The main job against a real SLURM, with a stand-in for prime-rl and for nvidia-smi."""

import json
import re
from pathlib import Path

import pytest
from standin import install_gpu_packages
from standins.cluster import EXAMPLES, SCRIPTS, Cluster, eventually, log_in

pytestmark = pytest.mark.slurm

SECRET = "hf_Zx81-sentinel"


@pytest.fixture
def cluster(slurm_env, tmp_path):
    return log_in(tmp_path, slurm_env)


RL = ("--train-gpus", "1", "--infer-gpus", "1")


def test_an_rl_run_is_submitted_scheduled_run_and_ended(cluster, wait_for_job):
    submitted = cluster.submit("rl", "--output-dir", "runs/reverse-rl", *RL)

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert submitted.run == cluster.folder / "runs" / "reverse-rl"
    assert submitted.log == submitted.run / f"job_{submitted.job}.log"
    assert ended["TresPerNode"] == "gres:gpu:2"
    assert ended["NumCPUs"] == "16"
    (attempt,) = submitted.attempts
    assert (attempt["reason"], attempt["exit_code"], len(attempt["gpus"])) == ("finished", 0, 2)
    assert (submitted.run / "checkpoints").is_dir()


def test_an_sft_run_takes_one_gpu(cluster, wait_for_job):
    submitted = cluster.submit("sft", "--output-dir", "runs/reverse-sft", "--gpus", "1")

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert ended["TresPerNode"] == "gres:gpu:1"
    assert len(submitted.attempts[0]["gpus"]) == 1


def test_runs_share_a_node_and_never_a_gpu(cluster, wait_for_job):
    gate = cluster.folder / "gate"
    runs = [
        cluster.submit("sft", "--output-dir", f"runs/{n}", "--gpus", "1", STANDIN_WAIT_FOR=str(gate))
        for n in range(3)
    ]
    starts = [run.run / "configs" / "attempts" for run in runs]
    eventually(lambda: all(path.is_dir() for path in starts))
    gate.touch()

    states = [wait_for_job(run.job) for run in runs]

    assert {state["JobState"] for state in states} == {"COMPLETED"}
    assert len({run.attempts[0]["gpus"][0] for run in runs}) == 3
    assert len({state["BatchHost"] for state in states}) == 1


def test_one_gpu_serves_both(cluster, wait_for_job):
    submitted = cluster.submit("rl", "--output-dir", "runs/one", "--single-gpu")

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert ended["TresPerNode"] == "gres:gpu:1"
    (gpu,) = submitted.attempts[0]["gpus"]
    assert cluster.report()["environment"]["CUDA_VISIBLE_DEVICES"] == str(gpu)
    assert "vLLM has its share of the GPU" in submitted.log.read_text()


def test_the_printed_command_submits_what_a_dry_run_wrote(cluster, wait_for_job):
    done = cluster.run(
        *(SCRIPTS / "medarc_slurm", "rl", EXAMPLES / "rl.toml"),
        *("--output-dir", "runs/by hand", *RL, "--dry-run"),
    )
    (command,) = done.stdout.splitlines()
    by_hand = cluster.run("bash", "-c", command)

    ended = wait_for_job(by_hand.stdout.strip())

    assert ended["JobState"] == "COMPLETED", (cluster.folder / "runs/by hand").rglob("*.log")


@pytest.mark.parametrize("form", ["gres", "gpus-per-node", "gpus"])
def test_every_form_of_asking_for_gpus_gets_them(cluster, wait_for_job, form):
    submitted = cluster.submit(
        *("rl", "--output-dir", "runs/form", *RL, "--gpu-flag", form, "--gpu-type", "h100"),
        *("--mem-per-gpu", "4G", "--cpus-per-gpu", "2", "--time", "5"),
    )

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert (ended["NumCPUs"], ended["TimeLimit"]) == ("4", "00:05:00")
    assert "mem=8G" in ended["TRES"]


def test_how_prime_rl_ends_is_how_the_job_ends(cluster, wait_for_job):
    submitted = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", STANDIN_EXIT_CODE="7")

    ended = wait_for_job(submitted.job)

    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "7:0")


@pytest.mark.parametrize(
    "name", ["it's", 'say "hi"', "$(id)", "`id`", "a b", "100%j", "{{ x }}", "-dash", "naïve ü 漢", "a#b # c"]
)
def test_names_and_paths_are_literal(cluster, wait_for_job, name):
    submitted = cluster.submit(
        *("sft", "--output-dir", f"runs/{name}", "--gpus", "1"),
        *("--job-name", name, "--comment", name),
    )
    shown = cluster.squeue(submitted.job, "%j|%k")

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert submitted.log.parent.name == name
    assert shown in ("", f"{name}|{name} [medarc:{recorded(submitted)['token']}]")


def recorded(submitted):
    return json.loads((submitted.run / "configs" / "launch" / "submission.json").read_text())


def test_a_directory_whose_job_runs_is_refused_with_its_id(cluster, wait_for_job):
    gate = cluster.folder / "gate"
    submitted = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", STANDIN_WAIT_FOR=str(gate))
    before = submitted.script.read_bytes()
    launch = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml")
    again = [
        cluster.run(*launch, "--output-dir", "runs/x", *extra)
        for extra in ([], ["--clean"], ["--resume"], ["--dry-run"])
    ]
    gate.touch()
    wait_for_job(submitted.job)

    assert {done.returncode for done in again} == {2}
    assert all(f"job {submitted.job}" in done.stderr for done in again)
    assert submitted.script.read_bytes() == before


def test_a_job_that_was_submitted_by_hand_keeps_its_directory(cluster, wait_for_job):
    gate = cluster.folder / "gate"
    launch = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", "--output-dir", "runs/x")
    dry = cluster.run(*launch, "--dry-run")
    job = cluster.run("bash", "-c", dry.stdout, STANDIN_WAIT_FOR=str(gate)).stdout.strip()
    plan = cluster.folder / "runs/x/configs/launch/launch.json"
    before = plan.read_bytes()
    again = [cluster.run(*launch, *extra) for extra in ([], ["--clean"], ["--dry-run", "--optim.lr", "0.5"])]
    gate.touch()
    ended = wait_for_job(job)

    assert [(done.returncode, f"job {job}" in done.stderr) for done in again] == [(2, True)] * 3
    assert plan.read_bytes() == before
    assert ended["JobState"] == "COMPLETED"


def test_a_setup_line_that_fails_is_named_in_the_log(cluster, wait_for_job):
    submitted = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", "--setup", "false")

    ended = wait_for_job(submitted.job)

    assert ended["JobState"] == "FAILED"
    assert re.fullmatch(
        r"medarc \| exit code 1 at line \d+ of \S+: the run was not started\n", submitted.log.read_text()
    )


def test_a_directory_that_holds_a_run_wants_resume_or_clean(cluster, wait_for_job):
    first = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1")
    wait_for_job(first.job)
    launch = (SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml")
    refused = cluster.run(*launch, "--output-dir", "runs/x", "--gpus", "1")
    resumed = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", "--resume")
    resumed_end = wait_for_job(resumed.job)
    cleaned = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", "--clean")
    cleaned_end = wait_for_job(cleaned.job)

    assert (refused.returncode, "already holds a run" in refused.stderr) == (2, True)
    assert resumed_end["JobState"] == cleaned_end["JobState"] == "COMPLETED"
    assert not first.log.exists()
    assert cleaned.log.exists()


def test_a_requeued_job_appends_to_its_log_and_goes_on(cluster, wait_for_job):
    gate = cluster.folder / "gate"
    submitted = cluster.submit("sft", "--output-dir", "runs/x", "--gpus", "1", STANDIN_WAIT_FOR=str(gate))
    eventually((cluster.folder / "report.json").exists)
    assert cluster.run("scontrol", "requeue", submitted.job).returncode == 0
    eventually((submitted.run / "configs/launch/attempts.jsonl").exists)
    gate.touch()

    ended = wait_for_job(submitted.job, seconds=120)

    log = submitted.log.read_text()
    assert ended["JobState"] == "COMPLETED", log
    assert "attempt 1" in log
    assert "attempt 2" in log
    assert "Starting from scratch" in log
    assert [attempt["reason"] for attempt in submitted.attempts] == ["requeued", "finished"]


@pytest.fixture
def model(cluster):
    """A model that needs no hub."""
    folder = cluster.folder / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def test_a_rehearsal_checks_everything_and_leaves_room_for_the_run(cluster, wait_for_job, model):
    install_gpu_packages(Path(cluster.env["PRIME_RL_DIR"]))
    asked = ("rl", "--output-dir", "runs/x", *RL, "--model.name", model, "--hf-hub-offline")
    rehearsal = cluster.submit(*asked, "--rehearse")
    rehearsed = wait_for_job(rehearsal.job)
    launched = (cluster.folder / "report.json").exists()
    real = cluster.submit(*asked)
    ended = wait_for_job(real.job)

    log = rehearsal.log.read_text()
    assert (rehearsed["JobState"], rehearsed["TimeLimit"]) == ("COMPLETED", "00:05:00"), log
    assert "[ ok ] GPUs in torch: torch 2.11.0 sees 2 of 2 wanted" in log
    assert "[ ok ] config by prime-rl: it takes /" in log
    assert f"[ ok ] model and data: model {model}: a folder" in log
    assert not launched
    assert ended["JobState"] == "COMPLETED", real.log.read_text()
    assert [attempt["reason"] for attempt in real.attempts] == ["rehearsed", "finished"]


def test_a_rehearsal_of_what_would_not_start_fails(cluster, wait_for_job, model):
    install_gpu_packages(Path(cluster.env["PRIME_RL_DIR"]), vllm="raise ImportError('libcudart.so.13')")
    rehearsal = cluster.submit(
        *("rl", "--output-dir", "runs/x", *RL, "--model.name", model / "else", "--hf-hub-offline"),
        *("--rehearse", "--time", "7"),
    )

    ended = wait_for_job(rehearsal.job)

    log = rehearsal.log.read_text()
    assert (ended["JobState"], ended["ExitCode"], ended["TimeLimit"]) == ("FAILED", "3:0", "00:07:00"), log
    assert "[FAIL] vLLM: vllm cannot be imported: ImportError: libcudart.so.13" in log
    assert f"[FAIL] model and data: model {model / 'else'} is not there on this node" in log
    assert re.search(r"the real run would not start; missing: .*model and data.*vLLM", log)
    assert {path.name for path in rehearsal.run.iterdir()} == {"configs", "rl.sbatch", rehearsal.log.name}


def test_without_prime_rl_the_job_says_what_is_missing(cluster, wait_for_job):
    submitted = cluster.submit("rl", "--output-dir", "runs/x", *RL, "--no-check", PRIME_RL_DIR="")

    ended = wait_for_job(submitted.job)

    log = submitted.log.read_text()
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0")
    assert "[ ok ] GPUs" in log
    assert re.search(r"missing: prime-rl", log)


def test_secrets_reach_the_job_and_nothing_else(cluster, wait_for_job):
    submitted = cluster.submit(
        *("sft", "--output-dir", "runs/x", "--gpus", "1", "--auto-auth", "--env", "MY_THING"),
        HF_TOKEN=SECRET,
        MY_THING=SECRET,
        STANDIN_REPORT_NAMES="HF_TOKEN,MY_THING",
    )
    wait_for_job(submitted.job)
    seen = cluster.report()["environment"]
    (cluster.folder / "report.json").unlink()

    files = [path for path in cluster.folder.rglob("*") if path.is_file()]

    assert (seen["HF_TOKEN"], seen["MY_THING"]) == (SECRET, SECRET)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in cluster.run("scontrol", "show", "job", submitted.job).stdout


def test_the_script_wins_over_sbatch_variables_that_a_flag_overrides(cluster, wait_for_job):
    submitted = cluster.submit(
        *("sft", "--output-dir", "runs/x", "--gpus", "1", "--partition", "debug", "--qos", "q"),
        SBATCH_PARTITION="nowhere",
        SBATCH_JOB_NAME="from-sbatch",
        SLURM_JOB_ID="77",
    )

    ended = wait_for_job(submitted.job)

    assert (ended["Partition"], ended["JobName"]) == ("debug", "from-sbatch")


NEIGHBOURS = 8


def dry_run_script(cluster, number, ports):
    """Write a single-GPU RL run, with leased ports or with those that prime-rl's config has."""
    launch = ("--backend", "slurm", "@", EXAMPLES / "rl.toml", "--output-dir", f"runs/{number}")
    cluster.run(SCRIPTS / "rl", *launch, "--single-gpu", "--dry-run")
    run = cluster.folder / "runs" / str(number)
    plan = run / "configs" / "launch" / "launch.json"
    document = json.loads(plan.read_text())
    plan.write_text(json.dumps({**document, "ports": document["ports"] if ports == "leased" else None}))
    return run


@pytest.mark.parametrize(("ports", "survivors"), [("leased", NEIGHBOURS), ("fixed", 1)])
def test_neighbours_on_one_node_live_with_leased_ports_and_die_with_fixed_ones(
    cluster, wait_for_job, ports, survivors
):
    gate = cluster.folder / "gate"
    runs = [dry_run_script(cluster, number, ports) for number in range(NEIGHBOURS)]
    jobs = [
        cluster.run(
            "sbatch", "--parsable", run / "rl.sbatch", STANDIN_BIND="1", STANDIN_WAIT_FOR=str(gate)
        ).stdout.strip()
        for run in runs
    ]

    def all_listen_or_have_failed():
        listen = [run for run in runs if (run / "logs" / "latest").exists()]
        failed = [run for run in runs if (run / "configs/launch/attempts.jsonl").exists()]
        return len({*listen, *failed}) == NEIGHBOURS and len(failed) >= NEIGHBOURS - survivors

    try:
        eventually(all_listen_or_have_failed)
    finally:
        gate.touch()
    states = [wait_for_job(job)["JobState"] for job in jobs]

    completed = states.count("COMPLETED")
    # With fixed ports one run may have vLLM's and another the orchestrator's: then none goes on.
    assert completed == survivors or (ports == "fixed" and completed < survivors), states


REFUSED = {
    "unknown partition": (["--partition", "nowhere"], "partitions here are: debug"),
    "more GPUs than any node has": (
        ["--gpus", "16", "--deployment.gpus-per-node", "16", "--cpus-per-gpu", "2"],
        "node configuration is not available",
    ),
    "an unknown GPU type": (["--gpu-type", "b300"], "node configuration is not available"),
    "an unknown sbatch option": (["--sbatch-arg", "no-such-thing=1"], "unrecognized option"),
    "an unknown feature": (["--constraint", "quantum"], "Invalid feature"),
}


@pytest.mark.parametrize(("flags", "words"), REFUSED.values(), ids=REFUSED)
def test_a_refused_job_leaves_its_files_and_says_what_slurm_said(cluster, flags, words):
    given = flags if "--gpus" in flags else ["--gpus", "1", *flags]
    done = cluster.run(
        *(SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", "--output-dir", "x"),
        *("--no-preflight", *given),
    )

    assert done.returncode == 2
    assert words in done.stderr
    assert "hint:" in done.stderr
    assert "files of the run are kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert (cluster.folder / "x" / "sft.sbatch").exists()
    assert not (cluster.folder / "x" / "configs" / "launch" / "submission.json").exists()


def test_a_controller_that_does_not_answer_is_named(cluster, tmp_path):
    text = Path(cluster.env["SLURM_CONF"]).read_text()
    dead = tmp_path / "slurm.conf"
    dead.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", text) + "\nMessageTimeout=2\n")
    done = cluster.run(
        *(SCRIPTS / "sft", "--backend", "slurm", "@", EXAMPLES / "sft.toml", "--output-dir", "x"),
        SLURM_CONF=str(dead),
        MEDARC_PATIENCE="controller=1",
    )

    assert done.returncode == 2
    assert "nothing was submitted: sbatch failed" in done.stderr
    assert "Unable to contact slurm controller" in done.stderr
    assert "scontrol ping" in done.stderr
    assert (cluster.folder / "x" / "sft.sbatch").exists()


def test_the_sandbox_commands_and_the_sandbox_flag(cluster, wait_for_end_of):
    env = {name: value for name, value in cluster.env.items() if name != "SLURM_CONF"}
    shell = Cluster(cluster.folder, env)
    command = SCRIPTS / "medarc_slurm"
    up = shell.run(command, "sandbox", "up", "--gpus", "2", "--gpu-type", "l40", "--cpus", "20")
    try:
        printed = shell.run(command, "sandbox", "env").stdout
        status = shell.run(command, "sandbox", "status")
        submitted = shell.submit("rl", "--output-dir", "runs/x", *RL, "--sandbox", "--gpu-type", "l40")
        conf = printed.removeprefix("export SLURM_CONF=").strip().strip("'")
        ended = wait_for_end_of(submitted.job, {**env, "SLURM_CONF": conf})
    finally:
        named = cluster.folder / ".slurm-sandbox" / "slurm.conf"
        down = shell.run(command, "sandbox", "down", SLURM_CONF=named)
    gone = shell.run(command, "sandbox", "status")
    again = shell.run(
        *(SCRIPTS / "rl", "--backend", "slurm", "@", EXAMPLES / "rl.toml", "--output-dir", "runs/x"),
        *(*RL, "--resume", "--dry-run"),
    )

    assert (up.returncode, status.returncode, down.returncode) == (0, 0, 0), up.stderr + down.stderr
    assert "gpu:l40:2" in status.stderr
    assert ended["JobState"] == "COMPLETED", submitted.log.read_text()
    assert "unset SLURM_CONF" in down.stderr
    assert gone.returncode == 1
    assert again.returncode == 0, again.stderr
    assert not (cluster.folder / ".slurm-sandbox").exists()
