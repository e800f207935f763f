"""Every knob of the SLURM backend, once.

A field here is `--slurm.NAME` on every command line, the short spellings of its `Knob`, a key of the
`[slurm]` table of a run's TOML, and perhaps an `SBATCH_*` variable. The docstring under a field is its
help. `[slurm]` is a superset of prime-rl's own table, whose keys keep their meaning.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPS = ("Allocation", "Job", "Environment", "prime-rl")


@dataclass(frozen=True)
class Knob:
    """How a field appears outside this module.

    Attributes:
        group: Heading in the help.
        flags: Spellings beside `--slurm.NAME`; `--name` itself is implied.
        metavar: What stands for the value in the help; `None` for a switch.
        sbatch: sbatch's long option that the field sets, where there is one.
        variable: The `SBATCH_*` variable that is its default.
        repeatable: Each further use on the command line adds a value.
        multiline: Whether a newline is allowed in the value.
    """

    group: str = "Allocation"
    flags: tuple[str, ...] = ()
    metavar: str | None = "TEXT"
    sbatch: str | None = None
    variable: str | None = None
    repeatable: bool = False
    multiline: bool = False


_SIZE = re.compile(r"\d+[KMGT]?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(
    r"""
    \d+                         # minutes
    | \d+:\d{1,2}               # minutes:seconds
    | \d+:\d{1,2}:\d{1,2}       # hours:minutes:seconds
    | \d+-\d{1,2}               # days-hours
    | \d+-\d{1,2}:\d{1,2}       # days-hours:minutes
    | \d+-\d{1,2}:\d{1,2}:\d{1,2}
    | UNLIMITED | INFINITE
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SBATCH_KEY = re.compile(r"[a-z][a-z0-9-]*")
_SECRET_NAME = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASS(?!IVE|THROUGH)|_PWD$|CREDENTIAL|(^|_|API|SSH)KEY\d*$|AUTH(?!OR)|BEARER|(^|_)PAT$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


LONGEST = 32
"""Characters of the longest time or size that makes sense."""

MOST_MINUTES = 2**31 - 1
"""SLURM keeps a time limit in minutes as 32 bits; more becomes something else without a word."""


def _time(value: object) -> object:
    """Check a time limit in one of the forms that sbatch documents; TOML may give bare minutes."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = f'{value!s} is not text: write a time in quotes, like "04:00:00"'
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as a finding
    text = str(value).strip()
    if len(text) > LONGEST or any(int(part) > MOST_MINUTES for part in re.findall(r"\d+", text)):
        msg = f"{text[:LONGEST]!r} is longer than any time limit that SLURM can hold"
        raise ValueError(msg)
    if not _TIME.fullmatch(text) or not text.strip("0:-"):
        msg = (
            f"SLURM cannot read {text!r} as a time; it takes MINUTES, MINUTES:SECONDS, "
            "HOURS:MINUTES:SECONDS, DAYS-HOURS, DAYS-HOURS:MINUTES or DAYS-HOURS:MINUTES:SECONDS"
        )
        raise ValueError(msg)
    return text


def _size(value: object) -> object:
    text = str(value).strip()
    if isinstance(value, bool) or len(text) > LONGEST or not _SIZE.fullmatch(text):
        msg = f"{text[:LONGEST]!r} is not a memory size; write 64G, 512M or a number of MiB"
        raise ValueError(msg)
    if int(text.rstrip("KMGTkmgt")) == 0:
        msg = "0 asks for all memory of the node; write the memory that the run needs"
        raise ValueError(msg)
    return text.upper()


def _amount(value: object) -> object:
    """Check a size that is not sbatch's: of a GPU, or of a disk."""
    text = str(value).strip()
    if isinstance(value, bool) or len(text) > LONGEST or not _SIZE.fullmatch(text):
        msg = f"{text[:LONGEST]!r} is not a size; write 80G, 512M or a number of MiB"
        raise ValueError(msg)
    if int(text.rstrip("KMGTkmgt")) == 0:
        msg = f"{text!r} is no size to go by; leave the option out to leave it unset"
        raise ValueError(msg)
    return text.upper()


