"""Whether a submitted run finds what it needs around it: its folders, disk, models, data and W&B's key.

All of it is seen from this machine, and what the nodes see is a guess from here. `--rehearse` looks on a
node.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medarc_plugin.host import fields
from medarc_plugin.options import megabytes
from medarc_plugin.preflight.findings import memory_words, refused, warned
from medarc_plugin.preflight.target import Target, wish_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from medarc_plugin.models import JobPlan, Problem

LITTLE = 2**30
"""Bytes of free disk below which any run is short of it."""

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
"""File systems that no other machine can have."""

ON_A_DISK = frozenset(
    {
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "reiserfs",
        "vfat",
        "xfs",
        "zfs",
    }
)
"""File systems of this machine's own disks, which others have only where it exports them."""


@dataclass(frozen=True)
class Mount:
    """Where a path lies.

    Attributes:
        point: The folder where its file system is mounted.
        kind: The file system, `nfs4`, `lustre`, `ext4`.
    """

    point: str
    kind: str


def mount_of(path: Path, mounts: str) -> Mount | None:
    """Find the file system that a path lies on.

    Args:
        path: The path, of which not all needs to exist.
        mounts: What Linux tells in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    """
    found: Mount | None = None
    for line in mounts.splitlines():
        left, dash, right = line.partition(" - ")
        columns = left.split(" ")
        if not dash or len(columns) < 5:  # noqa: PLR2004 - the mount point is the fifth
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), columns[4])
        above = Path(point)
        # Of two on one point the later one hides the earlier.
        if (above == path or above in path.parents) and (found is None or len(point) >= len(found.point)):
            found = Mount(point, right.split(" ")[0])
    return found


def folders_are_shared(plan: JobPlan) -> Iterator[Problem]:
    """Run, project and prime-rl lie on file systems that the nodes can have too, by the looks of it."""
    if plan.cluster is None or _nodes_are_here(plan):
        return
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    places = {"the run directory": plan.run_dir, "the project directory": plan.launch.working_directory}
    if plan.resolved.host is not None and plan.resolved.checked:
        places["prime-rl"] = plan.resolved.host.directory or plan.resolved.host.python
    if plan.options.hf_hub_offline:
        from medarc_plugin.job.hub import hub_of

        places["the hub's cache"] = hub_of(variables_of(plan)).cache
    by_mount: dict[Mount, list[str]] = {}
    for name, path in places.items():
        mount = mount_of(Path(os.path.realpath(path)), mounts)
        if mount is not None and mount.kind in IN_MEMORY | ON_A_DISK:
            by_mount.setdefault(mount, []).append(f"{name} {path}")
    for mount, names in by_mount.items():
        yield _only_here(mount, names)


def _only_here(mount: Mount, names: list[str]) -> Problem:
    hint = "--output-dir, --project-dir and --prime-rl-dir name folders on a file system that the nodes share"
    lie = "lies" if len(names) == 1 else "lie"
    if mount.kind in IN_MEMORY:
        return refused(
            "file system",
            f"{' and '.join(names)} {lie} in the memory of this machine ({mount.kind} on {mount.point}), "
            "which no node can see",
            hint,
        )
    return warned(
        "file system",
        f"{' and '.join(names)} {lie} on a disk of this machine ({mount.kind} on {mount.point}), which the "
        "nodes see only where it is exported to them",
        f"{hint}; this is a guess from the kind of file system",
    )


def _nodes_are_here(plan: JobPlan) -> bool:
    """Whether every node that can take the job is this machine, or none is known."""
    facts = plan.cluster
    if facts is None or not facts.nodes:
        return True
    wish = wish_of(plan)
    targets = [
        Target(wish, one, facts)
        for one in map(facts.partition, wish.partitions or (None,))
        if one is not None
    ]
    if any(target.hidden for target in targets):
        return False
    nodes = [node for target in targets for node in target.nodes]
    name = socket.gethostname()
    here = {"localhost", name, name.partition(".")[0]}
    return all(node.host in here for node in nodes or facts.nodes)


