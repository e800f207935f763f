"""Measure when vLLM's router finds a server that has begun to listen: by itself, and as jobs start it.

    uv run --with vllm-router==0.1.17 python benchmarks/router.py [--late SECONDS ...]

The server is a stand-in that answers `/health`, and begins some seconds after the router, as vLLM does. The
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
from pathlib import Path

from medarc_plugin.host.fields import ROUTER_METRICS
from medarc_plugin.job.ports import take
from medarc_plugin.job.wrappers import ROUTER, prompt_router

INSTALLED = "uv run --with vllm-router==0.1.17 python benchmarks/router.py"


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers every question with 200, and says nothing about it."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def found_after(variables: dict[str, str], late: float) -> float:
    """Seconds from a server's first answer to the router's; the server begins `late` seconds after it."""
    lease = take(8, (ROUTER_METRICS,))
    port, behind = lease.first + 1, lease.first + 2
    command = [
        *(
            shutil.which(ROUTER, path=variables["PATH"]) or ROUTER,
            "--policy",
            "consistent_hash",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ),
        *("--worker-urls", f"http://127.0.0.1:{behind}", "--intra-node-data-parallel-size", "1"),
        *("--request-id-headers", "x-session-id", "--worker-startup-timeout-secs", "4200"),
        *("--prometheus-port", str(port + ROUTER_METRICS)),
    ]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=variables, stdout=quiet, stderr=quiet) as router:
        try:
            time.sleep(late)
            with http.server.ThreadingHTTPServer(("127.0.0.1", behind), Healthy) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                began = time.monotonic()
                while router.poll() is None:
                    try:
                        socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    except OSError:
                        time.sleep(0.02)
                    else:
                        return time.monotonic() - began
                sys.exit(f"error: {ROUTER} ended with {router.returncode}")
        finally:
            router.terminate()


def main() -> None:
    """Print a line for each delay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--late", type=float, nargs="+", default=[6.0, 20.0, 29.0], metavar="SECONDS")
    late = parser.parse_args().late
    variables = dict(os.environ)
    if shutil.which(ROUTER) is None:
        sys.exit(f"error: there is no {ROUTER}\nhint: {INSTALLED}")
    print("vLLM listens after | the router as it is | as jobs start it")
    with tempfile.TemporaryDirectory() as folder:
        prompt = prompt_router(variables, Path(folder))
        for seconds in late:
            plain, ours = (found_after(how, seconds) for how in (variables, prompt))
            print(f"{seconds:16.1f} s | + {plain:15.1f} s | + {ours:10.1f} s")


if __name__ == "__main__":
    main()
