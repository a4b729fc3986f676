"""The gated delta rule on a TPU: chunks in sequence, the state in VMEM between them.

The grid is (sequences, chunks). A chunk of 64 steps is short enough for its inverse to cost no more
than its products with the state, and long enough to fill a good part of the matrix unit. None of
this has been measured on a TPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.gated_delta_rule import kernels
from pallas_kernels.matrix_state import KernelOptions

_SIZE = 64  # C


def _forward_kernel(q, k, v, beta, g, initial, o, last, *refs, options: KernelOptions):
    *entering, S = refs

    @pl.when(pl.program_id(1) == 0)
    def _():
        S[...] = initial[...]

    for ref in entering:
        ref[...] = S[...]
    inputs = tuple(ref[...] for ref in (q, k, v, beta, g))
    output, left = kernels.forward(options, inputs, S[...])
    o[...] = output.astype(o.dtype)
    S[...] = last[...] = left


def _backward_kernel(
    q, k, v, beta, g, entering, do, dlast, dq, dk, dv, dbeta, dg, dinitial, dS, *, options
):
    @pl.when(pl.program_id(1) == 0)
    def _():
        dS[...] = dlast[...]

    inputs = tuple(ref[...] for ref in (q, k, v, beta, g))
    gradients, left = kernels.backward(options, inputs, entering[...], do[...], dS[...])
    for ref, gradient in zip((dq, dk, dv, dbeta, dg), gradients, strict=True):
        ref[...] = gradient.astype(ref.dtype)
    dS[...] = dinitial[...] = left


def _specs(inputs: kernels.Inputs, reverse: bool) -> tuple[list[pl.BlockSpec], ...]:
    """Of the inputs, of a state per sequence and of a state per chunk."""
    k, v, g = inputs[1], inputs[2], inputs[4]
    chunks = g.shape[1]

    def time(t):
        return chunks - 1 - t if reverse else t

    keys, values = (
        pl.BlockSpec((None, _SIZE, x.shape[-1]), lambda m, t: (m, time(t), 0)) for x in (k, v)
    )
    gate = pl.BlockSpec((None, None, 1, _SIZE), lambda m, t: (m, time(t), 0, 0))
    shape = k.shape[-1], v.shape[-1]
    state = pl.BlockSpec((None, *shape), lambda m, t: (m, 0, 0))
    entering = pl.BlockSpec((None, None, *shape), lambda m, t: (m, time(t), 0, 0))
    return [keys, keys, values, gate, gate], state, entering


def _call(body, options, state, grid, in_specs, out_specs, out_shape):
    return pl.pallas_call(
        functools.partial(body, options=options),
        out_shape=out_shape,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        scratch_shapes=[pltpu.VMEM(state.shape[1:], jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=options.interpret,
        name="gated_delta_rule",
    )


def _like(*arrays: jax.Array) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays]


def _run_forward(options, inputs, state, keep):
    q, v, g = inputs[0], inputs[2], inputs[4]
    sequence, once, each = _specs(inputs, reverse=False)
    entering = jax.ShapeDtypeStruct((*g.shape[:2], *state.shape[1:]), jnp.float32)
    return _call(
        _forward_kernel,
        options,
        state,
        g.shape[:2],
        [*sequence, once],
        [sequence[2], once] + [each] * keep,
        [jax.ShapeDtypeStruct(v.shape, q.dtype), *_like(state)] + [entering] * keep,
    )(*inputs, state)


def _run_backward(options, inputs, entering, do, dlast):
    sequence, once, each = _specs(inputs, reverse=True)
    *gradients, dstate = _call(
        _backward_kernel,
        options,
        dlast,
        inputs[4].shape[:2],
        [*sequence, each, sequence[2], once],
        [*sequence, once],
        _like(*inputs, dlast),
    )(*inputs, entering, do, dlast)
    return tuple(gradients), dstate


gated_delta_rule = kernels.operator(_run_forward, _run_backward, _SIZE, padded=lambda width: width)
