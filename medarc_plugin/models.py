"""The records that cross module borders: frozen, decided, and without behaviour of their own.

They follow a run through the plugin: a `Request` from the command line, a `Resolved` config from
prime-rl, a `JobPlan` from a backend, the `TextFile`s that it renders to, and a `Submission`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from medarc_plugin.flight import Flight
    from medarc_plugin.options import SlurmOptions
    from medarc_plugin.slurm.facts import ClusterFacts

Entrypoint = Literal["rl", "sft", "inference"]
ENTRYPOINTS: tuple[Entrypoint, ...] = ("rl", "sft", "inference")


@dataclass(frozen=True)
class GpuRequest:
    """What the command line says about GPUs; `None` leaves it to the config.

    Attributes:
        gpus: `--gpus`: GPUs of an SFT or inference run.
        train: `--train-gpus`.
        infer: `--infer-gpus`.
    """

    gpus: int | None = None
    train: int | None = None
    infer: int | None = None


@dataclass(frozen=True)
class Request:
    """One launch as it was typed.

    Attributes:
        entrypoint: Which prime-rl command.
        backend: Name of the backend that takes it.
        arguments: What is prime-rl's: `@ FILE` and overrides, in order, untouched.
        options: Values for `SlurmOptions` from the command line, by field name, not yet validated.
        gpus: The GPU flags.
        run_dir: `--output-dir`: the run directory itself.
        dry_run: Write the files, submit nothing.
        clean: Delete what an earlier run left in the run directory.
        resume: The run goes on in a directory that already holds it.
        check: Whether an unchecked config may not be submitted (`--no-check` turns it off).
        preflight: Whether it is looked at what a submission needs of the cluster and around it
            (`--no-preflight` turns it off).
        rehearse: Submit a job that runs every check and launches nothing.
        sandbox: Folder of the private SLURM to use, if any.
        command: The command line that means this run, for the record.
        typed: The command line as typed, where that is another one: of a run that is taken up again.
        typed_in: The folder in which that was typed.
        cache: Whether a config that prime-rl has resolved before may be used again (`--no-cache`).
        profile: The section of the profiles that `--profile` names.
        follow: Show the run's logs until it is over (`--follow`).
    """

    entrypoint: Entrypoint
    backend: str
    arguments: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    gpus: GpuRequest = GpuRequest()
    run_dir: Path | None = None
    dry_run: bool = False
    clean: bool = False
    resume: bool = False
    check: bool = True
    preflight: bool = True
    rehearse: bool = False
    sandbox: Path | None = None
    command: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()
    typed_in: Path | None = None
    cache: bool = True
    profile: str | None = None
    follow: bool = False


@dataclass(frozen=True)
class GpuNeeds:
    """The GPUs of a run by component.

    Attributes:
        train: GPUs of the trainer.
        infer: GPUs of vLLM; 0 when the run starts none.
        shared: Trainer and vLLM live on the same GPU.
    """

    train: int
    infer: int
    shared: bool = False

    @property
    def allocated(self) -> int:
        """How many GPUs the job asks SLURM for."""
        return max(self.train, self.infer) if self.shared else self.train + self.infer


@dataclass(frozen=True)
class Host:
    """A prime-rl that was found.

    Attributes:
        python: Its interpreter.
        directory: Its checkout, when it is one.
        source: What led to it: `--prime-rl-dir`, `PRIME_RL_DIR`, `./prime-rl`, `this environment`.
        python_source: What led to the interpreter: `PRIME_RL_PYTHON`, or the same.
        commit: The checkout's commit; `None` outside git.
        dirty: Whether the checkout has local changes.
    """

    python: Path
    directory: Path | None
    source: str
    commit: str | None = None
    dirty: bool = False
    python_source: str | None = None

    @property
    def interpreter(self) -> str:
        """The interpreter, in an error's words."""
        return f"prime-rl's interpreter {self.python} ({self.python_source or self.source})"


