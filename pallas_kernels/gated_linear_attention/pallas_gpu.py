"""Gated linear attention on a GPU, by Pallas' Triton lowering.

Only the states need the chunks in order. One kernel computes them, with a program for each sequence
(one head of one batch element) and some columns of V, which walks through time and stores the state
that enters each chunk. In another every chunk of every sequence is a program of its own. The
backward pass has the same two kernels: the gradient of the state walks from the end to the start,
then the chunks are independent. `chunk` and `decay` have the equations.

The sizes are guesses: nothing has been measured on a GPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.gated_linear_attention import chunk, kernels
from pallas_kernels.gated_linear_attention.decay import decay
from pallas_kernels.matrix_state import KernelOptions, dot

_CHUNK = 32
_COLUMNS = 32  # of V, in one program of the kernel for the states


def _padded_width(width: int) -> int:
    """A power of two, and enough for the tensor cores."""
    return max(16, 1 << (width - 1).bit_length())


def _call(kernel, options: KernelOptions, state_shape: tuple[int, ...], **kwargs):
    return pl.pallas_call(
        functools.partial(kernel, options=options),
        compiler_params=plgpu.CompilerParams(
            num_warps=8 if max(state_shape) > 64 else 4, num_stages=1
        ),
        interpret=options.interpret,
        **kwargs,
    )


def _states_kernel(x, y, g, S_0, stored, last, *, options: KernelOptions, last_first: bool):
    chunks = stored.shape[0]

    def step(index, S):
        n = chunks - 1 - index if last_first else index
        here = pl.ds(n * options.size, options.size)
        x_n, y_n, g_n = jax.tree.map(lambda ref: ref[here, :].astype(jnp.float32), (x, y, g))
        decays = decay(g_n)
        y_n = options.scale * decays.prefix * y_n if last_first else decays.suffix * y_n
        stored[n, :, :] = S
        return decays.total * S + dot(x_n, y_n, options.precision, transpose="a")

    last[...] = jax.lax.fori_loop(0, chunks, step, S_0[...])


def _states(options, x, y, g, state, last_first=False):
    """S ← Γ_C0 S + Xᵀ diag(Γ) Y from chunk to chunk; see `chunk.update` and its gradient.

    Args:
      options: constants of the kernel.
      x: v, or from the last chunk to the first do [M, T, V].
      y: k, or q [M, T, K].
      g: [M, T, K], [M, T, 1] or None.
      state: before the first of these chunks [M, V, K].
      last_first: whether these are the gradients.

    Returns:
      (the states before each chunk [M, N, V, K], the state after all).
    """
    sequences, length, values = x.shape
    width, columns = y.shape[2], min(values, _COLUMNS)
    chunks = length // options.size

    def whole(x):
        return pl.BlockSpec((None, length, x.shape[2]), lambda m, c: (m, 0, 0))

    one_state = pl.BlockSpec((None, columns, width), lambda m, c: (m, c, 0))
    return _call(
        functools.partial(_states_kernel, last_first=last_first),
        options,
        (columns, width),
        grid=(sequences, values // columns),
        in_specs=[
            pl.BlockSpec((None, length, columns), lambda m, c: (m, 0, c)),
            *jax.tree.map(whole, (y, g)),
            one_state,
        ],
        out_specs=[
            pl.BlockSpec((None, chunks, columns, width), lambda m, c: (m, 0, c, 0)),
            one_state,
        ],
        out_shape=[
            kernels.states(options, x, state),
            jax.ShapeDtypeStruct(state.shape, jnp.float32),
        ],
        name="gated_linear_attention_states",
    )(x, y, g, state)


def _output_kernel(inputs, entering, o, *, options: KernelOptions):
    q, k, v, decays = kernels.read(options, inputs)
    factors = chunk.prepare(q, k, decays, decays.scores(q, k, options.precision))
    o[...] = chunk.output(factors, v, entering[...], options.precision).astype(o.dtype)


def _forward(options: KernelOptions, inputs: kernels.Inputs, state: jax.Array, keep: bool):
    del keep  # the outputs are computed from these states
    q, k, v, g = inputs
    entering, last = _states(options, v, k, g, state)
    o = jax.ShapeDtypeStruct(v.shape, q.dtype)
    here = functools.partial(kernels.per_chunk, options)
    o = _call(
        _output_kernel,
        options,
        state.shape[1:],
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), here(entering)],
        out_specs=here(o),
        out_shape=o,
        name="gated_linear_attention",
    )(inputs, entering)
    return o, last, entering


def _gradient_kernel(inputs, entering, do, leaving, dinputs, *, options: KernelOptions):
    q, k, v, decays = kernels.read(options, inputs)
    factors = chunk.prepare(q, k, decays, decays.scores(q, k, options.precision))
    do, S, dS = do[...].astype(jnp.float32), entering[...], leaving[...]
    gradients = chunk.gradients(q, k, v, decays, factors, S, do, dS, options.precision)
    kernels.write_gradients(options, dinputs, gradients)


def _backward(options, inputs, entering, do, dlast):
    q, _, _, g = inputs
    leaving, dstate = _states(options, do, q, g, dlast, last_first=True)
    here = functools.partial(kernels.per_chunk, options)
    (dinputs,) = _call(
        _gradient_kernel,
        options,
        dlast.shape[1:],
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), here(entering), here(do), here(leaving)],
        out_specs=[jax.tree.map(here, inputs)],
        out_shape=[jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)],
        name="gated_linear_attention_gradient",
    )(inputs, entering, do, leaving)
    return dinputs, dstate


gated_linear_attention = kernels.operator(_forward, _backward, _CHUNK, _padded_width)
