"""Does a second job compile again? Two jobs one after the other, each with caches of its own.

    uv run python benchmarks/compile_caches.py --python PRIME_RL_PYTHON [--device cuda|cpu]

Needs an interpreter with torch, and on a GPU Triton. The first job starts cold and gives its compiled code
back; the second one is seeded with it, in a folder of another name, when the first one's is gone. Each
compiles a model by torch.compile and, as vLLM does, stores an artifact under its absolute path.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from medarc_plugin.job import caches, warm

WORK = """
import ast, json, pathlib, sys, os
import torch
from torch._dynamo.utils import counters
from torch._inductor import CompiledArtifact, standalone_compile
from torch.fx.experimental.proxy_tensor import make_fx

device = sys.argv[1]
model = torch.nn.Sequential(
    torch.nn.LayerNorm(256), torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256)
).to(device)
inputs = torch.randn(64, 256, device=device, requires_grad=True)
torch.compile(model)(inputs).square().mean().backward()

def traced(x):
    return [torch.nn.functional.gelu(x @ x.T).sum(-1)]

root = pathlib.Path(os.environ["VLLM_CACHE_ROOT"])
index, y = root / "index.py", torch.randn(64, 64, device=device)
artifact = "compiled"
if index.exists():
    try:
        load = CompiledArtifact.load(path=ast.literal_eval(index.read_text()), format="binary")
        assert torch.allclose(load(y)[0], traced(y)[0], atol=1e-2)
        artifact = "loaded"
    except OSError as error:
        artifact = f"lost: {error}"
else:
    root.mkdir(parents=True, exist_ok=True)
    made = standalone_compile(make_fx(traced)(y), [y], dynamic_shapes="from_example_inputs")
    made.save(path=str(root / "artifact"), format="binary")
    index.write_text(repr(str(root / "artifact")))
found = counters["inductor"]
print("\\n" + json.dumps({
    "hits": found["fxgraph_cache_hit"], "misses": found["fxgraph_cache_miss"], "artifact": artifact,
}))
"""


def run_job(python: str, device: str, given: dict[str, str], copy: warm.Warm) -> dict[str, Any]:
    """Run one job's work in caches of its own, and say what it compiled."""
    made = caches.make(given, copy)
    began = time.perf_counter()
    done = subprocess.run(
        [python, "-c", WORK, device],
        env={**given, **made.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    remarks = [*made.remarks, made.give_back() or ""]
    made.remove()
    return {**result, "seconds": seconds, "remarks": remarks}


def main() -> None:
    """Run both jobs, and print a table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    variables = {**os.environ, "HOME": str(home), "MEDARC_CACHE_DIR": str(home / "warm")}
    try:
        copy = warm.Warm.find(variables, ["benchmark"], 4 * 2**30)
        jobs = [run_job(given.python, given.device, variables, copy) for _ in range(2)]
    finally:
        shutil.rmtree(home)
    print(f"{'job':<8} {'graphs compiled':>15} {'from cache':>11} {'seconds':>8}  stored artifact")
    for name, job in zip(("cold", "seeded"), jobs, strict=True):
        counts = f"{job['misses']:>15} {job['hits']:>11} {job['seconds']:>8.1f}"
        print(f"{name:<8} {counts}  {job['artifact']}")
        for remark in filter(None, job["remarks"]):
            print(f"         {remark}")


if __name__ == "__main__":
    main()
