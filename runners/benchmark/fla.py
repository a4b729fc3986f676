"""Times of flash-linear-attention's kernels; `python -m runners.benchmark.fla` prints JSON.

They run in PyTorch, which shares neither a process nor the GPU's memory well with JAX: `fla_times`
starts this module on its own, in the quarter of the memory that JAX leaves by default.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_SIZES = ((8, 4096, 16, 128, 128), (8, 4096, 16, 64, 64))  # B, T, H, K, V
OPERATORS = {  # function of fla.ops -> operator
    "chunk_gla": "gated_linear_attention",
    "chunk_gated_delta_rule": "gated_delta_rule",
    "chunk_delta_rule": "gated_delta_rule",
}


def fla_times(sizes: Sequence[Sequence[int]] = _SIZES) -> list[dict[str, Any]]:
    """Times in bfloat16, with all gradients; raises RuntimeError saying why there are none.

    Returns:
      A dict for every kernel, shape and direction: operator, sizes, dtype, candidate, direction
      and seconds as in `runners.benchmark.operators.OperatorTiming`, besides device and versions.
    """
    shapes = [text for shape in sizes for text in ("--sizes", *map(str, shape))]
    command = [sys.executable, "-m", "runners.benchmark.fla", *shapes]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def obstacle() -> str | None:
    """The reason why nothing can be timed here, or None."""
    for module, package in (("torch", "torch"), ("fla", "fla-core")):
        if importlib.util.find_spec(module) is None:
            return f"flash-linear-attention needs {package}: pip install {package}"
    import torch

    seen = torch.cuda.is_available()
    return None if seen else "flash-linear-attention needs a CUDA GPU, and PyTorch sees none"


def _measure(name: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    import fla.ops
    import torch

    inputs = _inputs(name, *sizes)
    call = functools.partial(getattr(fla.ops, name), **inputs, output_final_state=True)
    cotangents = [torch.randn_like(output) for output in call()]
    runs = {
        "forward": torch.no_grad()(call),
        "forward+backward": lambda: torch.autograd.grad(call(), list(inputs.values()), cotangents),
    }
    row = {
        "operator": OPERATORS[name],
        "sizes": dict(zip("BTHKV", sizes, strict=True)),
        "dtype": "bfloat16",
        "candidate": f"fla {name}",
        "device": torch.cuda.get_device_name(),
        "versions": {p: importlib.metadata.version(p) for p in ("fla-core", "torch")},
    }
    return [row | {"direction": d, "seconds": _seconds(run)} for d, run in runs.items()]


def _inputs(name: str, B: int, T: int, H: int, K: int, V: int) -> dict[str, Any]:
    """Values as in `pallas_kernels/<operator>/shapes.py`; log-decays and states in float32."""
    import torch

    normal = functools.partial(torch.randn, device="cuda")
    q, k, v = normal(B, T, H, K), normal(B, T, H, K) * K**-0.5, normal(B, T, H, V)
    inputs = {"q": q.bfloat16(), "k": k.bfloat16(), "v": v.bfloat16()}
    inputs["initial_state"] = normal(B, H, K, V)
    if name != "chunk_delta_rule":
        gate = (B, T, H, K) if name == "chunk_gla" else (B, T, H)
        inputs["g"] = torch.nn.functional.logsigmoid(3 + normal(*gate))
    if name != "chunk_gla":
        inputs["beta"] = normal(B, T, H).sigmoid().bfloat16()
    return {letter: x.requires_grad_() for letter, x in inputs.items()}


def _seconds(run: Callable[[], Any], rounds: int = 20) -> float:
    """Median by the GPU's clock; the calls queue up, which hides Python's time."""
    import torch

    for _ in range(3):  # the first call compiles and tunes
        run()
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks)) / 1e3


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m runners.benchmark.fla", description=__doc__)
    parser.add_argument("--sizes", nargs=5, type=int, action="append", metavar=tuple("BTHKV"))
    options = parser.parse_args(argv)
    if (why := obstacle()) is not None:
        parser.exit(1, f"runners.benchmark.fla: {why}\n")
    rows = [r for c in itertools.product(OPERATORS, options.sizes or _SIZES) for r in _measure(*c)]
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