def disk_has_room(plan: JobPlan) -> Iterator[Problem]:
    """The run directory's file system has room, for a checkpoint too where its size is known."""
    place = next((path for path in (plan.run_dir, *plan.run_dir.parents) if path.is_dir()), None)
    if place is None:
        return
    try:
        free = shutil.disk_usage(place).free
        no_files_left = (state := os.statvfs(place)).f_files > 0 and state.f_favail == 0
    except OSError:
        return
    wanted = megabytes(plan.options.min_free_disk) * 2**20 if plan.options.min_free_disk else 0
    words = f"{memory_words(free / 2**20)} are free for {plan.run_dir}"
    hint = "make room, or choose another --output-dir; a quota may leave less still"
    if no_files_left:
        yield refused("disk", f"the file system of {plan.run_dir} can take no more files", hint)
    elif free < wanted:
        asked = plan.options.min_free_disk
        yield refused("disk", f"{words}, and --min-free-disk {asked} ends a job with less at its start", hint)
    elif (checkpoint := _checkpoint(plan)) and free < checkpoint:
        yield warned(
            "disk", f"{words}, and a checkpoint takes about {memory_words(checkpoint / 2**20)}", hint
        )
    elif free < LITTLE:
        yield warned("disk", words, hint)


def _checkpoint(plan: JobPlan) -> int | None:
    from medarc_plugin.host.memory import checkpoint_bytes

    return checkpoint_bytes(plan.resolved, plan.options) if plan.resolved.saves else None


def variables_of(plan: JobPlan) -> dict[str, str]:
    """The environment that the run will have, as far as it can be told here.

    The submission passes this one on; the script sets some, and `.env` of the project directory others.
    """
    return {**os.environ, **plan.launch.environment, **_dotenv(plan.launch.working_directory)}


