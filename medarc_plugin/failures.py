"""The known failures of runs: how each shows in logs, why it happens, and which setting changes it.

`recognise` looks for them in the lines of one log, `by_end` in how a job ended. Each entry has logs
in `tests/failures`, with the source of their wording; docs/why.md lists them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRAINER, ORCHESTRATOR, INFERENCE, EVALS = "trainer", "orchestrator", "inference", "evals"
ENVIRONMENT, JOB, SLURM = "env", "job", "slurm"
"""Whose words they are: prime-rl's components, the job's own log, SLURM's records."""

ENVIRONMENTS = (ENVIRONMENT, ORCHESTRATOR, EVALS)


@dataclass(frozen=True)
class KnownFailure:
    """A failure that is known.

    Attributes:
        name: A word for scripts; stays the same.
        title: What happened, in a few words.
        cause: Why, in a sentence; `{group}` is a group of the pattern that was found.
        way: The setting to change, or another way out; likewise.
        patterns: Regular expressions, each found in a line of a log.
        components: In whose words; none: in anybody's.
        states: SLURM's states of a job that ended so.
        reasons: The job's own word for how its attempt ended (docs/job-anatomy.md).
        signals: Signals that end a component so, most likely, where nothing else tells why.
        consequence: It mostly follows from another failure, which is named instead when it is found.
        aside: Said in passing too, by lines that no error ends in: they count here.
    """

    name: str
    title: str
    cause: str
    way: str
    patterns: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    consequence: bool = False
    aside: bool = False

    @cached_property
    def _expressions(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(re.compile, self.patterns))

    def find(self, text: str, component: str) -> re.Match[str] | None:
        """Find it in a line.

        Args:
            text: The line.
            component: Whose line it is; empty when that is not known.
        """
        if self.components and component and component not in self.components:
            return None
        return next(filter(None, (each.search(text) for each in self._expressions)), None)


@dataclass(frozen=True)
class Found:
    """A known failure that was found.

    Attributes:
        failure: Which.
        line: Where it shows: a line of a log, or how the job ended.
        position: Which line of those that were looked at; -1 for none.
        groups: What its sentences say in particular.
        likely: Whether it is the likely cause only.
    """

    failure: KnownFailure
    line: str = ""
    position: int = -1
    groups: tuple[tuple[str, str], ...] = ()
    likely: bool = False

    @property
    def cause(self) -> str:
        """Why it happened."""
        return self._say(self.failure.cause)

    @property
    def way(self) -> str:
        """The way out."""
        return self._say(self.failure.way)

    def _say(self, text: str) -> str:
        return text.format_map(Words(self.groups))


class Words(dict[str, str]):
    """What stands for the groups in a sentence; for a group that was not found its name, `MODULE`."""

    def __missing__(self, name: str) -> str:
        """Give the name itself."""
        return name.upper()


