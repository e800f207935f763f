"""`medarc_slurm init`: proposes a profile for this cluster, and writes it after a yes."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medarc_plugin.cli import output
from medarc_plugin.errors import MedarcError, SlurmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.proposal import Entry

STDOUT = "-"


def init(
    user: Annotated[bool, typer.Option("--user", help="For all your projects, not for this one.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")] = False,
    place: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write it there; - prints it, and writes nothing."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Ask SLURM what there is, propose a medarc.toml, and write it after a yes.

    Where nobody can be asked (no terminal, no --yes) the proposal is printed and nothing is written.
    """
    if user and place is not None:
        raise UsageError("--user and --output contradict each other: both say where the profile goes")
    path = _path(user, place)
    asks = not yes and place != STDOUT and _is_terminal()
    writes = asks or (yes and place != STDOUT)
    if writes:
        _refuse_existing(path, force)
    from medarc_plugin.proposal import propose
    from medarc_plugin.slurm import cluster

    proposal = propose(cluster.ask(), list(_found_beside(path.parent)))
    if not writes or asks:
        output.fact(proposal.text.rstrip("\n"))
    if not proposal.asked:
        raise SlurmError(
            f"{proposal.why_none}; nothing is written",
            hint="try again when `scontrol ping` answers, on a machine of the cluster; or fill in what "
            "`medarc_slurm init --output -` prints",
        )
    for words in proposal.unknown:
        output.warn(f"not known: {words}")
    if proposal.partition is None:
        output.warn(proposal.why_none)
    if not writes:
        way = f"`--yes` writes it to {path}"
        if os.path.lexists(path):
            way = f"{path} is there already, `--yes --force` replaces it"
        output.say(f"nothing is written: {way}, `--output FILE` writes elsewhere")
        return
    if asks and not _agreed(f"write it to {path}?"):
        output.say("nothing is written")
        raise typer.Exit(UsageError.exit_code)
    write(path, proposal.text, force=force)
    output.fact(str(path))
    output.say("`medarc_slurm options` shows what holds now")


def _path(user: bool, place: str | None) -> Path:
    """Where the profile goes, absolute."""
    from medarc_plugin import project

    if user:
        return project.user_profile()
    if place in (None, STDOUT):
        return project.root() / project.PROFILE
    path = Path(os.path.abspath(os.path.expanduser(str(place))))  # noqa: PTH100, PTH111 - as the shell has it
    if path.is_dir() or str(place).endswith("/"):
        return path / project.PROFILE
    return path


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _refuse_existing(path: Path, force: bool) -> None:
    if force and os.path.lexists(path) and not path.is_file():
        raise UsageError(f"{path} is not a regular file", hint="--output FILE writes the profile elsewhere")
    if os.path.lexists(path) and not force:
        hint = "--force replaces it, --output FILE writes elsewhere, --output - shows the proposal"
        raise UsageError(f"{path} is there already", hint=hint)


def _found_beside(folder: Path) -> Iterator[Entry]:
    """What this machine has that a run needs: prime-rl, and the hub's cache."""
    from medarc_plugin.host import locate
    from medarc_plugin.proposal import Entry

    try:
        host = locate.locate(None)
    except MedarcError as error:
        yield Entry("prime_rl_dir", "DIR", error.message, taken=False)
    else:
        if host is None:
            yield Entry("prime_rl_dir", "DIR", "prime-rl's checkout; none was found here", taken=False)
        elif host.directory is not None:
            yield Entry("prime_rl_dir", _seen_from(folder, host.directory), f"from {host.source}")
    shared = "on a file system that the nodes share"
    home = os.environ.get("HF_HOME")
    if home:
        yield Entry("hf_cache_dir", os.path.abspath(home), f"HF_HOME here; if it is {shared}", taken=False)  # noqa: PTH100
    else:
        yield Entry("hf_cache_dir", "DIR", f"the hub's models, for all runs; {shared}", taken=False)
    yield Entry("hf_hub_offline", value=True, why="where the nodes reach no hub", taken=False)


def _seen_from(folder: Path, target: Path) -> str:
    """Write a path as a profile has it: relative to its own folder when it lies below."""
    with contextlib.suppress(ValueError):
        below = target.relative_to(folder)
        return f"./{below}" if below.parts else str(target)
    return str(target)


def _agreed(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        output.say()
    return answer.strip().lower() in {"y", "yes"}


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a profile whole or not at all.

    Raises:
        UsageError: There is one already and it may not be replaced, or the folder cannot be written.
    """
    # What a link points to is replaced, not the link: dotfiles are often kept elsewhere.
    target = path.resolve() if force else path
    draft = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        draft = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        draft.chmod(0o666 & ~_umask())
        _publish(draft, target, force=force)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", hint="--output FILE writes it elsewhere"
        ) from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _publish(draft: Path, target: Path, *, force: bool) -> None:
    if force:
        draft.replace(target)
        return
    try:
        os.link(draft, target)  # unlike a rename it replaces nothing
    except FileExistsError:
        _refuse_existing(target, force=False)


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