def _number(value: object) -> object:
    """Take no truth value for a number, as pydantic would."""
    if isinstance(value, bool):
        msg = f"{value!r} is not a number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError as a finding
    return value


def _path(value: object) -> object:
    """Put the home folder in place of `~`; a `~` that names nobody stays, as in a shell."""
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 - the other raises


def _lines(value: object) -> object:
    """Take one string or a list of them."""
    return [value] if isinstance(value, str) else value


def _warning(value: object) -> object:
    """Take the seconds of what sbatch's own option takes, `B:USR1@60`; the signal is settled."""
    return _number(value.rpartition("@")[2] if isinstance(value, str) else value)


Seconds = Annotated[int, BeforeValidator(_warning)]


def _patience(value: object) -> object:
    text = str(_time(value))
    if (time_seconds(text) or SHORTEST_PATIENCE) < SHORTEST_PATIENCE:
        msg = f"{text!r} is less than a minute; a run is quiet for longer between two steps"
        raise ValueError(msg)
    return text


SHORTEST_PATIENCE = 60
"""Seconds of the shortest time that says anything about a run."""


Patience = Annotated[str, BeforeValidator(_patience)]
Time = Annotated[str, BeforeValidator(_time)]
Size = Annotated[str, BeforeValidator(_size)]
Amount = Annotated[str, BeforeValidator(_amount)]
Number = Annotated[int, BeforeValidator(_number)]
Folder = Annotated[Path, BeforeValidator(_path)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_lines)]

OWNED_SBATCH_OPTIONS: dict[str, str] = {
    "account": "use --account",
    "array": "one run is one job; submit once per run directory",
    "begin": "use --begin",
    "chdir": "use --project-dir",
    "comment": "use --comment",
    "constraint": "use --constraint",
    "cpus-per-gpu": "use --cpus-per-gpu",
    "cpus-per-task": "use --cpus-per-gpu",
    "dependency": "use --dependency",
    "error": "the log is job_%j.log in the run directory",
    "exclude": "use --exclude",
    "exclusive": "use --exclusive",
    "export": "use --env NAME, or --env NAME=VALUE",
    "export-file": "use --env NAME, or --env NAME=VALUE",
    "gpus": "use --gpus, --train-gpus and --infer-gpus, and --gpu-flag gpus for this form",
    "gpus-per-socket": "use --gpus, --train-gpus and --infer-gpus",
    "gpus-per-node": "use --gpus, --train-gpus and --infer-gpus, and --gpu-flag gpus-per-node",
    "gpus-per-task": "use --gpus, --train-gpus and --infer-gpus",
    "gres": "use --gpus, --train-gpus and --infer-gpus, and --gpu-type",
    "help": "it would submit nothing",
    "job-name": "use --job-name",
    "mail-type": "use --mail-type",
    "mail-user": "use --mail-user",
    "mem": "use --mem",
    "mem-per-cpu": "use --mem or --mem-per-gpu",
    "mem-per-gpu": "use --mem-per-gpu",
    "nice": "use --nice",
    "nodelist": "use --nodelist",
    "no-requeue": "use --no-requeue",
    "nodes": "a run lives on one node",
    "ntasks": "a run is one task",
    "ntasks-per-gpu": "a run is one task",
    "ntasks-per-node": "a run is one task",
    "open-mode": "the log is always appended to",
    "output": "the log is job_%j.log in the run directory",
    "parsable": "the plugin reads sbatch's answer itself",
    "partition": "use --partition",
    "qos": "use --qos",
    "quiet": "the plugin reads sbatch's answer itself",
    "requeue": "use --requeue or --no-requeue",
    "reservation": "use --reservation",
    "signal": "use --signal-time",
    "test-only": "use --dry-run",
    "time": "use --time",
    "tres-per-task": "use --gpus, --train-gpus and --infer-gpus, and --cpus-per-gpu",
    "usage": "it would submit nothing",
    "verbose": "the plugin reads sbatch's answer itself",
    "version": "it would submit nothing",
    "wait": "submit, then wait for the job",
    "wrap": "the script is written by the plugin",
}
"""sbatch options that `--sbatch-arg` refuses, each with the way to get what it does."""


class SlurmOptions(BaseModel):
    """Everything that can be said about the job, beside what the run itself needs."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    partition: Annotated[str | None, Knob(flags=("-p",), sbatch="partition", variable="SBATCH_PARTITION")] = (
        None
    )
    """Partition to run in. Unset: the cluster's default."""

    account: Annotated[str | None, Knob(flags=("-A",), sbatch="account", variable="SBATCH_ACCOUNT")] = None
    """Account to charge. Unset: the cluster's default."""

    qos: Annotated[str | None, Knob(sbatch="qos", variable="SBATCH_QOS")] = None
    """Quality of service."""

    time: Annotated[
        Time | None,
        Knob(flags=("-t",), metavar="TIME", sbatch="time", variable="SBATCH_TIMELIMIT"),
    ] = None
    """Time limit: minutes, H:MM:SS or D-HH:MM:SS. Unset: the partition's default."""

    cpus_per_gpu: Annotated[Number, Field(ge=1), Knob(metavar="N", variable="SBATCH_CPUS_PER_GPU")] = 8
    """CPUs for each allocated GPU; the job is one task with all of them."""

    mem: Annotated[Size | None, Knob(metavar="SIZE", variable="SBATCH_MEM_PER_NODE")] = None
    """Memory of the whole job, like 128G. Unset: the cluster's default."""

    mem_per_gpu: Annotated[Size | None, Knob(metavar="SIZE", variable="SBATCH_MEM_PER_GPU")] = None
    """Memory for each allocated GPU, like 64G; multiplied here, so that every SLURM takes it."""

    gpu_type: Annotated[str | None, Field(pattern=r"^[\w.+-]+$"), Knob(metavar="TYPE")] = None
    """GPU type as the cluster names it (`sinfo -o %G`). Unset: any."""

    gpu_memory: Annotated[Amount | None, Knob(metavar="SIZE")] = None
    """Memory of the GPU that --single-gpu shares, like 80G, to plan with. Unset: what --gpu-type tells,
    else known in the job."""

    gpu_flag: Annotated[
        Literal["gres", "gpus-per-node", "gpus"], Knob(metavar="{gres,gpus-per-node,gpus}")
    ] = "gres"
    """Which sbatch option asks for the GPUs."""

    constraint: Annotated[
        str | None, Knob(flags=("-C",), sbatch="constraint", variable="SBATCH_CONSTRAINT")
    ] = None
    """Node features that the node must have."""

    reservation: Annotated[str | None, Knob(sbatch="reservation", variable="SBATCH_RESERVATION")] = None
    """Reservation to run in."""

    nodelist: Annotated[str | None, Knob(flags=("-w",), metavar="NODES", sbatch="nodelist")] = None
    """The node to run on. A list would ask for all of them, which SLURM refuses a run on one node."""

    exclude: Annotated[str | None, Knob(flags=("-x",), metavar="NODES", sbatch="exclude")] = None
    """Nodes to stay away from."""

    exclusive: Annotated[bool, Knob(metavar=None, variable="SBATCH_EXCLUSIVE")] = False
    """Take the whole node. Only when asked for: the point of this backend is to share."""

    single_gpu: Annotated[bool, Knob(metavar=None)] = False
    """Trainer and vLLM share one GPU: weights go over the file system, and vLLM gets a share of the
    memory, worked out from the GPU, the model and the trainer's need unless the config names one."""

    min_free_disk: Annotated[Amount | None, Knob(metavar="SIZE")] = None
    """Free disk that the node must have for the run directory and for temporary files, like 50G; with
    less the job ends at once. Unset: the free disk is reported alone."""

    job_name: Annotated[
        str | None,
        Knob(group="Job", flags=("-J",), metavar="NAME", variable="SBATCH_JOB_NAME"),
    ] = None
    """Job name. Unset: the name of the run directory."""

    comment: Annotated[str | None, Knob(group="Job")] = None
    """Comment of the job; the plugin adds a word of its own behind it."""

    nice: Annotated[Number | None, Knob(group="Job", metavar="N", sbatch="nice")] = None
    """Lower (or, for operators, raise) the job's priority by this."""

    begin: Annotated[str | None, Knob(group="Job", metavar="TIME", sbatch="begin")] = None
    """Do not start before this, like now+2hours."""

    dependency: Annotated[
        str | None, Knob(group="Job", flags=("-d",), metavar="LIST", sbatch="dependency")
    ] = None
    """Wait for other jobs, like afterok:123."""

    mail_user: Annotated[str | None, Knob(group="Job", metavar="ADDRESS", sbatch="mail-user")] = None
    """Who gets mail about the job."""

    mail_type: Annotated[str | None, Knob(group="Job", metavar="EVENTS", sbatch="mail-type")] = None
    """Mail about which events, like END,FAIL."""

    requeue: Annotated[bool, Knob(group="Job", metavar=None, variable="SBATCH_REQUEUE")] = True
    """Give the job back to the queue at its time limit, at a preemption, and when it fails after a new
    checkpoint; the next attempt goes on from the newest whole checkpoint. `--no-requeue` ends it instead."""

    max_requeues: Annotated[Number, Field(ge=0, le=1_000_000), Knob(group="Job", metavar="N")] = 10
    """How often at most a job is started again."""

    signal_time: Annotated[
        Seconds,
        Field(ge=0, le=65535),
        Knob(group="Job", metavar="SECONDS", variable="SBATCH_SIGNAL"),
    ] = 120
    """How long before its time limit SLURM warns a job that can be requeued (`--signal=B:USR2@SECONDS`),
    which then ends in order. SLURM may send it up to a minute earlier. Less for a limit under 20 minutes.
    0 for no warning."""

    ckpt_interval: Annotated[
        Number | None, Field(ge=1, le=MOST_MINUTES), Knob(group="Job", metavar="STEPS")
    ] = None
    """Steps between checkpoints: sets `ckpt.interval` of the config. What a run that is interrupted loses
    is what it did since the newest one."""

    idle_timeout: Annotated[Patience | None, Knob(group="Job", metavar="TIME")] = None
    """End a run whose logs and GPUs are still for this long: minutes, H:MM:SS or D-HH:MM:SS. Unset:
    never."""

    export: Annotated[bool, Knob(group="Job", metavar=None)] = True
    """Write the last checkpoint's weights to `weights/step_N` when the run is over, as Hugging Face
    safetensors. `--no-export` leaves that to `medarc_slurm export`. For sbatch's own --export see --env."""

    sbatch_arg: Annotated[Texts, Knob(group="Job", metavar="KEY[=VALUE]", repeatable=True)] = ()
    """Any other sbatch option, without its dashes. One that the plugin sets itself is refused."""

    template_path: Annotated[Folder | None, Knob(group="Job", metavar="FILE")] = None
    """A Jinja template of your own for the script."""

    setup: Annotated[Texts, Knob(group="Environment", metavar="SHELL", repeatable=True, multiline=True)] = ()
    """Shell lines that the script runs before it starts, after the modules and `.env`."""

    module: Annotated[Texts, Knob(group="Environment", metavar="NAME", repeatable=True)] = ()
    """Environment module to load."""

    env: Annotated[Texts, Knob(group="Environment", metavar="NAME[=VALUE]", repeatable=True)] = ()
    """Pass a variable by name (its value stays out of every file), or set one."""

    project_dir: Annotated[Folder | None, Knob(group="Environment", metavar="DIR")] = None
    """Where the job runs: relative paths in the config and `.env` are looked up here. Unset: the
    current directory."""

    hf_cache_dir: Annotated[Folder | None, Knob(group="Environment", metavar="DIR")] = None
    """HF_HOME of the run: the hub's models and the token. Shared with other runs, as it is made for."""

    hf_hub_offline: Annotated[bool, Knob(group="Environment", metavar=None)] = False
    """Never ask the Hugging Face hub: HF_HUB_OFFLINE=1."""

    warm_cache: Annotated[bool, Knob(group="Environment", metavar=None)] = True
    """Begin with what earlier runs have compiled on such a node, and give back what this one compiles.
    `--no-warm-cache` begins with empty caches and leaves the warm copy alone."""

    warm_cache_size: Annotated[Amount, Knob(group="Environment", metavar="SIZE")] = "4G"
    """The most that all warm copies of a user may take."""

    auto_auth: Annotated[bool, Knob(group="Environment", metavar=None)] = False
    """Pass HF_TOKEN (also from the store of `hf auth login`) and WANDB_API_KEY on to the job, in the
    submission's environment only."""

    pre_run_command: Annotated[str | None, Knob(group="Environment", metavar="SHELL", multiline=True)] = None
    """prime-rl's key for a shell command before the launch; runs after --setup."""

    prime_rl_dir: Annotated[Folder | None, Knob(group="prime-rl", metavar="DIR")] = None
    """prime-rl's checkout with its .venv. Unset: PRIME_RL_DIR, ./prime-rl, this environment."""

    cleanup_grace_period: Annotated[Number, Field(ge=0), Knob(group="prime-rl", metavar="SECONDS")] = 3600
    """prime-rl's key for multi-node jobs; has no effect on one node."""

    shared_fs: Annotated[bool, Knob(group="prime-rl", metavar=None)] = True
    """prime-rl's key for multi-node jobs; has no effect on one node."""

    @model_validator(mode="before")
    @classmethod
    def _one_line(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever was given
        """Refuse what no directive can carry: NUL anywhere, a newline outside shell lines."""
        for name, value in values.items():
            knob = knobs().get(name)
            for text in value if isinstance(value, list | tuple) else (value,):
                if not isinstance(text, str):
                    continue
                if not text.strip(" \t") and name != "comment":
                    msg = f"{flag(name)}: the value is empty; leave the option out to leave it unset"
                    raise ValueError(msg)
                if "\0" in text:
                    msg = f"{flag(name)}: a value cannot contain a NUL character"
                    raise ValueError(msg)
                if knob and not knob.multiline and ("\n" in text or "\r" in text):
                    msg = f"{flag(name)}: a value cannot contain a line break ({text!r})"
                    raise ValueError(msg)
        return values

    @model_validator(mode="after")
    def _consistent(self) -> SlurmOptions:
        """Refuse values that contradict each other or that belong elsewhere."""
        if self.mem and self.mem_per_gpu:
            msg = f"--mem {self.mem} and --mem-per-gpu {self.mem_per_gpu} contradict each other: give one"
            raise ValueError(msg)
        if self.nodelist and self.exclude:
            both = set(self.nodelist.split(",")) & set(self.exclude.split(","))
            if both:
                msg = f"--nodelist and --exclude contradict each other: both name {min(both)}"
                raise ValueError(msg)
        for text in self.sbatch_arg:
            _check_sbatch_arg(text)
        for text in self.env:
            _check_env(text)
        return self


def _check_sbatch_arg(text: str) -> None:
    key = text.partition("=")[0]
    if not _SBATCH_KEY.fullmatch(key):
        msg = (
            f"--sbatch-arg {key!r}: write KEY or KEY=VALUE with the long name of an sbatch option "
            "and no dashes, like licenses=matlab"
        )
        raise ValueError(msg)
    if key in OWNED_SBATCH_OPTIONS:
        msg = f"--sbatch-arg {key}: the plugin sets this itself; {OWNED_SBATCH_OPTIONS[key]}"
        raise ValueError(msg)
    # sbatch takes any unambiguous beginning of an option's name for the option.
    short = next((owned for owned in OWNED_SBATCH_OPTIONS if owned.startswith(key)), None)
    if short:
        msg = f"--sbatch-arg {key}: write sbatch options whole; for {short}, {OWNED_SBATCH_OPTIONS[short]}"
        raise ValueError(msg)


def _check_env(text: str) -> None:
    name, equals, value = text.partition("=")
    if not is_variable(name):
        msg = f"--env {name!r} is not the name of an environment variable"
        raise ValueError(msg)
    if not equals and name.startswith(("SBATCH_", "SLURM_")):
        msg = f"--env {name}: sbatch reads this variable itself, and it would override the script"
        raise ValueError(msg)
    if equals and (_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)):
        msg = (
            f"--env {name}=...: this looks like a secret, and a value given here is written into "
            f"the script; export {name} and pass it by name: --env {name}"
        )
        raise ValueError(msg)