def _dotenv(folder: Path) -> dict[str, str]:
    """Read the plain assignments of a `.env`, which the job's shell sources."""
    try:
        text = (folder / ".env").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for name, value in re.findall(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*?)\s*$", text, re.MULTILINE):
        plain = value.partition(" #")[0].strip()
        found[name] = plain[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", plain) else plain
    return found


def wandb_has_a_key(plan: JobPlan) -> Iterator[Problem]:
    """A config that logs to Weights & Biases finds a key: nobody can type one in a job."""
    if not plan.resolved.wandb:
        return
    from medarc_plugin.job import needs

    variables = variables_of(plan)
    variables = {**needs.wandb_settings(plan.launch.working_directory, variables), **variables}
    if needs.without_wandb(plan.resolved.document, _looked_at(plan), variables):
        return
    if needs.has_wandb_key(variables):
        return
    problem = refused(
        "W&B",
        f"the config logs to {needs.wandb_address(variables)}, and there is no key for it: neither "
        "WANDB_API_KEY nor what `wandb login` keeps in ~/.netrc",
        "`wandb login` once, or export WANDB_API_KEY; --env WANDB_MODE=offline keeps all in the run "
        "directory",
    )
    yield _as_far_as_known(problem, plan)


def files_are_there(plan: JobPlan) -> Iterator[Problem]:
    """Models and data named by a path exist, and in offline mode the hub's cache has the others."""
    if not plan.resolved.document:
        return
    from medarc_plugin.job import hub, needs

    wanted = needs.files(plan.resolved.document, _looked_at(plan))
    place = hub.hub_of(variables_of(plan))
    kinds: tuple[tuple[str, str, Callable[[str], hub.Found], bool], ...] = (
        ("models", "model", lambda name: hub.find_model(place, name), place.offline),
        ("tokenizers", "tokenizer", lambda name: hub.find_model(place, name, weights=False), place.offline),
        ("data", "data set", lambda name: hub.find_data(place, name), place.data_offline),
        # A taskset may bring texts of its own under a name that is no repository.
        ("environment_data", "data set", lambda name: hub.find_data(place, name), place.data_offline),
    )
    for kind, check, find, offline in kinds:
        for name in wanted.get(kind, ()):
            path = hub.local_path(name)
            problem = None
            if path is not None:
                problem = _missing_path(plan, check, path)
            elif offline and not (plan.launch.working_directory / name).exists():
                found = find(name)
                problem = None if found.there else refused(check, found.text, found.hint or None)
            if problem is not None:
                known = kind != "environment_data"
                yield _as_far_as_known(problem if known else replace(problem, fatal=False), plan)


def _missing_path(plan: JobPlan, check: str, path: Path) -> Problem | None:
    """A path of the config that is not there; what an earlier job is still to write may be there in time."""
    from medarc_plugin.host.architecture import is_of_a_run

    whole = plan.launch.working_directory / path
    if whole.exists() or plan.options.dependency:
        return None
    if is_of_a_run(whole):
        return warned(
            check,
            f"{whole} is not there yet: the job fails at its start unless the run has written it by then",
            "--dependency afterok:JOB lets it wait for that run's job",
        )
    return refused(
        check,
        f"{whole} is not there",
        "give the path as the nodes see it, on a file system that they share, or the name of a repository",
    )


def checkpoint_is_there(plan: JobPlan) -> Iterator[Problem]:
    """What the run is to go on from is in its directory, unless a job before it is still to save it."""
    if not plan.resolved.resume or not plan.resolved.document or plan.options.dependency:
        return
    from medarc_plugin.job.checkpoints import checkpoints_of
    from medarc_plugin.job.config import asked_to_resume
    from medarc_plugin.job.launch import fields_of

    known = fields_of(_job_fields(plan))
    wanted = asked_to_resume(plan.resolved.document, known)
    checkpoints = checkpoints_of(
        plan.resolved.document, plan.run_dir, plan.resolved.entrypoint, known.orchestrator_folder
    )
    # What lies elsewhere may lie where the nodes alone can see it.
    if wanted is None or wanted.get("dir") or not checkpoints.folder.is_relative_to(plan.run_dir):
        return
    whole = [step for step, is_whole in checkpoints.steps().items() if is_whole]
    step = wanted.get("step")
    if step is None and not whole:
        yield warned("resume", f"no checkpoint is in {plan.run_dir}: the run starts from the beginning")
    elif step is not None and step not in whole:
        yield _as_far_as_known(
            refused(
                "resume",
                f"no whole checkpoint of step {step} is in {checkpoints.folder}",
                f"there are: {', '.join(map(str, whole))}; --resume takes the newest"
                if whole
                else "there is none: --resume alone starts from the beginning",
            ),
            plan,
        )


def _job_fields(plan: JobPlan) -> Mapping[str, Any]:
    """What a job knows of a config of this shape."""
    return fields.for_job(plan.resolved.entrypoint, fields.SHAPES[plan.resolved.shape])


def _looked_at(plan: JobPlan) -> Mapping[str, object]:
    """Where a config of this shape names models, data and W&B."""
    found: Mapping[str, object] = _job_fields(plan)["rehearsal"]
    return found


def _as_far_as_known(problem: Problem, plan: JobPlan) -> Problem:
    """Warn of what a rehearsal is to find out, modules and setup lines may set, or a person may type."""
    may_set = plan.launch.setup or plan.launch.modules or plan.template_path
    may_find_out = plan.launch.rehearse or plan.backend == "local"
    return replace(problem, fatal=False) if may_set or may_find_out else problem


CHECKS: tuple[Callable[[JobPlan], Iterator[Problem]], ...] = (
    folders_are_shared,
    disk_has_room,
    wandb_has_a_key,
    files_are_there,
    checkpoint_is_there,
)
"""What is looked at before a submission, unless `--no-preflight` is given."""
