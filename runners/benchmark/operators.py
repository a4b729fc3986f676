"""Time, memory and error of every implementation of an operator, and of its baselines."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels
from pallas_kernels import dispatch
from pallas_kernels.baseline import baselines
from pallas_kernels.example import Example
from runners.benchmark import machine, timing
from runners.core import flops

PASSES = ("forward", "forward+backward")
_DEAREST = 30  # times the default's operations: a candidate with more is not run


@dataclasses.dataclass(frozen=True)
class OperatorTiming:
    """Measurement of one candidate at one shape in one direction.

    Attributes:
      operator: name of the public function.
      shape: name of the shape.
      sizes: letter -> size.
      dtype: of the activations.
      candidate: an implementation or a baseline.
      is_default: it is the implementation that None chooses.
      direction: "forward" or "forward+backward".
      skipped: why it was not run; then all that follows is None.
      seconds: median of the samples, each the mean of several calls.
      ratio: median over rounds of the candidate's time over the default's.
      compile_seconds: tracing, lowering and compilation.
      temporary_bytes: memory besides arguments and results, as the compiler counts it.
      bytes_per_second: size of inputs and outputs, over the time.
      copy_share: that over the machine's copy bandwidth.
      flops_per_second: operations counted in the candidate's program (in that of "xla" for a
        kernel), over the time.
      matmul_share: that over the machine's rate of matrix products.
      error: largest relative RMS over outputs and gradients, against "reference" on the same
        inputs in float32.
    """

    operator: str
    shape: str
    sizes: Mapping[str, int]
    dtype: str
    candidate: str
    is_default: bool
    direction: str
    skipped: str | None = None
    seconds: float | None = None
    ratio: float | None = None
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    bytes_per_second: float | None = None
    copy_share: float | None = None
    flops_per_second: float | None = None
    matmul_share: float | None = None
    error: float | None = None


def measure(
    example: Example,
    dtype: str,
    limits: machine.Limits,
    rounds: int,
    only: Sequence[str] | None = None,
) -> Iterator[OperatorTiming]:
    """Measures every candidate at one shape, forward, then forward and backward.

    Args:
      example: the inputs.
      dtype: of the activations.
      limits: of this machine.
      rounds: samples of each candidate.
      only: names of candidates; None is all that can run here.
    """
    arrays = example.arrays(jax.random.key(0), jnp.dtype(dtype))
    candidates = _candidates(example, arrays)
    if only is not None:
        candidates = {name: call for name, call in candidates.items() if name in only}
    backends = dispatch.backends(example.operator)
    kernels = {name for name, backend in backends.items() if backend.is_kernel}
    countable = {name: call for name, call in candidates.items() if name not in kernels}
    default = pallas_kernels.chosen(example.operator, **arrays, **example.options)
    outputs = jax.eval_shape(_reference(example), arrays)
    cotangents = [_random(i, o) for i, o in enumerate(outputs)]
    for direction in PASSES:
        make = functools.partial(
            OperatorTiming,
            example.operator,
            example.name,
            dict(example.sizes),
            dtype,
            direction=direction,
        )
        programs: dict[str, timing.CompiledFunction] = {}
        counts = _count(countable, direction, arrays, cotangents)
        bar = counts.get(default, 0)
        for name, call in candidates.items():
            found: timing.CompiledFunction | str
            if bar and counts.get(name, 0) > _DEAREST * bar:
                found = f"{counts[name] / bar:.0f} times the operations of {default}"
            else:
                found = _prepare(_directed(call, direction), arrays, cotangents)
            if isinstance(found, str):
                yield make(candidate=name, is_default=name == default, skipped=found)
            else:
                programs[name] = found
        runs = {
            name: functools.partial(program.run, arrays, cotangents)
            for name, program in programs.items()
        }
        samples = timing.alternate(runs, rounds)
        truth = _truth(example, direction, arrays, cotangents, programs, dtype)
        moved = _moved_bytes(direction, arrays, outputs)
        for name, program in programs.items():
            seconds = timing.median(samples[name])
            operations = counts.get(name, counts.get("xla", 0))
            yield make(
                candidate=name,
                is_default=name == default,
                seconds=seconds,
                ratio=timing.ratio(samples[name], samples[default]) if default in samples else None,
                compile_seconds=program.compile_seconds,
                temporary_bytes=program.temporary_bytes,
                bytes_per_second=moved / seconds,
                copy_share=moved / seconds / limits.copy,
                flops_per_second=operations / seconds,
                matmul_share=operations / seconds / limits.matmul[dtype],
                error=None if truth is None or name == "reference" else _error(runs[name](), truth),
            )


def _prepare(function: Callable[..., Any], *args: Any) -> timing.CompiledFunction | str:
    """The compiled program, or why it cannot run here.

    A kernel that this compiler or device refuses must not end the table, whatever it raises.
    """
    try:
        program = timing.compiled(function, *args)
    except Exception as error:
        return f"does not compile: {timing.first_line(error)}"
    if machine.lacks(program.temporary_bytes):
        return f"needs {program.temporary_bytes / 2**30:.1f} GiB"
    try:
        jax.block_until_ready(program.run(*args))
    except Exception as error:
        return f"does not run: {timing.first_line(error)}"
    return program


def _candidates(example: Example, arrays: Mapping[str, jax.Array]) -> dict[str, Callable[..., Any]]:
    """name -> function of the arrays with a tuple of outputs; those that can run here."""
    operator = getattr(pallas_kernels, example.operator)
    able = dispatch.available(example.operator, **arrays, **example.options)
    functions = {
        name: functools.partial(operator, implementation=name)
        for name, obstacle in able.items()
        if obstacle is None
    }
    functions |= baselines(example.operator)
    return {
        name: functools.partial(_call, function, example.options)
        for name, function in functions.items()
    }


def _call(
    function: Callable[..., Any], options: Mapping[str, Any], arrays: Mapping[str, jax.Array]
) -> tuple[jax.Array, ...]:
    result = function(**arrays, **options)
    return result if isinstance(result, tuple) else (result,)


def _reference(example: Example) -> Callable[..., tuple[jax.Array, ...]]:
    operator = getattr(pallas_kernels, example.operator)
    return functools.partial(
        _call, functools.partial(operator, implementation="reference"), example.options
    )


def _directed(call: Callable[..., Any], direction: str) -> Callable[..., Any]:
    """The program that is timed: a function of the arrays and the outputs' cotangents."""
    if direction == "forward":
        return lambda arrays, cotangents: call(arrays)

    def both(arrays: Any, cotangents: Any) -> Any:
        outputs, transpose = jax.vjp(call, arrays)
        cotangents = tuple(c.astype(o.dtype) for c, o in zip(cotangents, outputs, strict=True))
        return outputs, transpose(cotangents)[0]

    return both