def holds_secret(document: object, environment: Mapping[str, str]) -> bool:
    """Whether a config seems to hold a secret: something called one, or the value of a variable called one.

    Args:
        document: Tables, lists and values.
        environment: The variables.
    """
    values = [
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET and "/" not in value
    ]

    def told(value: object, name: str) -> bool:
        if isinstance(value, dict):
            return any(told(below, str(key)) for key, below in value.items())
        if isinstance(value, list):
            return any(told(below, name) for below in value)
        if not isinstance(value, str):
            return False
        # The name of a variable is how prime-rl's configs say a secret without telling it.
        called = value and _SECRET_NAME.search(name) and not _VARIABLE.fullmatch(value)
        return bool(called or _SECRET_VALUE.search(value) or any(secret in value for secret in values))

    return told(document, "")


SHORTEST_SECRET = 8
"""Characters of the shortest value of a variable that is looked for."""


_KNOBS: dict[str, Knob] = {}


def knobs() -> dict[str, Knob]:
    """Return the `Knob` of each field, by field name, in the order of definition."""
    if not _KNOBS:
        for name, info in SlurmOptions.model_fields.items():
            _KNOBS[name] = next(item for item in info.metadata if isinstance(item, Knob))
    return _KNOBS


def flag(name: str) -> str:
    """Return a field as it is written on the command line, `--cpus-per-gpu`."""
    return "--" + name.replace("_", "-")


