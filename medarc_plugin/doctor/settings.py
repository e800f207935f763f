"""What this user has set and kept: profiles, variables, the list of runs, caches and credentials."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from medarc_plugin import index, profile_files, profiles, project
from medarc_plugin.doctor.findings import Finding, ok, skipped, warning
from medarc_plugin.doctor.machine import existing, size
from medarc_plugin.host import cache
from medarc_plugin.job import hub, needs, warm
from medarc_plugin.preflight import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medarc_plugin.doctor.subject import Subject

MOST_COUNTED = 20_000
"""Files of a cache that are counted."""

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def profiles_in_force(subject: Subject) -> Iterator[Finding]:
    """Profiles can be read, and their values can be used."""
    files = profile_files.read_all()
    subject.settled.or_say_why()  # what cannot be used is an error here
    if not files:
        where = project.root() / project.PROFILE
        yield skipped(
            f"none: neither {where} nor {project.user_profile()}", "`medarc_slurm init` proposes one"
        )
        return
    layers = profile_files.layers_of(files, subject.profile)
    named = next((layer.source for layer in layers if f"[{profile_files.SECTIONS}." in layer.source), None)
    words = ", ".join(str(file.path) for file in files)
    section = named.rpartition("[")[2].rstrip("]") if named else None
    yield ok(f"{words}{f'; in force: [{section}]' if section else ''}")


def variables(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """SLURM's own variables, which are the options' defaults."""
    used = profiles.environment_layer(os.environ).sources or {}
    ignored = profiles.ignored_variables(os.environ)
    if used:
        yield ok(f"{', '.join(sorted(set(used.values())))}: taken as options")
    if ignored:
        yield warning(f"{', '.join(ignored)}: set, but the run decides this; ignored")
    if not used and not ignored:
        yield skipped("no SBATCH_ variable is set")


def list_of_runs(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """The list by which runs are found."""
    path = index.path()
    place = path if path.exists() else existing(path.parent)
    if not os.access(place, os.W_OK):
        yield warning(
            f"{path} cannot be written, so that runs are found by their directory alone",
            "mend its permissions, or name another folder with MEDARC_STATE_DIR",
        )
        return
    entries = index.entries()
    folders = {entry.run_dir for entry in entries}
    gone = sum(not Path(folder).is_dir() for folder in folders)
    words = f"{len(folders)} in {path}" if folders else f"none yet; {path} will have them"
    yield ok(f"{words}{f', {gone} of them deleted or moved since' if gone else ''}")


def resolved_configs(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """The cache of configs that prime-rl has resolved."""
    yield _cache(cache.folder_for(), "")


def compiled_code(subject: Subject) -> Iterator[Finding]:
    """The warm copies of what runs have compiled."""
    options = subject.settled().options
    if not options.warm_cache:
        yield skipped("turned off (--no-warm-cache)")
        return
    yield _cache(warm.warm_folder(os.environ), f", {options.warm_cache_size} at most")


def _cache(folder: Path, more: str) -> Finding:
    if not folder.exists():
        place = existing(folder)
        if os.access(place, os.W_OK | os.X_OK):
            return ok(f"empty; {folder} will be made")
        return warning(f"{folder} cannot be made in {place}", "MEDARC_CACHE_DIR names another place")
    about = folder.stat()
    if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return warning(
            f"{folder} is not used: others can write there", f"`chmod go-w {folder}`, or remove it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return warning(f"{folder} cannot be written", "mend its permissions, or remove it")
    count, total = _counted(folder)
    return ok(f"{count} {'entry' if count == 1 else 'entries'}, {size(total)}, in {folder}{more}")


def _counted(folder: Path) -> tuple[int, int]:
    count = total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if count == MOST_COUNTED:
                break
            count += 1
            total += entry.stat(follow_symlinks=False).st_size
    return count, total


def hub_cache(subject: Subject) -> Iterator[Finding]:
    """The hub's cache, from which runs read models and data."""
    place = hub.hub_of(_environment(subject))
    words = "; offline: nothing is fetched" if place.offline else ""
    if place.cache.is_dir():
        models = sum(1 for _ in place.cache.glob("models--*"))
        writable = os.access(place.cache, os.W_OK) or place.offline
        found = f"{models} model{'' if models == 1 else 's'} in {place.cache}{words}"
        yield (
            ok(found)
            if writable
            else warning(f"{found}, which cannot be written", "--hf-cache-dir names another")
        )
    elif place.offline:
        yield warning(f"offline, and {place.cache} is not there", "fetch models and data first, or go online")
    elif os.access(existing(place.cache), os.W_OK | os.X_OK):
        yield ok(f"empty; {place.cache} will be made")
    else:
        words = f"{place.cache} cannot be made in {existing(place.cache)} from here"
        yield warning(words, "--hf-cache-dir names another place")


