"""The linear recurrence on a GPU, by Pallas' Triton lowering: one warp for some columns of [T, D].

What counts is the number of bytes in flight: an H100 hides the latency of its memory (some 700 ns
at 3.35 TB/s) behind 2.3 MB of requests, 18 KB for each of 132 multiprocessors. A step of the
recurrence waits for the one before it, but its loads need not: several steps are loaded before the
first of them is computed.

Where B·D gives every multiprocessor several warps, each warp takes 32 columns and walks through
time. In float32 it has 32 steps of a and x in flight, 8 KB.

Where it does not, time must be split as well. A warp then takes 8 columns (32 bytes, the sector of
the memory) and, chunk by chunk, 32 segments of the chunk side by side:
  1. the product p of the decays of each segment, and its last state e for a start from zero;
  2. the state at the start of each segment, from one to the next: c ← p c + e;
  3. the recurrence from those starts.
The third reads what the first has read a moment ago, 64 KB in float32, which the caches still hold:
the memory sees each array once, as in a single pass. A warp has 8 steps of 32 × 8 numbers of a and
x in flight, 16 KB. A decay of zero makes p zero: nothing is ever divided.

None of this has been measured on a GPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels import dispatch
from pallas_kernels.linear_scan import gradient
from pallas_kernels.linear_scan import step as steps
from pallas_kernels.linear_scan.step import Planes

_MANY = 4 * 132 * 32  # columns: four warps of 32 for each multiprocessor of an H100
_STEPS = 32  # of a segment
_TOGETHER = 4  # segments whose p and e are looked up before the first c is needed


def _tile(columns: int, planes: int) -> tuple[int, int, int]:
    """(segments, columns, steps loaded together): 64 or 128 numbers in flight for each thread."""
    return (1, 32, 32 // planes) if columns >= _MANY else (32, 8, 8 // planes)


def _kernel(
    *refs, planes: int, tile: tuple[int, int, int], length: int, width: int, reverse, decay_after
):
    a_refs, x_refs, c_refs, y_refs, last_refs = (
        refs[i : i + planes] for i in range(0, 5 * planes, planes)
    )
    segments, columns, unroll = tile
    one, zero = (1.0, 0.0)[:planes], (0.0, 0.0)[:planes]

    def iota(axis, shape):
        return jax.lax.broadcasted_iota(jnp.int32, shape, axis)

    segment = iota(0, (segments, columns))
    column = pl.program_id(1) * columns + iota(1, (segments, columns))
    top = pl.program_id(1) * columns + iota(1, (1, columns))

    def full(values):
        return tuple(jnp.full((segments, columns), v, jnp.float32) for v in values)

    def load(t):
        """(a_t, x_t), past the end of time the neutral a = 1, x = 0."""
        mask = (t < length) & (column < width)
        return tuple(
            tuple(
                plgpu.load(ref.at[t, column], mask=mask, other=v).astype(jnp.float32)
                for ref, v in zip(refs, other, strict=True)
            )
            for refs, other in ((a_refs, one), (x_refs, zero))
        )

    def walk(body, first, state):
        """`body` of every step of the segments that begin at `first`, loads ahead of arithmetic."""

        def together(i, state):
            index = [i * unroll + u for u in range(unroll)]
            times = [first + (_STEPS - 1 - s if reverse else s) for s in index]
            for t, (a, x) in zip(times, [load(t) for t in times], strict=True):
                state = body(t, a, x, state)
            return state

        return jax.lax.fori_loop(0, _STEPS // unroll, together, state)

    def total(t, a, x, state):
        p, e = state
        return steps.multiply(a, p), steps.step(a, x, e, decay_after)[1]

    def emit(t, a, x, c):
        y, c = steps.step(a, x, c, decay_after)
        for ref, value in zip(y_refs, y, strict=True):
            mask = (t < length) & (column < width)
            plgpu.store(ref.at[t, column], value.astype(ref.dtype), mask=mask)
        return c

    def starts(p, e, c):
        """The state at the start of every segment, and after the last of them."""

        def row(v, here):
            return tuple(jnp.sum(jnp.where(here, u, 0), axis=0, keepdims=True) for u in v)

        def together(i, state):
            start, c = state
            for u in range(_TOGETHER):
                s = i * _TOGETHER + u
                here = segment == (segments - 1 - s if reverse else s)
                start = steps.where(here, c, start)
                c = steps.add(steps.multiply(row(p, here), c), row(e, here))
            return start, c

        return jax.lax.fori_loop(0, segments // _TOGETHER, together, (full(zero), c))

    chunk_steps = segments * _STEPS
    chunks = pl.cdiv(length, chunk_steps)

    def chunk(i, c):
        first = (chunks - 1 - i if reverse else i) * chunk_steps + segment * _STEPS
        if segments == 1:
            return walk(emit, first, c)
        start, c = starts(*walk(total, first, (full(one), full(zero))), c)
        walk(emit, first, start)
        return c

    c: Planes = tuple(plgpu.load(ref.at[top], mask=top < width, other=0.0) for ref in c_refs)
    c = jax.lax.fori_loop(0, chunks, chunk, c)
    for ref, value in zip(last_refs, c, strict=True):
        plgpu.store(ref.at[top], value, mask=top < width)


def _scan(
    a: jax.Array, x: jax.Array, c: jax.Array, reverse: bool, decay_after: bool
) -> tuple[jax.Array, jax.Array]:
    """See `gradient`."""
    batch, length, width = x.shape
    planes = 2 if jnp.iscomplexobj(c) else 1
    tile = _tile(batch * width, planes)
    sequence = pl.BlockSpec((None, length, width), lambda b, d: (b, 0, 0))
    state = pl.BlockSpec((None, width), lambda b, d: (b, 0))
    dtype = jnp.float32 if planes == 2 else jnp.result_type(a, x)
    results = pl.pallas_call(
        functools.partial(
            _kernel,
            planes=planes,
            tile=tile,
            length=length,
            width=width,
            reverse=reverse,
            decay_after=decay_after,
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, dtype)] * planes
        + [jax.ShapeDtypeStruct(c.shape, jnp.float32)] * planes,
        grid=(batch, pl.cdiv(width, tile[1])),
        in_specs=[sequence] * (2 * planes) + [state] * planes,
        out_specs=[sequence] * planes + [state] * planes,
        compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
        interpret=dispatch.current_target().interpret,
        name="linear_scan",
    )(*steps.split(a, planes), *steps.split(x, planes), *steps.split(c, planes))
    return steps.join(results[:planes]), steps.join(results[planes:])


linear_scan = gradient.differentiable(_scan)
