"""What a rehearsal asks of prime-rl's own interpreter: one process, one import of torch.

    PYTHON FOLDER probe QUESTION

The question is JSON with `mark`, the word that begins each line of an answer; `parts`, names of what is to be
looked at (`PARTS`); and what these need: `gpus`, how many are wanted, and `stand_in`, whether they are made
up; `configs`, pairs of a class and its arguments; `attention`; `environments`; `models`, `tokenizers`, `data`
and `environment_data`, names.

A part says when it begins and what it found, at once: what crashes or hangs takes nothing of the earlier
ones with it. A part that takes too long ends the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
import urllib.parse
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hub, needs
from .checks import FAIL, OK, SKIP, STAND_IN_GPUS, WARN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

NETWORK_SECONDS = 15.0
"""For all that is asked over the network, at once: a name server that does not answer has its own idea."""

TOGETHER = "`uv sync --all-extras` in prime-rl's checkout installs what it needs"

Finding = tuple[str, ...]
"""Status, text and hint of a check."""

LEAST_LINES = 1000
"""Lines of FlashAttention 4's interface; the stub of the older package is shorter, and may lie over it."""

KERNELS = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
    "flash_attention_4": ("flash_attn.cute", "flash-attn-4"),
}
"""Module and package of each attention that prime-rl knows."""


def main(arguments: Sequence[str]) -> int:
    """Answer the question on standard output."""
    question = json.loads(arguments[0])
    # As `-m` has it: an environment may lie in the working directory.
    sys.path[0] = str(Path.cwd())
    say = _Voice(str(question["mark"]))
    seen: dict[str, Any] = {}
    for name, look, seconds in PARTS:
        if name not in question["parts"]:
            continue
        say("begin", part=name, seconds=seconds)
        watch = threading.Timer(seconds, _expire, (say, name, seconds))
        watch.daemon = True
        watch.start()
        findings: list[Finding]
        try:
            findings = list(look(question, seen))
        except (Exception, SystemExit) as error:
            findings = [(FAIL, _words(error))]
        watch.cancel()
        say("found", part=name, findings=findings)
    say("end")
    # What was imported may have threads, and an opinion of its own about when it ends.
    os._exit(0)


