"""A private accounting that sandboxes share: MariaDB, slurmdbd and munge in a folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from medarc_plugin.sandbox.controller import client_environment
from medarc_plugin.sandbox.ports import free_ports, is_served
from medarc_plugin.sandbox.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr", "munged")

SECONDS = 30.0


def missing() -> list[str]:
    """Name the programs that are not on this machine."""
    return [name for name in PROGRAMS if _find(name) is None]


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Accounting:
    """A slurmdbd with its database, for any number of clusters.

    Args:
        folder: Where everything goes; its path must be short, for the sockets, and searchable by all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database_port, self.port = free_ports(2)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def lines(self, cluster: str, *, comments: bool) -> tuple[str, ...]:
        """Lines of slurm.conf of a cluster that is accounted here.

        Args:
            cluster: Its name.
            comments: Whether accounting keeps the jobs' comments.
        """
        return (
            f"ClusterName={cluster}",
            f"AuthInfo=socket={self.folder}/munge,cred_expire=5",
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={self.port}",
            f"AccountingStoragePass={self.folder}/munge",
            *(["AccountingStoreFlags=job_comment"] if comments else []),
        )

    def up(self, *clusters: str) -> None:
        """Start everything, and make known these clusters and this user."""
        user = getpass.getuser()
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._start(
            *("munged", "--foreground", "--force", f"--socket={self.folder}/munge", f"--key-file={key}"),
            *(f"--seed-file={self.folder}/munge.seed", f"--pid-file={self.folder}/munged.pid"),
            f"--log-file={self.folder}/munged.log",
        )
        data = self.folder / "data"
        self._run(
            *("mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        self._start(
            *("mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}"),
            *(f"--socket={self.folder}/db", "--bind-address=127.0.0.1", f"--port={self.database_port}"),
            *(f"--pid-file={self.folder}/db.pid", f"--log-error={self.folder}/db.log"),
            *("--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"),
            "--innodb-lock-wait-timeout=900",
        )
        assert wait_until(lambda: is_served(self.database_port), SECONDS), "MariaDB does not listen"
        (self.folder / "slurm.conf").write_text(
            "SlurmctldHost=localhost(127.0.0.1)\nAuthType=auth/munge\nNodeName=none\n"
            + "\n".join(self.lines("none", comments=False))
            + "\n"
        )
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={self.folder}/munge\nDbdHost={socket.gethostname()}\n"
            f"DbdAddr=127.0.0.1\nDbdPort={self.port}\nSlurmUser={user}\n"
            "StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={self.database_port}\nStorageUser=root\nStorageLoc=accounts\n"
            f"PidFile={self.folder}/slurmdbd.pid\nLogFile={self.folder}/slurmdbd.log\n"
        )
        conf.chmod(0o600)
        self.boot()
        for cluster in clusters:
            self.manage("add", "cluster", cluster)
        self.manage("add", "account", "lab", "Description=lab", "Organization=lab")
        self.manage("add", "user", user, "Account=lab", "DefaultAccount=lab")

    def boot(self) -> None:
        """Start slurmdbd."""
        self._start("slurmdbd", "-D")
        assert wait_until(lambda: is_served(self.port), SECONDS), "slurmdbd does not listen"

    def manage(self, *argv: str) -> None:
        """Change something with sacctmgr."""
        self._run("sacctmgr", "-i", "-Q", *argv)

    def kill(self, name: str) -> None:
        """Kill one of the daemons."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one of the daemons: SIGSTOP makes it hang."""
        self.processes[name].send_signal(number)

    def down(self) -> None:
        """End everything."""
        for name in [*self.processes][::-1]:
            self.kill(name)

    def _environment(self) -> dict[str, str]:
        return client_environment(str(self.folder / "slurm.conf"))

    def _start(self, name: str, *argv: str) -> None:
        self.processes[name] = subprocess.Popen(
            [_find(name) or name, *argv],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _run(self, *argv: str) -> None:
        done = subprocess.run(
            [_find(argv[0]) or argv[0], *argv[1:]],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
