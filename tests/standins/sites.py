"""Clusters that were captured: what SLURM 22.05 printed there, as answers and as commands."""

import json
import shlex
import shutil
import sys
from pathlib import Path

from medarc_plugin.process import Completed
from medarc_plugin.slurm import cluster

SITES = Path(__file__).parents[1] / "captured" / "sites"
VERSIONS_FOLDER = SITES.with_name("cluster")
VERSIONS = sorted(path.name for path in VERSIONS_FOLDER.iterdir())
NAMES = sorted(path.name for path in SITES.iterdir())
QUERIES = ("settings", "partitions", "nodes", "reservations", "associations", "accounts", "qos")
PROGRAMS = ("scontrol", "sacctmgr", "sinfo", "sbatch", "squeue", "scancel", "sacct")


def facts_of(site, user="me", groups=frozenset({"users"})):
    """What is known of a captured cluster."""
    return _facts(SITES / site, user, groups)


def facts_of_version(version, user="me", groups=frozenset({"users"})):
    """What is known of the cluster that was captured with several versions of SLURM."""
    return _facts(VERSIONS_FOLDER / version, user, groups)


def _facts(folder, user, groups):
    record = folder / "failed.json"
    failed = json.loads(record.read_text()) if record.exists() else {}

    def answer(what):
        if what in failed:
            return Completed((what,), failed[what]["code"], "", failed[what]["stderr"])
        return Completed((what,), 0, (folder / what).read_text(), "")

    return cluster.read({what: answer(what) for what in QUERIES}, user, groups)


def install_site(site, folder):
    """Put commands into a folder that answer as a captured cluster did; returns where refusals are noted."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "site_program.py"
    shutil.copy(Path(__file__).with_name("site_program.py"), program)
    for name in PROGRAMS:
        command = shlex.join([sys.executable, "-IS", str(program), str(SITES / site), name])
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)
    return folder / "refused"
