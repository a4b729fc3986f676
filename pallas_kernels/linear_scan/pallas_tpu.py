"""The linear recurrence on a TPU: blocks of time in sequence, the state in VMEM between them.

The grid is (batch blocks, width blocks, time blocks). Every row of a block is one step for some
thousand independent numbers: enough to hide the latency of the chain c ← a c + x behind its loads.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import dispatch
from pallas_kernels.linear_scan import gradient
from pallas_kernels.linear_scan import step as steps

_TILE = 16  # steps of a vector register of bfloat16: a single row of one cannot be read
_ROW = 1024  # numbers in a row: eight vector registers, of which a row fills one sublane each
_BLOCK = 2**17  # numbers in a block; three arrays, double buffered, float32: 3 MiB


def _blocks(batch: int, length: int, width: int, planes: int) -> tuple[int, int, int]:
    """The block of [B, T, D]; T and D may be past the end of the arrays."""
    block_d = min(width, _ROW)
    lanes = pl.cdiv(block_d, 128) * 128
    block_b = min(batch, _ROW // lanes)
    tiles = min(pl.cdiv(length, _TILE), _BLOCK // (block_b * lanes * planes * _TILE))
    return block_b, tiles * _TILE, block_d


def _kernel(*refs, planes: int, length: int, reverse: bool, decay_after: bool):
    a_refs, x_refs, c_refs, y_refs, last_refs, carry_refs = (
        refs[i : i + planes] for i in range(0, 6 * planes, planes)
    )
    block, blocks = pl.program_id(2), pl.num_programs(2)
    steps_per_block = y_refs[0].shape[1]
    tiles = steps_per_block // _TILE
    start = (blocks - 1 - block if reverse else block) * steps_per_block
    whole = length % steps_per_block == 0

    @pl.when(block == 0)
    def _():
        for carry, c in zip(carry_refs, c_refs, strict=True):
            carry[...] = c[...]

    def tile(i, c):
        first = pl.multiple_of((tiles - 1 - i if reverse else i) * _TILE, _TILE)
        here = pl.ds(first, _TILE)
        a, x = (
            tuple(ref[:, here, :].astype(jnp.float32) for ref in refs) for refs in (a_refs, x_refs)
        )
        ys = [None] * _TILE
        for t in reversed(range(_TILE)) if reverse else range(_TILE):
            a_t, x_t = (tuple(plane[:, t : t + 1, :] for plane in v) for v in (a, x))
            ys[t], c_next = steps.step(a_t, x_t, c, decay_after)
            # Rows past the end hold anything; they are not written, and must not reach the state.
            c = c_next if whole else steps.where(start + first + t < length, c_next, c)
        for ref, rows in zip(y_refs, zip(*ys, strict=True), strict=True):
            ref[:, here, :] = jnp.concatenate(rows, axis=1).astype(ref.dtype)
        return c

    c = jax.lax.fori_loop(0, tiles, tile, tuple(ref[...] for ref in carry_refs))
    for carry, last, value in zip(carry_refs, last_refs, c, strict=True):
        carry[...] = value
        last[...] = value


def _scan(
    a: jax.Array, x: jax.Array, c: jax.Array, reverse: bool, decay_after: bool
) -> tuple[jax.Array, jax.Array]:
    """See `gradient`."""
    batch, length, width = x.shape
    planes = 2 if jnp.iscomplexobj(c) else 1
    block_b, block_t, block_d = _blocks(batch, length, width, planes)
    grid = tuple(pl.cdiv(n, m) for n, m in ((batch, block_b), (width, block_d), (length, block_t)))

    def sequence_map(b, d, t):
        return b, grid[2] - 1 - t if reverse else t, d

    sequence = pl.BlockSpec((block_b, block_t, block_d), sequence_map)
    state = pl.BlockSpec((block_b, 1, block_d), lambda b, d, t: (b, 0, d))
    dtype = jnp.float32 if planes == 2 else jnp.result_type(a, x)
    results = pl.pallas_call(
        functools.partial(
            _kernel, planes=planes, length=length, reverse=reverse, decay_after=decay_after
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, dtype)] * planes
        + [jax.ShapeDtypeStruct((batch, 1, width), jnp.float32)] * planes,
        grid=grid,
        in_specs=[sequence] * (2 * planes) + [state] * planes,
        out_specs=[sequence] * planes + [state] * planes,
        scratch_shapes=[pltpu.VMEM((block_b, 1, block_d), jnp.float32)] * planes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=dispatch.current_target().interpret,
        name="linear_scan",
    )(*steps.split(a, planes), *steps.split(x, planes), *steps.split(c[:, None], planes))
    return steps.join(results[:planes]), steps.join(results[planes:])[:, 0]


linear_scan = gradient.differentiable(_scan)