KNOWN: tuple[KnownFailure, ...] = (
    # Memory of the GPU
    KnownFailure(
        name="cuda-out-of-memory-trainer",
        title="CUDA out of memory in the trainer",
        cause="Model, optimizer and activations of a step do not fit into the GPU's memory.",
        way="Less at once: a smaller --seq-len (for SFT --data.seq-len), or --trainer.model.ac (for SFT "
        "--model.ac) and --trainer.model.optim-cpu-offload; more GPUs with --train-gpus (--gpus for "
        "SFT); a larger --gpu-type. On a shared GPU also a smaller "
        "--inference.vllm.gpu-memory-utilization",
        patterns=(r"CUDA out of memory\. Tried to allocate", r"CUDA error: out of memory"),
        components=(TRAINER,),
    ),
    KnownFailure(
        name="cuda-out-of-memory-vllm",
        title="CUDA out of memory in vLLM",
        cause="vLLM needed more than the share of the GPU that it may plan with leaves beside weights and "
        "KV cache.",
        way="Smaller --inference.vllm.gpu-memory-utilization, --inference.vllm.max-num-seqs or "
        "--inference.vllm.max-model-len; more GPUs with --infer-gpus and "
        "--inference.vllm.tensor-parallel-size",
        patterns=(
            r"CUDA out of memory\. Tried to allocate",
            r"CUDA out of memory occurred when warming up sampler",
            r"CUDA error: out of memory",
        ),
        components=(INFERENCE,),
    ),
    KnownFailure(
        name="kv-cache-too-small",
        title="vLLM's KV cache is too small",
        cause="What is left beside the weights does not hold one request of max_model_len tokens.",
        way="A larger --inference.vllm.gpu-memory-utilization, or a smaller --inference.vllm.max-model-len",
        patterns=(
            r"To serve at least one request with the model's max seq len",
            r"No available memory for the cache blocks",
        ),
    ),
    KnownFailure(
        name="gpu-not-free",
        title="The GPU has less free memory than vLLM is to take",
        cause="Something else already held memory of the GPU when vLLM started: the trainer on a shared "
        "GPU, or a process that an earlier job left.",
        way="A smaller --inference.vllm.gpu-memory-utilization; `nvidia-smi` on the node shows who holds "
        "it: with a stranger there, --exclude the node and tell its operators",
        patterns=(r"Free memory on device .* on startup is less than desired GPU memory utilization",),
    ),
    KnownFailure(
        name="max-model-len-too-long",
        title="max_model_len is more than the model can do",
        cause="The config asks vLLM for {wanted} tokens, which the model was not made for.",
        way="A smaller --inference.vllm.max-model-len and seq_len, or a model with a longer context",
        patterns=(r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than",),
    ),
    # Models and data from the hub
    KnownFailure(
        name="gated-model",
        title="The model is gated or private",
        cause="The hub gives it only to accounts that were let in, and the job has no token of one.",
        way="Ask for access on the model's page, then `export HF_TOKEN=...` and submit with --env "
        "HF_TOKEN or --auto-auth",
        patterns=(
            r"Cannot access gated repo for url",
            r"You are trying to access a gated repo",
            r"is a gated repository\. Make sure to request access",
            r"is a gated dataset on the Hub",
            r"Access to (?:model|dataset) .* is restricted",
            r"Invalid credentials in Authorization header",
        ),
    ),
    KnownFailure(
        name="offline-hub",
        title="Files are not in the cache, and the hub is out of reach",
        cause="The job may not or cannot reach the hub, and its cache lacks what the run needs.",
        way="Download it on a machine with internet, `hf download MODEL` (`--repo-type dataset` for "
        "data), into the HF_HOME that the job uses; or leave --hf-hub-offline out where nodes have "
        "internet",
        patterns=(
            r"outgoing traffic has been disabled",
            r"LocalEntryNotFoundError",
            r"OfflineModeIsEnabled",
            r"offline mode is enabled\. To disable it, please unset the `HF_HUB_OFFLINE`",
            r"We couldn't connect to 'https://[^']+' to load the files",
            r"Couldn't reach '[^']+' on the Hub",
        ),
    ),
    KnownFailure(
        name="hub-rate-limit",
        title="The hub refuses more requests for now",
        cause="Too many requests came from this account or, without a token, from this cluster's address.",
        way="A token gives more: `export HF_TOKEN=...` and --env HF_TOKEN; or fill the cache once and use "
        "--hf-hub-offline",
        patterns=(
            r"429 Too Many Requests",
            r"429 Client Error: Too Many Requests for url: https://huggingface",
        ),
    ),
    KnownFailure(
        name="dataset-not-found",
        title="The data set does not exist, or may not be read",
        cause="The hub and the cache have no data set of this name, split or revision for this account.",
        way="Check its name, split and revision in the config; for a private one `export HF_TOKEN=...` "
        "and --env HF_TOKEN",
        patterns=(
            r"DatasetNotFoundError",
            r"DataFilesNotFoundError",
            r'Unknown split "',
            r"BuilderConfig '.*' not found",
        ),
    ),
    KnownFailure(
        name="model-not-found",
        title="There is no such model",
        cause="The hub has no model of this name or revision for this account, and there is no such folder.",
        way="Check the name; for a folder give its absolute path; for a private model `export "
        "HF_TOKEN=...` and --env HF_TOKEN",
        patterns=(
            r"Repository Not Found for url",
            r"is not a local folder and is not a valid model identifier",
            r"RepositoryNotFoundError",
            r"RevisionNotFoundError|is not a valid git identifier",
            r"HFValidationError: Repo id must",
        ),
    ),
    KnownFailure(
        name="dataset-column",
        title="The data set lacks a column",
        cause="The rows have not the columns that the trainer or the environment reads.",
        way="For SFT rows need `messages`, or `prompt` and `completion`; else name the columns in the "
        "environment's arguments",
        patterns=(
            r"must have either a 'messages' column",
            r"Column name '?[^ ]+ not in the dataset",
            r"Column .* not in the dataset\. Current columns",
        ),
    ),
    KnownFailure(
        name="chat-template-missing",
        title="The tokenizer has no chat template",
        cause="A base model's tokenizer has none, and chats cannot be written without.",
        way="An instruction-tuned model, or a template: --tokenizer.chat-template FILE, and for vLLM "
        "--inference.vllm.chat-template FILE",
        patterns=(
            r"tokenizer\.chat_template is not set",
            r"default chat template is no longer allowed",
        ),
    ),
    KnownFailure(
        name="model-file-torn",
        title="A model's file is damaged",
        cause="A weights file in the cache or folder was cut short, mostly by a full disk or a broken "
        "download.",
        way="Delete the model's folder below HF_HOME/hub and download it again",
        patterns=(
            r"SafetensorError: Error while deserializing header",
            r"SafetensorError: .*(?:incomplete metadata|HeaderTooLarge|InvalidHeader|IncompleteBuffer)",
        ),
    ),
    # Between processes
    KnownFailure(
        name="nccl-timeout",
        title="NCCL waited too long",
        cause="A collective operation did not end in time: another process is stuck or dead, or the network "
        "between GPUs is.",
        way="Look which component stopped first in `medarc_slurm logs`; `export NCCL_DEBUG=INFO` with "
        "--env NCCL_DEBUG shows more; a slow start alone needs a longer --dist-timeout-seconds (for "
        "RL --trainer.dist-timeout-seconds)",
        patterns=(
            r"Watchdog caught collective operation timeout",
            r"watchdog got stuck",
            r"wait timeout after \d+ms",
        ),
        consequence=True,
    ),
    KnownFailure(
        name="nccl-network",
        title="NCCL cannot set up its connections",
        cause="NCCL found no network interface to use, or could not connect over the one it chose.",
        way="Name the interface that `ip -brief address` shows on the node: `export "
        "NCCL_SOCKET_IFNAME=...` with --env NCCL_SOCKET_IFNAME; without InfiniBand also "
        "NCCL_IB_DISABLE=1",
        patterns=(
            r"no socket interface found",
            r"socketStartConnect: Connect to",
            r"ncclSystemError: System call",
            r"ncclRemoteError: A call failed possibly due to a network error",
            r"Unable to find address for: ",
        ),
    ),
    KnownFailure(
        name="port-in-use",
        title="A port is in use",
        cause="Another program on the node listens on a port that the run wanted.",
        way="RL and SFT runs get free ports of their own unless their config is unchecked; inference "
        "takes --server.port N; submit again otherwise",
        patterns=(
            r"[Aa]ddress already in use",
            r"EADDRINUSE",
        ),
    ),
    KnownFailure(
        name="inference-not-ready",
        title="The inference server was not ready in time",
        cause="vLLM did not answer while it loaded or compiled, or had died.",
        way="Look into vLLM's own log, `medarc_slurm logs -c inference`; where it was only slow, a longer "
        "--orchestrator.model.client.wait-for-ready-timeout, weights on a faster file system, or the "
        "compile caches",
        patterns=(r"Inference server is not ready after \d+", r"TimeoutError: .*inference pool"),
        consequence=True,
    ),
    KnownFailure(
        name="broadcast-deleted",
        title="New weights were deleted before vLLM had read them",
        cause="A trainer that catches up, as after its first compilation, deletes weights of a step that "
        "vLLM has not read yet: a race in prime-rl, with weights over the file system.",
        way="`medarc_slurm resume`: what was compiled is there then; where it comes again, "
        "--weight-broadcast.type nccl with GPUs apart",
        patterns=(
            r"Cannot find any model weights with `[^`]*broadcasts/step_\d+",
            r"No such file or directory: '[^']*/broadcasts/step_\d+/",
        ),
    ),
    # The environment of the job
    KnownFailure(
        name="attention-package-missing",
        title="FlashAttention is not installed",
        cause="The attention kernel that was chosen for this GPU is not in prime-rl's environment.",
        way="--trainer.model.attn flash_attention_2 (for SFT --model.attn), or install the package into "
        "prime-rl's environment: `uv sync --all-extras` in its checkout",
        patterns=(
            r"No module named 'flash_attn",
            r"the package for FlashAttention\d? ?doesn't seem to be installed",
            r"is only supported if the flash_attn_\d package is installed",
            r"flash-attn-cute has probably been overwritten",
        ),
    ),
    KnownFailure(
        name="environment-missing",
        title="A package of an environment is missing",
        cause="prime-rl's environment has no package for {module}, which the config names.",
        way="Install it there: `uv pip install --python PRIME_RL_DIR/.venv/bin/python PACKAGE`; the "
        "rehearsal (--rehearse) finds it before a run",
        patterns=(
            r"(?:taskset|environment|harness|env|toolset) '(?P<module>[^']+)' not found \(tried to import",
            r"Could not import '(?P<module>[^']+)' environment",
        ),
    ),
    KnownFailure(
        name="environment-module-missing",
        title="An environment needs a module that is missing",
        cause="The module {module} is not in prime-rl's environment, and an environment imports it.",
        way="Install it there: `uv pip install --python PRIME_RL_DIR/.venv/bin/python PACKAGE`",
        patterns=(r"No module named '(?P<module>[^']+)'",),
        components=(ENVIRONMENT,),
    ),
    KnownFailure(
        name="module-missing",
        title="A Python module is missing",
        cause="The module {module} is not in the environment that ran this.",
        way="`uv sync --all-extras --all-packages --inexact` in prime-rl's checkout, or `uv pip install "
        "--python PRIME_RL_DIR/.venv/bin/python PACKAGE`",
        patterns=(r"No module named '?(?P<module>[\w.]+)'?",),
    ),
    KnownFailure(
        name="uv-without-network",
        title="uv wants packages, and the node has no network",
        cause="An environment runs a script whose packages uv installs in the job, from an index that the "
        "node does not reach.",
        way="Run the environment once where there is a network, with the UV_CACHE_DIR that the job uses, "
        "or set UV_OFFLINE=1 after that; or pass a proxy or mirror: --env HTTPS_PROXY, --env "
        "UV_INDEX_URL",
        patterns=(
            r"failed to prepare uv script",
            r"Failed to fetch: `https?://",
            r"error: Request failed after \d+ retries",
            r"Failed to download (?:distribution|`)",
            r"because .* was not found in the cache",
        ),
    ),
    KnownFailure(
        name="glibc-too-old",
        title="The node's system libraries are too old",
        cause="A compiled package was built for newer system libraries than this node has ({version}).",
        way="A node with a newer system (--constraint, --partition), a newer compiler module (--module "
        "gcc/...) for GLIBCXX, or a package built for this system",
        patterns=(r"version `(?P<version>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found",),
    ),
    KnownFailure(
        name="attention-wrong-gpu",
        title="The kernel was not built for this GPU",
        cause="FlashAttention or another compiled package has no code for the architecture of this node's "
        "GPUs.",
        way="--trainer.model.attn flash_attention_2 (for SFT --model.attn), another --gpu-type, or a "
        "build of the package for this one",
        patterns=(
            r"no kernel image is available for execution on the device",
            r"FlashAttention only supports .* GPUs or newer",
            r"FlashAttention-\d only supports",
            r"requires compute capability >= \d+",
            r"requires Hopper \(SM 90\)",
            r"Unsupported compute capability",
            r"GPUs with compute capability of at least 8\.0",
            r"not compatible with the current PyTorch installation",
        ),
    ),
    KnownFailure(
        name="cuda-driver-too-old",
        title="The NVIDIA driver is too old",
        cause="prime-rl's torch was built for a newer CUDA than the node's driver knows.",
        way="A node with a newer driver (--constraint, --partition, --exclude); its operators can update it",
        patterns=(
            r"NVIDIA driver on your system is too old",
            r"CUDA driver version is insufficient for CUDA runtime version",
            r"the provided PTX was compiled with an unsupported toolchain",
        ),
    ),
    KnownFailure(
        name="no-gpu-seen",
        title="CUDA sees no GPU",
        cause="The node has no working driver, or CUDA_VISIBLE_DEVICES hides the job's GPUs.",
        way="Take CUDA_VISIBLE_DEVICES out of setup lines and .env; where `nvidia-smi` fails on the node, "
        "--exclude it and tell its operators",
        patterns=(
            r"No CUDA GPUs are available",
            r"Found no NVIDIA driver on your system",
            r"CUDA error: no CUDA-capable device is detected",
            r"CUDA error: invalid device ordinal",
            r"Failed to infer device type",
        ),
    ),
    KnownFailure(
        name="gpu-broken",
        title="The GPU or its driver failed",
        cause="The hardware or the driver reported an error in the midst of the work.",
        way="--exclude the node, tell its operators the Xid that `dmesg` shows there, and `medarc_slurm "
        "resume`",
        patterns=(
            r"uncorrectable ECC error encountered",
            r"GPU has fallen off the bus",
            r"CUDA error: unspecified launch failure",
            r"CUDA error: device-side hardware",
            r"NVRM: Xid",
            r"CUDA error: unknown error",
            r"CUDA error: hardware stack error",
        ),
    ),
    KnownFailure(
        name="wandb-login",
        title="W&B does not let the run in",
        cause="The job has no API key of W&B, or not a valid one.",
        way="`wandb login`, or `export WANDB_API_KEY=...`, and submit with --auto-auth or --env "
        "WANDB_API_KEY; --env WANDB_MODE with WANDB_MODE=offline logs into files",
        patterns=(
            r"No API key configured\. Use `wandb login`",
            r"The API key you provided is either invalid or missing",
            r"API key must (?:have|be) \d+",
            r"[Ii]nvalid API key",
            r"wandb.*(?:401|user is not logged in)",
            r"AuthenticationError: .*wandb",
        ),
    ),
    # The run directory and the config
    KnownFailure(
        name="run-directory-used",
        title="prime-rl found an earlier run in the run directory",
        cause="The directory holds what a run left, and prime-rl does not begin a fresh one over it.",
        way="`medarc_slurm resume` to go on with it, --clean to begin anew, or another --output-dir",
        patterns=(
            r"already contains (?:artifacts|checkpoints) from a previous run",
            r"FileExistsError: .*[Oo]utput directory",
        ),
    ),
    KnownFailure(
        name="config-refused",
        title="prime-rl refuses the config",
        cause="A key or a value of the config is none that this prime-rl knows, or two of them contradict.",
        way="Correct what it names; `medarc_slurm rl CONFIG --dry-run` checks it without a job, unless "
        "--no-check",
        patterns=(
            r"Failed to validate config",
            r"\d+ validation errors? for (?:RL|SFT|Inference|Trainer|Orchestrator|Evals?|Env\w*)Config\b",
            r"Extra inputs are not permitted",
            r"Config file not found: ",
            r"Invalid TOML in",
        ),
    ),
    KnownFailure(
        name="checkpoint-torn",
        title="The checkpoint cannot be read",
        cause="A checkpoint that the run was to go on from is missing a part: it was being written, or the "
        "disk was full.",
        way="Delete the newest folder below checkpoints/ and `medarc_slurm resume`: the run goes on from "
        "the one before",
        patterns=(
            r"PytorchStreamReader failed",
            r"CheckpointException",
            r"Checkpoint not found at",
            r"checkpoint not found at",
            r"No such file or directory: '[^']*checkpoints/step_\d+",
            r"dataloder checkpoint was not found",
            r"Missing key in checkpoint state_dict",
        ),
    ),
    # Disks and limits of the node
    KnownFailure(
        name="disk-full",
        title="A disk or a quota is full",
        cause="Nothing more could be written.",
        way="`df -h` and `quota` for the path of the message; fewer checkpoints with --ckpt.keep-last N, "
        "caches elsewhere, another --output-dir; --min-free-disk refuses a start without room",
        patterns=(
            r"No space left on device",
            r"Disk quota exceeded",
            r"Errno (?:28|122)\]",
            r"PytorchStreamWriter failed writing file",
        ),
    ),
    KnownFailure(
        name="permission-denied",
        title="A file may not be read or written",
        cause="The user of the job has no right to {path}, often a cache that somebody else made.",
        way="Give the right, or set HF_HOME (or the cache that is named) to a folder of your own",
        patterns=(
            r"PermissionError: \[Errno 13\] Permission denied(?:: '(?P<path>[^']+)')?",
            r"PermissionError at (?P<path>\S+) when downloading",
            r"\[Errno 30\] Read-only file system(?:: '(?P<path>[^']+)')?",
        ),
    ),
    KnownFailure(
        name="shared-memory-full",
        title="Shared memory is exhausted",
        cause="The node's /dev/shm is full or too small: of a container, or by what dead processes left "
        "there.",
        way="`df -h /dev/shm` on the node; a container needs --shm-size or --ipc=host; --exclude the node "
        "and tell its operators",
        patterns=(
            r"insufficient shared memory \(shm\)",
            r"Bus error",
            r"No space left on device.*/dev/shm|/dev/shm.*No space left on device",
            r"Error while creating shared memory segment",
            r"unable to (?:mmap|open|allocate) shared memory",
        ),
        signals=("SIGBUS",),
    ),
    KnownFailure(
        name="too-many-open-files",
        title="Too many open files",
        cause="A process came to its limit of open files and connections.",
        way="`ulimit -n 65536` in a --setup line, as far as the node's hard limit allows; fewer rollouts "
        "at once",
        patterns=(r"Too many open files", r"Errno 24\]"),
    ),
    KnownFailure(
        name="too-many-processes",
        title="The node starts no more processes or threads",
        cause="The user's limit of processes on the node, or the job's in its cgroup, was reached.",
        way="`ulimit -u` in a --setup line shows it; fewer environment workers; ask the operators for more",
        patterns=(
            r"can't start new thread",
            r"BlockingIOError: \[Errno 11\] Resource temporarily unavailable",
            r"fork: retry: Resource temporarily unavailable",
            r"pthread_create failed",
        ),
    ),
    KnownFailure(
        name="host-out-of-memory",
        title="The job's memory ran out",
        cause="The job needed more memory of the node than it had asked for, and the kernel killed a "
        "process.",
        way="More with --mem-per-gpu or --mem; fewer environment workers, less CPU offload",
        patterns=(
            r"Detected \d+ oom[-_ ]kill event",
            r"oom[-_]kill(?:er)?\b.*[Kk]illed process",
            r"Out of memory: Killed process",
            r"exceeded memory limit .*being killed",
            r"Some of the step tasks have been OOM Killed",
            r"DefaultCPUAllocator: can't allocate memory",
            r"^MemoryError\b",
        ),
        states=("OUT_OF_MEMORY",),
        signals=("SIGKILL",),
    ),
    # What training itself does
    KnownFailure(
        name="loss-is-nan",
        title="The loss is no number any more",
        cause="Training diverged, or the data has examples without a token to learn from.",
        way="A lower learning rate (--trainer.optim.lr, for SFT --optim.lr), gradient clipping, bfloat16 "
        "in place of float16; go on from a checkpoint before it with --resume.step N",
        patterns=(
            r"\| Loss (?:nan|-?inf)\b",
            r"Local loss is nan",
            r"probability tensor contains either `inf`, `nan` or element < 0",
            r"[Ll]oss is (?:NaN|nan|not finite)",
            r"Out of range float values are not JSON compliant",
        ),
        aside=True,
    ),
    KnownFailure(
        name="no-learning-signal",
        title="Every batch was empty",
        cause="All rollouts of a group had the same reward, or all failed, several batches in a row: there "
        "is nothing to learn from.",
        way="Look at rollouts and rewards with `medarc_slurm logs -c env`: easier or more varied tasks, a "
        "larger group, a sound reward; errors of the environment show there too",
        patterns=(r"consecutive empty train batches",),
        consequence=True,
    ),
    # How the job ended
    KnownFailure(
        name="time-limit",
        title="The time limit ended the job",
        cause="The run needed longer than the job's time limit.",
        way="`medarc_slurm resume --time TIME` goes on from the last checkpoint; --requeue does so by "
        "itself, with checkpoints in time (--ckpt.interval)",
        patterns=(r"CANCELLED AT \S+ DUE TO TIME LIMIT",),
        states=("TIMEOUT", "DEADLINE"),
        reasons=("time-limit",),
    ),
    KnownFailure(
        name="node-failure",
        title="The node failed",
        cause="SLURM lost the node that the job ran on; the run did nothing wrong.",
        way="`medarc_slurm resume` goes on from the last checkpoint; --exclude the node if it happens again",
        patterns=(r"CANCELLED AT \S+ DUE TO NODE FAILURE",),
        states=("NODE_FAIL", "BOOT_FAIL"),
        reasons=("lost",),
    ),
    KnownFailure(
        name="preempted",
        title="A job of higher priority took the GPUs",
        cause="The partition or QoS lets others take the place of this job.",
        way="`medarc_slurm resume`, or --requeue for the next one; a partition or QoS without preemption",
        patterns=(r"CANCELLED AT \S+ DUE TO PREEMPTION",),
        states=("PREEMPTED",),
        reasons=("preempted",),
    ),
    KnownFailure(
        name="launch-failed",
        title="The node could not start the job",
        cause="The node's prolog, its credentials or its disk failed before the script began, and SLURM "
        "holds the job.",
        way="`scontrol release JOB` tries again; --exclude the node and tell its operators if it happens "
        "again",
        patterns=(
            r"launch failed requeued held",
            r"Prolog (?:error|failed)",
            r"Job prolog launch request failed",
        ),
    ),
    KnownFailure(
        name="idle",
        title="The run stood still",
        cause="Nothing new came in its logs and no GPU worked for as long as --idle-timeout allows.",
        way="The reason names who waited for whom: look into that component's log; a longer "
        "--idle-timeout where it was only slow",
        patterns=(r"nothing happened for .*: ",),
        reasons=("idle",),
        components=(JOB,),
    ),
    KnownFailure(
        name="checks-failed",
        title="A check refused the start",
        cause="The node or the job lacked something that the run needs, and prime-rl was not started.",
        way="What each check says in the job's log, behind `hint:`",
        reasons=("checks-failed",),
    ),
    KnownFailure(
        name="another-attempt-alive",
        title="Another attempt is alive in the run directory",
        cause="Two jobs had the same run directory, or an old copy of the job was still running.",
        way="`medarc_slurm status` shows who owns it; wait for its end, or `medarc_slurm cancel` it",
        reasons=("fenced", "superseded"),
    ),
    KnownFailure(
        name="given-up",
        title="The job was restarted too often",
        cause="SLURM restarted it once more than --max-requeues allows.",
        way="See why the attempts before ended; then `medarc_slurm resume`, with a higher --max-requeues "
        "if they were fine",
        reasons=("given-up",),
    ),
    KnownFailure(
        name="setup-failed",
        title="The script failed before the run was started",
        cause="A module, a --setup line or .env failed.",
        way="Correct the line that the job's log names",
        patterns=(r"exit code \d+ at line \d+ of .*: the run was not started", r"module: command not found"),
        components=(JOB,),
    ),
    KnownFailure(
        name="dependency-failed",
        title="What it depended on did not end well",
        cause="It was to start only after job {job}, which did not end as --dependency asks; SLURM ended it "
        "before it began.",
        way="`medarc_slurm why {job}` says why that one ended; then `medarc_slurm resume --dependency "
        "afterok:NEW`, behind the job in its place, or without --dependency",
        reasons=("DependencyNeverSatisfied",),
    ),
    KnownFailure(
        name="cancelled",
        title="Somebody cancelled the job",
        cause="It was ended on purpose: by you, an operator or another program.",
        way="`medarc_slurm resume` submits it again, and it goes on from its last checkpoint if it has one",
        states=("CANCELLED",),
        reasons=("cancelled", "asked"),
    ),
)
"""From the particular to the general: the first that fits a line is it."""


def recognise(
    lines: Sequence[tuple[str, bool]], component: str, *, consequences: bool = False
) -> Found | None:
    """Find the known failure that a log shows.

    The last one counts: what was tried again, and went well then, comes before it.

    Args:
        lines: What was said, each with whether it may be an error: no logger called it anything less.
        component: Whose log it is; empty when that is not known.
        consequences: Take those too that mostly follow from others.
    """
    for position in range(len(lines) - 1, -1, -1):
        text, grave = lines[position]
        for failure in KNOWN:
            if (failure.consequence and not consequences) or not (grave or failure.aside):
                continue
            match = failure.find(text, component)
            if match is not None:
                return Found(failure, text.strip(), position, tuple(_groups(match)))
    return None


def _groups(match: re.Match[str]) -> Iterable[tuple[str, str]]:
    return ((name, value) for name, value in match.groupdict().items() if value)


def by_end(state: str | None, reason: str | None) -> Found | None:
    """Find the known failure by how a job ended.

    Args:
        state: SLURM's state.
        reason: The job's own word.
    """
    for word, words in ((reason, "reasons"), (state, "states")):
        for failure in KNOWN:
            if word and word in getattr(failure, words):
                return Found(failure, word)
    return None


def by_signal(name: str | None) -> Found | None:
    """Find what a signal most likely means that ended a component without a word.

    Args:
        name: The signal's name.
    """
    failure = next((each for each in KNOWN if name and name in each.signals), None)
    return None if failure is None else Found(failure, name or "", likely=True)
