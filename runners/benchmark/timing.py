"""Wall-clock times of compiled functions, in interleaved rounds: shared machines drift."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

_SAMPLE_SECONDS = 0.02  # a sample lasts at least this long
_BUDGET_SECONDS = 10.0  # after this much a slow candidate has been measured often enough


@dataclasses.dataclass(frozen=True)
class CompiledFunction:
    """A function compiled for arguments of given shapes, and the costs of compiling it.

    Attributes:
      run: takes the arguments.
      compile_seconds: tracing, lowering and compilation, without any cache.
      temporary_bytes: memory besides arguments and results, as the compiler counts it.
    """

    run: Callable[..., Any]
    compile_seconds: float
    temporary_bytes: int


def compiled(function: Callable[..., Any], *args: Any) -> CompiledFunction:
    """Compiles `function` for `args`, arrays or `jax.ShapeDtypeStruct`."""
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        start = time.perf_counter()
        program = jax.jit(function).lower(*args).compile()
        seconds = time.perf_counter() - start
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)
    return CompiledFunction(program, seconds, program.memory_analysis().temp_size_in_bytes)


def alternate(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, budget: float | None = None
) -> dict[str, list[float]]:
    """Seconds per call of each candidate, one sample a round, the candidates in turn.

    An untimed call goes before each sample: the first after another candidate finds that one's
    data in the caches, and pays for the pages that the allocator had given back.

    Args:
      candidates: {name: the call}.
      rounds: samples of each, at most.
      budget: seconds after which a candidate is measured no more; None is ten.

    Returns:
      {name: one sample for each round it took part in, in order}.
    """
    budget = _BUDGET_SECONDS if budget is None else budget
    calls, samples = {}, {name: [] for name in candidates}
    for name, call in candidates.items():
        jax.block_until_ready(call())
        calls[name] = max(1, math.ceil(_SAMPLE_SECONDS / _time(call, 1)))
    for _ in range(rounds):
        for name, call in candidates.items():
            if not samples[name] or sum(samples[name]) * (calls[name] + 1) < budget:
                jax.block_until_ready(call())
                samples[name].append(_time(call, calls[name]))
    return samples


def median(samples: list[float]) -> float:
    """Median of the samples."""
    return statistics.median(samples)


def ratio(samples: list[float], baseline: list[float]) -> float:
    """Median over rounds of sample / baseline, where both were measured."""
    return statistics.median(a / b for a, b in zip(samples, baseline, strict=False))


def slope(lengths: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent p of seconds ∝ length^p, by least squares on logarithms."""
    return float(np.polyfit(np.log(lengths), np.log(seconds), 1)[0])


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough for a table."""
    return (str(error) or type(error).__name__).splitlines()[0][:100]


def _time(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls
