"""The gated delta rule on a GPU, by Pallas' Triton lowering: one program for some columns of V.

The columns of the state do not meet: a program takes one sequence and a block of them, and walks
through the chunks with its part of the state in registers. What the columns share, the inverse
above all, each program computes for itself; the gradients of what they share are added up outside.
Chunks of 32 steps keep the tiles of the backward pass small. None of this has been measured on a
GPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.gated_delta_rule import kernels
from pallas_kernels.matrix_state import KernelOptions

_SIZE = 32  # C


def _columns(inputs: kernels.Inputs) -> int:
    """Of V in a program: its part of the state is 64 numbers for each thread, or fewer."""
    key_width, value_width = inputs[1].shape[-1], inputs[2].shape[-1]
    return min(value_width, 64, max(16, 8192 // key_width))


def _chunk(refs, i) -> kernels.Inputs:
    q, k, v, beta, g = refs
    here = pl.ds(i * _SIZE, _SIZE)
    return q[here, :], k[here, :], v[here, :], beta[i], g[i]


def _forward_kernel(q, k, v, beta, g, initial, o, last, *entering, options: KernelOptions):
    def step(i, S):
        for ref in entering:
            ref[i] = S
        output, S = kernels.forward(options, _chunk((q, k, v, beta, g), i), S)
        o[pl.ds(i * _SIZE, _SIZE), :] = output.astype(o.dtype)
        return S

    last[...] = jax.lax.fori_loop(0, g.shape[0], step, initial[...])


def _backward_kernel(
    q, k, v, beta, g, entering, do, dlast, dq, dk, dv, dbeta, dg, dinitial, *, options
):
    chunks = g.shape[0]

    def step(n, dS):
        i = chunks - 1 - n
        here = pl.ds(i * _SIZE, _SIZE)
        gradients, dS = kernels.backward(
            options, _chunk((q, k, v, beta, g), i), entering[i], do[here, :], dS
        )
        for ref, gradient in zip((dq, dk, dv), gradients[:3], strict=True):
            ref[here, :] = gradient.astype(ref.dtype)
        dbeta[i], dg[i] = gradients[3:]
        return dS

    dinitial[...] = jax.lax.fori_loop(0, chunks, step, dlast[...])


def _specs(inputs: kernels.Inputs) -> tuple[list[pl.BlockSpec], ...]:
    """Of the inputs, of a state per sequence and of a state per chunk."""
    k, g = inputs[1], inputs[4]
    length, width = k.shape[1:]
    chunks, columns = g.shape[1], _columns(inputs)
    keys = pl.BlockSpec((None, length, width), lambda m, c: (m, 0, 0))
    values = pl.BlockSpec((None, length, columns), lambda m, c: (m, 0, c))
    gate = pl.BlockSpec((None, chunks, 1, _SIZE), lambda m, c: (m, 0, 0, 0))
    state = pl.BlockSpec((None, width, columns), lambda m, c: (m, 0, c))
    entering = pl.BlockSpec((None, chunks, width, columns), lambda m, c: (m, 0, 0, c))
    return [keys, keys, values, gate, gate], state, entering


def _call(body, options, inputs, in_specs, out_specs, out_shape):
    _, _, values, _, _ = inputs
    return pl.pallas_call(
        functools.partial(body, options=options),
        out_shape=out_shape,
        grid=(values.shape[0], values.shape[-1] // _columns(inputs)),
        in_specs=in_specs,
        out_specs=out_specs,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=options.interpret,
        name="gated_delta_rule",
    )


def _run_forward(options, inputs, state, keep):
    q, _, v, _, g = inputs
    sequence, once, each = _specs(inputs)
    entering = jax.ShapeDtypeStruct((*g.shape[:2], *state.shape[1:]), jnp.float32)
    return _call(
        _forward_kernel,
        options,
        inputs,
        [*sequence, once],
        [sequence[2], once] + [each] * keep,
        [
            jax.ShapeDtypeStruct(v.shape, q.dtype),
            jax.ShapeDtypeStruct(state.shape, jnp.float32),
        ]
        + [entering] * keep,
    )(*inputs, state)


def _run_backward(options, inputs, entering, do, dlast):
    sequence, once, each = _specs(inputs)
    blocks = inputs[2].shape[-1] // _columns(inputs)

    def partial_sum(x: jax.Array) -> tuple[pl.BlockSpec, jax.ShapeDtypeStruct]:
        """A gradient that every block of columns has a part of: [blocks, M, ...]."""
        rest = (0,) * (x.ndim - 1)
        spec = pl.BlockSpec((None, None, *x.shape[1:]), lambda m, c: (c, m, *rest))
        return spec, jax.ShapeDtypeStruct((blocks, *x.shape), jnp.float32)

    def whole(x: jax.Array, spec: pl.BlockSpec) -> tuple[pl.BlockSpec, jax.ShapeDtypeStruct]:
        return spec, jax.ShapeDtypeStruct(x.shape, x.dtype)

    q, k, v, beta, g = inputs
    outputs = [
        partial_sum(q),
        partial_sum(k),
        whole(v, sequence[2]),
        partial_sum(beta),
        partial_sum(g),
        whole(dlast, once),
    ]
    dq, dk, dv, dbeta, dg, dstate = _call(
        _backward_kernel,
        options,
        inputs,
        [*sequence, each, sequence[2], once],
        *zip(*outputs, strict=True),
    )(*inputs, entering, do, dlast)
    dq, dk, dbeta, dg = (
        jnp.sum(parts, axis=0).astype(x.dtype)
        for parts, x in zip((dq, dk, dbeta, dg), (q, k, beta, g), strict=True)
    )
    return (dq, dk, dv, dbeta, dg), dstate


def _padded(width: int) -> int:
    """Triton's tiles are powers of two, and its products at least 16 wide."""
    return max(16, pl.next_power_of_2(width))


gated_delta_rule = kernels.operator(_run_forward, _run_backward, _SIZE, _padded)