def hub_token(subject: Subject) -> Iterator[Finding]:
    """A token for gated and private models."""
    given = _environment(subject)
    if not hub.hub_of(given).token:
        yield skipped("none; only gated and private models need one", "`hf auth login`, or export HF_TOKEN")
        return
    if given.get("HF_TOKEN") or given.get("HUGGING_FACE_HUB_TOKEN"):
        yield ok("set in this shell; --auto-auth passes HF_TOKEN on to jobs")
        return
    path = Path(given.get("HF_TOKEN_PATH") or hub.hub_home(given) / "token").expanduser()
    if path.stat().st_mode & OTHERS:
        yield warning(f"{path} can be read by others", f"`chmod 600 {path}`")
    else:
        yield ok(f"kept in {path}")


def wandb_key(subject: Subject) -> Iterator[Finding]:
    """A key for Weights & Biases."""
    given = _environment(subject)
    given = {**needs.wandb_settings(Path.cwd(), given), **given}
    address = needs.wandb_address(given)
    if given.get("WANDB_MODE", "").lower() in needs.WANDB_OFF:
        yield skipped(f"not needed: WANDB_MODE={given['WANDB_MODE']}")
    elif given.get("WANDB_API_KEY"):
        yield ok(f"set in this shell, for {address}; --auto-auth passes it on to jobs")
    elif needs.has_wandb_key(given):
        yield ok(f"kept by `wandb login`, for {address}")
    else:
        yield skipped(
            f"none for {address}; only configs that log there need one",
            "`wandb login`, or export WANDB_API_KEY",
        )


def _environment(subject: Subject) -> dict[str, str]:
    """The environment with what the options say of the hub."""
    options = subject.settled().options
    given = dict(os.environ)
    if options.hf_cache_dir is not None:
        given["HF_HOME"] = str(options.hf_cache_dir.absolute())
    if options.hf_hub_offline:
        given["HF_HUB_OFFLINE"] = "1"
    return given


def shared_folders(subject: Subject) -> Iterator[Finding]:
    """The project and prime-rl lie where nodes can see them, by the looks of it."""
    facts = subject.facts()
    name = socket.gethostname()
    here = {"localhost", name, name.partition(".")[0]}
    if not facts.nodes or all(node.host in here for node in facts.nodes):
        yield skipped("no node but this machine is known")
        return
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    places = {"the current folder": Path.cwd()}
    host = subject.host()
    if host is not None:
        places["prime-rl"] = host.directory or host.python
    for what, place in places.items():
        mount = surroundings.mount_of(Path(os.path.realpath(place)), mounts)
        kind = mount.kind if mount else "an unknown file system"
        if kind in surroundings.IN_MEMORY | surroundings.ON_A_DISK:
            yield warning(
                f"{what} lies on {kind} of this machine: nodes see {place} only where it is exported to them",
                "a guess from the kind of file system; `--rehearse` looks on a node",
            )
        else:
            yield ok(f"{what} lies on {kind}, which nodes can share")