class _Voice:
    """Lines that can be told from what libraries print.

    Args:
        mark: The word that begins each of them.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._output = os.dup(1)

    def __call__(self, kind: str, **said: object) -> None:
        line = f"\n{self._mark} {json.dumps({'kind': kind, **said})}\n"
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.write(self._output, line.encode())


def _expire(say: _Voice, name: str, seconds: float) -> None:
    stack = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
    frames = traceback.extract_stack(stack)[-1:] if stack else []
    where = "".join(f" ({frame.filename}, line {frame.lineno})" for frame in frames)
    say("found", part=name, findings=[(FAIL, f"nothing came of it within {seconds:g} s{where}")])
    os._exit(0)


def look_at_torch(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:
    """As many GPUs visible to torch as wanted, each of which computes."""
    torch, problem = _imported("torch")
    if torch is None:
        yield FAIL, f"{sys.executable} cannot import torch: {problem}", TOGETHER
        return
    wanted = int(question["gpus"])
    if question.get("stand_in"):
        yield SKIP, f"torch {torch.__version__}: the GPUs are made up ({STAND_IN_GPUS} is set)"
        return
    count = torch.cuda.device_count()
    if count != wanted:
        built = getattr(torch.version, "cuda", None)
        yield (
            FAIL,
            f"torch {torch.__version__} sees {count} of {wanted} GPU(s)"
            + (f", and is built for CUDA {built}" if built else ": it is built without CUDA"),
            "the driver must be as new as torch's CUDA, and torch must be the build for it; " + TOGETHER,
        )
        return
    kinds = []
    for index in range(count):
        major, minor = torch.cuda.get_device_capability(index)
        seen.setdefault("capability", (major, minor))
        kinds.append(f"{torch.cuda.get_device_name(index)} (compute capability {major}.{minor})")
        try:
            # A torch that was not built for this GPU fails here, and not before.
            torch.zeros(1, device=f"cuda:{index}").add_(1).item()
        except Exception as error:
            hint = "see whether others use the GPU (nvidia-smi), and that torch's build is for it"
            yield FAIL, f"torch {torch.__version__} cannot compute on {kinds[-1]}: {_words(error)}", hint
            return
    shown = "; ".join(dict.fromkeys(kinds))
    yield OK, f"torch {torch.__version__} sees {count} of {wanted} wanted and computes on them: {shown}"


def look_at_attention(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:
    """The attention that the config names is installed, and made for this GPU."""
    wish = str(question["attention"])
    capability = seen.get("capability")
    if capability is None and wish == "auto":
        yield SKIP, "`auto` goes by the GPU, which torch has not named"
        return
    name = _auto(capability) if capability and wish == "auto" else wish
    if name not in KERNELS:
        yield SKIP, f"{name} is none that needs a package of its own"
        return
    module, package = KERNELS[name]
    gpu = "" if capability is None else f" on compute capability {capability[0]}.{capability[1]}"
    said = f"{name}{' (auto)' if wish == 'auto' else ''}{gpu}"
    if capability is not None and not _fits(name, capability):
        yield FAIL, f"{said}: this GPU has no such kernels", f"set attn = {_auto(capability)!r}, or auto"
        return
    found, problem = _imported(module)
    instead = "" if name == "flash_attention_2" else "; or set attn = 'flash_attention_2'"
    if found is None:
        yield (
            FAIL,
            f"{said}: {module} cannot be imported: {problem}",
            f"install {package}: {TOGETHER}{instead}",
        )
        return
    if name == "flash_attention_4":
        problem = _shadowed()
        if problem:
            yield FAIL, f"{said}: {problem}", "prime-rl's scripts/fix-flash-attn-cute.sh mends it"
            return
    yield OK, f"{said}: {module} {getattr(found, '__version__', '')}".rstrip()


def _auto(capability: tuple[int, int]) -> str:
    """What prime-rl takes for a GPU (`resolve_auto_attn` in its `trainer/model.py`)."""
    if capability == (10, 0):
        return "flash_attention_4"
    return "flash_attention_3" if capability[0] == 9 else "flash_attention_2"  # noqa: PLR2004 - Hopper


def _fits(name: str, capability: tuple[int, int]) -> bool:
    """Whether there are kernels for a GPU.

    https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support: version 2 from Ampere on, 3 on Hopper,
    4 on Hopper and on the data centres' Blackwell; the workstations' has 2 alone.
    """
    major = capability[0]
    return {"flash_attention_3": major == 9, "flash_attention_4": major in (9, 10, 11)}.get(name, major >= 8)  # noqa: PLR2004 - named above


def _shadowed() -> str:
    """Whether the older package's stub lies over version 4: prime-rl refuses that."""
    interface, problem = _imported("flash_attn.cute.interface")
    if interface is None:
        return f"flash_attn.cute.interface cannot be imported: {problem}"
    with open(interface.__file__, "rb") as file:  # noqa: PTH123 - whatever the module says
        lines = sum(1 for _ in file)
    return "" if lines >= LEAST_LINES else "the older flash-attn lies over it"