def _count(
    candidates: Mapping[str, Callable[..., Any]], direction: str, arrays: Any, cotangents: Any
) -> dict[str, int]:
    """FLOPs by candidate."""
    return {
        name: flops.flops(_directed(call, direction), arrays, cotangents)
        for name, call in candidates.items()
    }


def _truth(
    example: Example,
    direction: str,
    arrays: Mapping[str, jax.Array],
    cotangents: Any,
    programs: Mapping[str, timing.CompiledFunction],
    dtype: str,
) -> Any:
    """Results of the reference in float32, where the reference could be run."""
    if "reference" not in programs:
        return None
    if dtype == "float32":
        return programs["reference"].run(arrays, cotangents)
    wide = {
        name: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for name, a in arrays.items()
    }
    return jax.jit(_directed(_reference(example), direction))(wide, cotangents)


def _error(results: Any, truth: Any) -> float:
    """Largest relative RMS over all arrays of a result."""
    pairs = zip(jax.tree.leaves(results), jax.tree.leaves(truth), strict=True)
    return max(_relative(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _relative(value: np.ndarray, truth: np.ndarray) -> float:
    if not np.iscomplexobj(value):
        value, truth = value.astype(np.float64), truth.astype(np.float64)
    size = np.sqrt(np.mean(np.abs(truth) ** 2))
    return float(np.sqrt(np.mean(np.abs(value - truth) ** 2)) / max(size, 1e-30))


def _moved_bytes(direction: str, arrays: Mapping[str, jax.Array], outputs: Any) -> int:
    """Forward reads the inputs and writes the outputs; backward reads both and writes gradients."""
    read = sum(a.nbytes for a in arrays.values())
    written = sum(o.size * o.dtype.itemsize for o in outputs)
    return read + written if direction == "forward" else (read + written) + (read + written + read)


def _random(seed: int, like: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), like.shape, like.dtype)