@dataclass(frozen=True)
class MemoryNeeds:
    """What trainer and vLLM need of a GPU that they share: estimates, in bytes where nothing else is said.

    Attributes:
        gpu_mib: The GPU's memory in MiB; `None` when it is known in the job alone.
        gpu_source: What it is known from.
        share: vLLM's share of the GPU's whole memory; `None` when the job works it out.
        share_path: The config's field for it.
        fixed: The config itself names the share.
        trainer: The trainer's need by what takes it; `None` when the model's size is unknown.
        trainer_bytes: The most that the trainer needs at once.
        inference: The least that vLLM needs, by what takes it.
        inference_bytes: All of that.
        reserve_bytes: What both processes take beside it.
        offloaded: The optimizer's state is on the GPU for a moment only, or never.
        unknown: Why the sizes are unknown.
        refusal: Why both do not fit on the GPU, and the way out.
    """

    gpu_mib: int | None
    gpu_source: str
    share: float | None
    share_path: str
    fixed: bool
    trainer: Mapping[str, int] | None = None
    trainer_bytes: int | None = None
    inference: Mapping[str, int] | None = None
    inference_bytes: int | None = None
    reserve_bytes: int | None = None
    offloaded: bool = False
    unknown: str = ""
    refusal: tuple[str, str] | None = None


@dataclass(frozen=True)
class Resolved:
    """A run's config after prime-rl's parser, and what the plan needs to know of it.

    Attributes:
        entrypoint: Which prime-rl command.
        run_dir: Absolute path of the run directory.
        gpus: GPUs by component.
        gpus_per_node: The most GPUs that the config says a node has.
        model: Name or path of the model.
        environments: Ids of the verifiers environments that the config names.
        max_steps: Training steps; `None` is without end.
        checkpoint_interval: Steps between checkpoints; `None` saves only at the end, or never.
        saves: Whether the config saves checkpoints at all.
        wandb: Whether the config logs to Weights & Biases.
        memory_share: vLLM's share of its GPU's memory, between 0 and 1; `None` without vLLM.
        clean: The config itself asks for a fresh directory.
        resume: The config itself asks to go on.
        dry_run: The config itself asks that nothing is started.
        document: The whole resolved config, ready to be written as JSON.
        shape: Name of the config schema's shape, `main`; a guess where nobody checked the config.
        checked: Whether prime-rl's own parser accepted it.
        warnings: What prime-rl's validators warned about.
        host: The prime-rl that resolved it, when there was one.
        ports: Services and the fields that hold their ports, as `host.fields.ports` lists them; `None`
            leaves them as the config has them.
        memory: What trainer and vLLM need of the GPU that they share; `None` when they share none.
        cached: Whether prime-rl accepted it earlier, and was not asked again.
    """

    entrypoint: Entrypoint
    run_dir: Path
    gpus: GpuNeeds
    gpus_per_node: int
    model: str | None
    environments: tuple[str, ...]
    max_steps: int | None
    checkpoint_interval: int | None
    wandb: bool
    memory_share: float | None
    clean: bool
    resume: bool
    dry_run: bool
    document: Mapping[str, Any]
    shape: str
    checked: bool
    warnings: tuple[str, ...]
    host: Host | None
    ports: Mapping[str, Any] | None = None
    saves: bool = True
    memory: MemoryNeeds | None = None
    cached: bool = False


@dataclass(frozen=True)
class Directive:
    """One `#SBATCH` line.

    Attributes:
        name: sbatch's long option without the dashes.
        value: Its value as it is meant; `None` for a switch.
        pattern: The value is a path in which SLURM expands `%j`, written by `slurm.directives`.
    """

    name: str
    value: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Allocation:
    """What is asked of SLURM.

    Attributes:
        gpus: GPUs, all on one node.
        gpu_type: GPU type as the cluster calls it; `None` takes any.
        cpus: CPUs of the one task.
        memory: Memory of the job as sbatch reads it, `128G`; `None` leaves it to the cluster.
        time: Time limit as sbatch reads it; `None` leaves it to the partition.
        partition: Partition; `None` leaves it to the cluster.
        account: Account; `None` leaves it to the cluster.
        qos: Quality of service; `None` leaves it to the cluster.
        directives: Every `#SBATCH` line, in order.
    """

    gpus: int
    gpu_type: str | None
    cpus: int
    memory: str | None
    time: str | None
    partition: str | None
    account: str | None
    qos: str | None
    directives: tuple[Directive, ...] = ()


@dataclass(frozen=True)
class LaunchSpec:
    """How prime-rl is started inside the allocation.

    Attributes:
        python: Interpreter of prime-rl, or the one that runs the job code when there is no prime-rl.
        module: The module that is run.
        arguments: Its arguments.
        working_directory: Where it runs: what relative paths in the config refer to.
        modules: Environment modules to load, in order.
        setup: Shell lines to run before, each as the user wrote it.
        environment: Variables to export, none of them secret.
        passed: Names of variables that the submission's environment carries; never their values.
        rehearse: Check everything and launch nothing.
    """

    python: Path
    module: str
    arguments: tuple[str, ...]
    working_directory: Path
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    rehearse: bool = False


@dataclass(frozen=True)
class RunFiles:
    """Where the files of a run lie; all below the run directory, under names its guard allows.

    Attributes:
        script: The batch script.
        log: What the job prints, with `%j` for the job id.
        config: The resolved config.
        launch: Folder of what the plugin keeps: plan, job code, records.
    """

    script: Path
    log: Path
    config: Path
    launch: Path

    @property
    def plan(self) -> Path:
        """The plan that the job code reads."""
        return self.launch / "launch.json"

    @property
    def resolved(self) -> Path:
        """The resolved config once more: an attempt of prime-rl may write its own over `config`."""
        return self.launch / "resolved.json"

    @property
    def job(self) -> Path:
        """The frozen job code."""
        return self.launch / "job"

    @property
    def submission(self) -> Path:
        """The record of the newest submission."""
        return self.launch / "submission.json"

    @property
    def provenance(self) -> Path:
        """Versions, commits and the command as typed."""
        return self.launch / "provenance.json"

    def log_of(self, job_id: str) -> Path:
        """The log of one job."""
        return self.log.with_name(self.log.name.replace("%j", job_id))


@dataclass(frozen=True)
class JobPlan:
    """A run with everything decided and nothing written.

    Attributes:
        name: The job's name.
        backend: Name of the backend that made the plan.
        token: Random word that tells this submission from any other, also in the job's comment.
        resolved: The config.
        options: The settled options.
        run_dir: The run directory, absolute.
        allocation: What is asked of SLURM.
        launch: How prime-rl is started.
        files: Where everything lies.
        template: Name of the script's template.
        template_path: The user's own template file, when there is one.
        template_context: Further values for templates.
        provenance: What made this run what it is: versions, commits, the command.
        preflight: Whether it is looked at what a submission needs beside the plan.
        cluster: What the cluster said of itself; `None` where it was not asked.
    """

    name: str
    backend: str
    token: str
    resolved: Resolved
    options: SlurmOptions
    run_dir: Path
    allocation: Allocation
    launch: LaunchSpec
    files: RunFiles
    template: str
    template_path: Path | None = None
    template_context: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    preflight: bool = True
    cluster: ClusterFacts | None = None


@dataclass(frozen=True)
class Problem:
    """What a check found.

    Attributes:
        check: Name of the check.
        message: One plain sentence, with the value.
        hint: The way out.
        fatal: Whether the run is refused.
        submission: It is in the way of a submission alone: a dry run warns of it.
    """

    check: str
    message: str
    hint: str | None = None
    fatal: bool = True
    submission: bool = False


@dataclass(frozen=True)
class Trial:
    """What a scheduler says of a job that it is shown and not given.

    Attributes:
        start: When it would start, in the scheduler's local time, `2026-11-27T11:48:27`; `None` when it does
            not say.
        node: Where.
        problem: Why it would not take the job.
        silence: Why it says nothing at all.
    """

    start: str | None = None
    node: str | None = None
    problem: Problem | None = None
    silence: str | None = None


@dataclass(frozen=True)
class TextFile:
    """A file to be written.

    Attributes:
        path: Where.
        text: What, UTF-8.
        mode: Permissions.
    """

    path: Path
    text: str
    mode: int = 0o644


@dataclass(frozen=True)
class Submission:
    """A run that was handed over.

    Attributes:
        job_id: SLURM's id; for the local backend the process id. Empty when nobody recorded it.
        cluster: The cluster that took it, where SLURM names one.
        script: The script that was submitted.
        log: Where the job prints.
        submitted_at: UTC, ISO 8601.
        token: The plan's token.
        backend: The backend that took it.
        exit_code: How it ended, for a backend that runs it in the foreground.
        slurm_conf: The SLURM_CONF that named the cluster, where one did: a sandbox's, say.
    """

    job_id: str
    cluster: str | None
    script: Path
    log: Path
    submitted_at: str
    token: str
    backend: str
    exit_code: int | None = None
    slurm_conf: str | None = None

    def scancel(self, job_id: str = "", cluster: str | None = None) -> str:
        """The command that ends its job, or another one that it has become, to be shown.

        Args:
            job_id: The other job's id.
            cluster: The other job's cluster.
        """
        where = cluster or self.cluster
        return " ".join(["scancel", *(["-M", where] if where else []), job_id or self.job_id])


@dataclass(frozen=True)
class JobState:
    """What is known of a submitted job.

    Attributes:
        state: SLURM's word for it, `RUNNING`; `GONE` for one that SLURM no longer knows, `LOST` for one
            that it forgot before its end; `UNKNOWN` when nobody can say.
        reason: Why it is in that state, as SLURM says it.
        exit_code: `code:signal`, once it has ended.
        node: The node or nodes it runs on.
        job_id: The job's id, where it was found by its token.
        cluster: The cluster that has it, where several were asked.
    """

    state: str
    reason: str | None = None
    exit_code: str | None = None
    node: str | None = None
    job_id: str | None = None
    cluster: str | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended for good."""
        return self.state in {
            "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "LOST",
            "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
        }  # fmt: skip


class Backend(Protocol):
    """Somewhere a run can be sent. Registered with the hook `medarc_register_backends`.

    One whose `submit` returns when the run is over says so with an attribute `foreground = True`.
    """

    @property
    def name(self) -> str:
        """What `--backend` takes."""

    def plan(self, resolved: Resolved, options: SlurmOptions, request: Request) -> JobPlan:
        """Decide everything about the job; write nothing.

        Raises:
            MedarcError: The options cannot be met.
        """

    def render(self, plan: JobPlan, template_dirs: tuple[Path, ...]) -> tuple[TextFile, ...]:
        """Turn a plan into the files of the run; write nothing.

        Args:
            plan: The plan.
            template_dirs: Where to look for templates, first match wins.

        Raises:
            RenderError: A template is missing, broken or uses an undefined variable.
        """

    def command(self, plan: JobPlan) -> tuple[str, ...]:
        """The very command that `submit` runs, as an argument list without secrets."""

    def submit(self, plan: JobPlan, secrets: Mapping[str, str]) -> Submission:
        """Hand the run over.

        Args:
            plan: The plan, whose files are written.
            secrets: Variables for the submission's environment; never to be shown or written.

        Raises:
            SubmissionError: It was not taken; says what was said and what to do.
        """

    def query(self, submission: Submission) -> JobState:
        """Say how a submitted run is doing; `UNKNOWN` rather than an exception when nobody can."""

    def cancel(self, submission: Submission) -> None:
        """End a submitted run.

        Raises:
            SlurmError: It could not be ended.
        """


class CarefulBackend(Protocol):
    """What a backend has beside `Backend` when it can tell whether a submission that was cut off took place.

    A launch holds signals back while it runs, and settles what is left open at the next launch.
    """

    def submit_once(self, plan: JobPlan, secrets: Mapping[str, str], flight: Flight) -> Submission:
        """Hand the run over exactly once, whatever becomes of it on the way.

        Args:
            plan: The plan, whose files are written.
            secrets: Variables for the submission's environment; never to be shown or written.
            flight: The submission under way: its record, the signals that have come, and who is told.

        Raises:
            SubmissionError: It surely was not taken; or, with `unsettled`, nobody can say.
        """


class ClusterBackend(Backend, Protocol):
    """A backend that can ask its cluster before it submits; no backend has to."""

    def survey(self, plan: JobPlan, seconds: float) -> ClusterFacts | None:
        """Ask the cluster what it has and allows.

        Args:
            plan: A plan that is to go there.
            seconds: How long the answer may take.

        Returns:
            The facts, with `None` for what could not be asked; `None` where nobody is there to be asked.
        """

    def try_out(self, plan: JobPlan, script: str, seconds: float) -> Trial:
        """Show the scheduler a job without submitting it.

        Args:
            plan: The plan.
            script: The script's text.
            seconds: How long the answer may take.
        """
