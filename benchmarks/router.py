"""Measure when vLLM's router finds a server that has begun to listen, and what it logs, alone and in jobs.

    uv run --with vllm-router==0.1.17 python benchmarks/router.py [--late SECONDS ...]

The server is a stand-in that answers everything, and begins some seconds after the router, as vLLM does. The
router is the real one, started with the arguments that prime-rl gives it.
"""

from __future__ import annotations

import argparse
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from medarc_plugin.host.fields import ROUTER_METRICS
from medarc_plugin.job.ports import take
from medarc_plugin.job.wrappers import ROUTER, prompt_router

INSTALLED = "uv run --with vllm-router==0.1.17 python benchmarks/router.py"

REQUESTS = 50

LONGEST = 60.0
"""Seconds after which a router is given up; it looks for its server every 30."""


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200, and says nothing about it."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        """Answer a request for a completion."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def measure(variables: dict[str, str], late: float, log: Path) -> tuple[float, float]:
    """Start a router, and a server behind it some seconds later.

    Args:
        variables: The router's environment.
        late: How many seconds later.
        log: Where what the router says is written.

    Returns:
        Seconds from the server's first answer to the router's, and bytes that the router logs for an answer.
    """
    lease = take(8, (ROUTER_METRICS,))
    port, behind = lease.first + 1, lease.first + 2
    command = [
        *(shutil.which(ROUTER, path=variables["PATH"]) or ROUTER, "--policy", "consistent_hash"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", f"http://127.0.0.1:{behind}", "--intra-node-data-parallel-size", "1"),
        *("--request-id-headers", "x-session-id", "--worker-startup-timeout-secs", "4200"),
        *("--prometheus-port", str(port + ROUTER_METRICS)),
    ]
    with (
        log.open("wb") as said,
        subprocess.Popen(command, env=variables, stdout=said, stderr=said) as router,
    ):
        try:
            time.sleep(late)
            with http.server.ThreadingHTTPServer(("127.0.0.1", behind), Healthy) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                seconds = opened_after(router, port, log)
                before = log.stat().st_size
                for number in range(REQUESTS):
                    ask(port, f"session-{number}")
                server.shutdown()
                return seconds, (log.stat().st_size - before) / REQUESTS
        finally:
            router.terminate()


def opened_after(router: subprocess.Popen[bytes], port: int, log: Path) -> float:
    """Seconds until a router opens its port."""
    began = time.monotonic()
    while router.poll() is None and time.monotonic() < began + LONGEST:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return time.monotonic() - began
    sys.stderr.write(log.read_text(errors="replace"))
    ended = f"ended with {router.returncode}" if router.returncode else f"was not there after {LONGEST:.0f} s"
    sys.exit(f"error: {ROUTER} {ended}")


def ask(port: int, session: str) -> None:
    """Ask a router for a completion, as an environment does."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=b'{"model": "any", "messages": [{"role": "user", "content": "any"}]}',
        headers={"Content-Type": "application/json", "X-Session-Id": session},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def delay(word: str) -> float:
    """A number of seconds that one can wait."""
    seconds = float(word)
    if not 0 <= seconds < 3600:  # noqa: PLR2004 - an hour; no infinity and no nan
        raise argparse.ArgumentTypeError(f"{word} is not between 0 and an hour")
    return seconds


def main() -> None:
    """Print a line for each delay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--late", type=delay, nargs="+", default=[6.0, 20.0, 29.0], metavar="SECONDS")
    late = parser.parse_args().late
    variables = dict(os.environ)
    if shutil.which(ROUTER) is None:
        sys.exit(f"error: there is no {ROUTER}\nhint: {INSTALLED}")
    print("vLLM listens after | the router finds it, alone | as jobs start it | log for an answer | in jobs")
    with tempfile.TemporaryDirectory() as folder:
        prompt = prompt_router(variables, Path(folder))
        for seconds in late:
            (found, logged), (ours, less) = (
                measure(how, seconds, Path(folder) / "log") for how in (variables, prompt)
            )
            print(
                f"{seconds:16.1f} s | + {found:22.1f} s | + {ours:12.1f} s | {logged:15.0f} B | {less:5.0f} B"
            )


if __name__ == "__main__":
    main()
