"""An interpreter that has imported prime-rl already: each command is a fork of it.

prime-rl's imports take ten seconds, the rest of a dry run less than one. `Warm` starts a given interpreter
once, has it import modules, and makes a program that answers `python SCRIPT ...`, `-m MODULE ...` and
`-c CODE ...` as that interpreter would, each in a process of its own that nothing was done in before.

Run as a file, this is the server (`warm.py serve ADDRESS MODULE...`) and the program's other half
(`warm.py ask ADDRESS ARGUMENTS...`); standard library only.
"""

import fcntl
import importlib
import json
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LONGEST = 1 << 20
"""Bytes of a question: arguments and variables."""

MOST_STREAMS = 32
"""Open files that come with a question."""

ABOVE = 500
"""Where no open file has its number."""


class Warm:
    """A running server and the program that asks it.

    Args:
        folder: A new folder for both; its path must be short enough for a socket.
        python: The interpreter.
        modules: What it imports before it answers.
        environment: Variables for it; `None` for this process's own.

    Attributes:
        python: The program that stands for the interpreter.
    """

    def __init__(
        self, folder: Path, python: Path, modules: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.python = folder / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        address = folder / "socket"
        ask = shlex.join([sys.executable, "-IS", __file__, "ask", str(address)])
        self.python.write_text(f'#!/bin/sh\nexec {ask} "$@"\n')
        self.python.chmod(0o755)
        self._server = subprocess.Popen(
            [python, "-W", "ignore", __file__, "serve", address, *modules],
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline() != "ready\n":
            raise RuntimeError(f"{python} cannot import {', '.join(modules)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()


def serve(address: str, modules: Sequence[str]) -> None:
    """Import, and answer until this process is ended."""
    sys.path.pop(0)  # the folder of this file, where nobody's command begins
    for module in modules:
        importlib.import_module(module)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(address)
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = server.accept()
        with connection:
            data, streams, _, _ = socket.recv_fds(connection, LONGEST, MOST_STREAMS)
            if data and os.fork() == 0:
                server.close()
                answer(connection, json.loads(data), streams)
            for stream in streams:
                os.close(stream)


def answer(connection: socket.socket, question: dict, streams: Sequence[int]) -> None:
    """Become the process that was asked for, and end as it does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Out of the way of the numbers that are wanted.
    connection = socket.socket(fileno=fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD, ABOVE))
    moved = [fcntl.fcntl(stream, fcntl.F_DUPFD, ABOVE) for stream in streams]
    for number, stream in zip(question["streams"], moved, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(question["environment"])
    os.chdir(question["folder"])
    warnings.resetwarnings()
    warnings.simplefilter("ignore", DeprecationWarning)
    code = run(question["arguments"])
    for file in (sys.stdout, sys.stderr):
        file.flush()
    connection.send(str(code).encode())
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Do what an interpreter does with a command line, and say how it ends."""
    head, *rest = arguments
    try:
        if head == "-m":
            sys.argv = rest
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif head == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(head).parent))
            runpy.run_path(head, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def is_open(number: int) -> bool:
    """Whether a file is open: the folder that told its number is not any more."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def ask(address: str, arguments: Sequence[str]) -> int:
    """Hand a command line and this process's open files to the server; return how it ended."""
    streams = [number for number in map(int, os.listdir("/proc/self/fd")) if is_open(number)]  # noqa: PTH208 - names alone
    question = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "streams": streams,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
        socket.send_fds(connection, [json.dumps(question).encode()], streams)
        code = connection.recv(16)
    return int(code or 70)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