def look_at_vllm(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:  # noqa: ARG001
    """VLLM can be imported, with its compiled part, and finds CUDA."""
    vllm, problem = _imported("vllm")
    if vllm is None:
        yield FAIL, f"vllm cannot be imported: {problem}", TOGETHER
        return
    version = getattr(vllm, "__version__", "")
    if find_spec("vllm._C") is not None:
        compiled, problem = _imported("vllm._C")
        if compiled is None:
            hint = "this vLLM is another torch's: both come from prime-rl's lock; " + TOGETHER
            yield FAIL, f"vllm {version}: vllm._C cannot be loaded: {problem}", hint
            return
    yield OK, f"vllm {version}"


def look_at_config(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:  # noqa: ARG001
    """prime-rl's own parser takes the config that the attempt would launch with."""
    for path, arguments in question["configs"]:
        module, _, name = path.partition(":")
        try:
            found = getattr(import_module(module), name)
            cli = import_module("pydantic_config").cli
        except (Exception, SystemExit) as error:
            yield FAIL, f"{path} cannot be imported: {_words(error)}", _hint(error)
            continue
        sys.argv = [name, *arguments]
        try:
            cli(found, args=list(arguments))
        except (Exception, SystemExit) as error:
            hint = _hint(error) or "the prime-rl of the job is another one than that of the submission"
            yield FAIL, f"{name} refuses it: {_words(error)}", hint
        else:
            yield OK, f"{name} takes {' '.join(arguments)}"


def look_at_environments(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:  # noqa: ARG001
    """Every environment that the config names can be imported."""
    for name in question["environments"]:
        # One that ships with verifiers is looked for there.
        for module in (name, f"verifiers.v1.tasksets.{name}"):
            try:
                found = import_module(module)
            except (Exception, SystemExit) as error:
                if isinstance(error, ModuleNotFoundError) and error.name in _parents(module):
                    continue
                yield FAIL, f"{module} cannot be imported: {_words(error)}", _hint(error)
            else:
                yield OK, f"{module} from {getattr(found, '__file__', None) or 'a namespace'}"
            break
        else:
            install = f"`uv pip install --no-deps --python {sys.executable} FOLDER`"
            yield FAIL, f"{name} is not installed for {sys.executable}", install


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def look_at_files(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:  # noqa: ARG001
    """Models and data sets are there, cached, or on a hub that answers."""
    place = hub.hub_of(os.environ)
    # A taskset may bring texts of its own under a name that is no repository: no reason to fail.
    kinds = (
        ("models", "model", FAIL, hub.find_model),
        ("tokenizers", "tokenizer", FAIL, partial(hub.find_model, weights=False)),
        ("data", "data set", FAIL, hub.find_data),
        ("environment_data", "data set", WARN, hub.find_data),
    )
    wishes: list[tuple[str, str, Callable[[], hub.Found]]] = [
        (kind, otherwise, partial(find, place, name))
        for names, kind, otherwise, find in kinds
        for name in question.get(names, ())
    ]
    answers = _together([look for _, _, look in wishes], NETWORK_SECONDS)
    for (kind, otherwise, _), found in zip(wishes, answers):  # noqa: B905 - not in Python 3.9
        if isinstance(found, BaseException):
            yield otherwise, f"{kind}: {_words(found)}", ""
        elif found is None:
            hint = "see the node's network and name server, or fetch it before and set --hf-hub-offline"
            yield otherwise, f"{kind}: {place.endpoint} did not answer within {NETWORK_SECONDS:g} s", hint
        else:
            yield OK if found.there else otherwise, f"{kind} {found.text}", found.hint


def look_at_wandb(question: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:  # noqa: ARG001
    """Weights & Biases is installed, answers, and there is a key for it."""
    variables = {**needs.wandb_settings(Path.cwd(), os.environ), **os.environ}
    address = needs.wandb_address(variables)
    host = urllib.parse.urlsplit(address).hostname or address
    without = "; WANDB_MODE=offline, with --env, keeps everything in the run directory"
    if find_spec("wandb") is None:
        yield FAIL, f"{sys.executable} finds no wandb", TOGETHER
        return
    if not needs.has_wandb_key(variables):
        hint = "WANDB_API_KEY with --auto-auth, or `wandb login` once where the home directory is shared"
        yield FAIL, f"there is no key for {host}", hint + without
        return
    (answer,) = _together([lambda: hub.head(address)], NETWORK_SECONDS)
    if isinstance(answer, BaseException) or answer is None:
        reason = f"no answer within {NETWORK_SECONDS:g} s" if answer is None else _words(answer)
        yield FAIL, f"{host} cannot be reached: {reason}", "see the node's network and proxy" + without
    else:
        yield OK, f"{host} answers, and there is a key for it"


def _together(looks: Sequence[Callable[[], Any]], seconds: float) -> list[Any]:
    """Ask everything at once; `None` for what did not answer in time, an exception for what failed."""
    answers: list[Any] = [None] * len(looks)

    def ask(number: int) -> None:
        try:
            answers[number] = looks[number]()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(looks))]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(answers)


def _imported(name: str) -> tuple[Any, str]:
    """A module, or why it cannot be imported."""
    try:
        return import_module(name), ""
    except (Exception, SystemExit) as error:
        return None, _words(error)


def _words(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[0] != "<"]
    text = str(getattr(error, "message", "") or error).strip() or "it gave no reason"
    where = ""
    # What prime-rl's parser refuses is no matter of the line that says so.
    if len(frames) > 1 and not hasattr(error, "message"):
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})"
    lines = text.splitlines()
    more = "\n" + "\n".join(lines[1:MOST_LINES]) if len(lines) > 1 else ""
    return f"{type(error).__name__}: {lines[0]}{where}{more}"


MOST_LINES = 8


def _hint(error: BaseException) -> str:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    return f"`uv pip install --python {sys.executable} PACKAGE`, for {missing}; {TOGETHER}" if missing else ""


PARTS: tuple[tuple[str, Callable[[Mapping[str, Any], dict[str, Any]], Iterator[Finding]], float], ...] = (
    ("model and data", look_at_files, 30.0),
    ("W&B", look_at_wandb, 30.0),
    ("config by prime-rl", look_at_config, 90.0),
    ("GPUs in torch", look_at_torch, 60.0),
    ("attention", look_at_attention, 60.0),
    ("imports", look_at_environments, 60.0),
    ("vLLM", look_at_vllm, 90.0),
)
"""What can be looked at: its name, how, and how many seconds it may take."""