def warning_seconds(options: SlurmOptions) -> int:
    """How long ahead of its time limit a job is warned, in seconds.

    SLURM sends the warning up to a minute early (https://slurm.schedmd.com/sbatch.html#OPT_signal), so
    that the usual one would end a short run at its start: it gets a tenth of its limit, and of a limit
    of up to three minutes nothing. A time that was asked for is taken as it is.
    """
    limit = time_seconds(options.time) if options.time else None
    if limit is None or "signal_time" in options.model_fields_set:
        return options.signal_time
    return 0 if limit <= SHORTEST_WARNED else min(options.signal_time, limit // 10)


SHORTEST_WARNED = 180
"""Seconds of the longest time limit that gets no warning by itself."""


def is_variable(name: str) -> bool:
    """Whether a text can be the name of an environment variable."""
    return _NAME.fullmatch(name) is not None


def is_switch(name: str) -> bool:
    """Whether a field is on or off, and its flag takes no value."""
    return knobs()[name].metavar is None


def is_path(name: str) -> bool:
    """Whether a field is the path of a file or folder."""
    return knobs()[name].metavar in {"DIR", "FILE"}


def choices(name: str) -> tuple[str, ...]:
    """Return the values that a field is limited to, or nothing."""
    annotation = SlurmOptions.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def time_seconds(time: str) -> int | None:
    """Convert a time as sbatch reads it to seconds; `None` for one without end.

    Args:
        time: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, or DAYS- before HOURS, HOURS:MINUTES or
            HOURS:MINUTES:SECONDS.
    """
    if time.isalpha():
        return None
    days, dash, clock = time.rpartition("-")
    numbers = [int(number) for number in clock.split(":")]
    # Behind a day stand the hours; without one, the last two of three numbers are what two would be.
    units = (3600, 60, 1) if dash or len(numbers) > 2 else (60, 1)  # noqa: PLR2004 - H:M:S
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))


def megabytes(size: str) -> int:
    """Convert a memory size as sbatch reads it to whole MiB, rounded up.

    Args:
        size: A number with an optional suffix K, M, G or T; M when there is none.
    """
    number, unit = (size[:-1], size[-1].upper()) if size[-1].isalpha() else (size, "M")
    kibibytes: int = int(number) * 1024 ** "KMGT".index(unit)
    return -(-kibibytes // 1024)
