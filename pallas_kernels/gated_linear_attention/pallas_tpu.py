"""Gated linear attention on a TPU: chunks in sequence, the state in VMEM between them.

The grid is (M sequences, N chunks), a sequence being one head of one batch element. The forward
pass keeps the state that enters each chunk; the backward pass walks from the last chunk to the
first, with the gradient of the state in VMEM. `chunk` and `decay` have the equations.

Chunks of 128 steps fill the matrix unit; nothing has been measured on a TPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.gated_linear_attention import chunk, kernels
from pallas_kernels.matrix_state import KernelOptions

_CHUNK = 128


def _forward_kernel(inputs, S_0, o, last, *refs, options: KernelOptions):
    *entering, S_ref = refs

    @pl.when(pl.program_id(1) == 0)
    def _():
        S_ref[...] = S_0[...]

    q, k, v, decays = kernels.read(options, inputs)
    S = S_ref[...]
    factors = chunk.prepare(q, k, decays, decays.scores(q, k, options.precision))
    for ref in entering:
        ref[...] = S
    o[...] = chunk.output(factors, v, S, options.precision).astype(o.dtype)
    S = factors.total * S + chunk.update(factors, v, options.precision)
    S_ref[...] = S
    last[...] = S


def _backward_kernel(inputs, entering, do, dlast, dinputs, dS_0, dS_ref, *, options: KernelOptions):
    @pl.when(pl.program_id(1) == 0)
    def _():
        dS_ref[...] = dlast[...]

    q, k, v, decays = kernels.read(options, inputs)
    do, dS = do[...].astype(jnp.float32), dS_ref[...]
    factors = chunk.prepare(q, k, decays, decays.scores(q, k, options.precision))
    gradients = chunk.gradients(q, k, v, decays, factors, entering[...], do, dS, options.precision)
    kernels.write_gradients(options, dinputs, gradients)
    dS = factors.total * dS + chunk.update_gradient(factors, do, options.precision)
    dS_ref[...] = dS
    dS_0[...] = dS


def _call(kernel, options: KernelOptions, state: jax.Array, **kwargs):
    """A call of the kernel for every chunk, those of one sequence in order."""
    return pl.pallas_call(
        functools.partial(kernel, options=options),
        scratch_shapes=[pltpu.VMEM(state.shape[1:], jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=options.interpret,
        **kwargs,
    )


def _forward(options: KernelOptions, inputs: kernels.Inputs, state: jax.Array, keep: bool):
    q, _, v, _ = inputs
    o = jax.ShapeDtypeStruct(v.shape, q.dtype)
    entering = kernels.states(options, q, state)
    here = functools.partial(kernels.per_chunk, options)
    whole = kernels.per_sequence(state)
    return _call(
        _forward_kernel,
        options,
        state,
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), whole],
        out_specs=[here(o), whole] + [here(entering)] * keep,
        out_shape=[o, jax.ShapeDtypeStruct(state.shape, jnp.float32)] + [entering] * keep,
        name="gated_linear_attention",
    )(inputs, state)


def _backward(options, inputs, entering, do, dlast):
    here = functools.partial(kernels.per_chunk, options, last_first=True)
    whole = kernels.per_sequence(dlast)
    return _call(
        _backward_kernel,
        options,
        dlast,
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), here(entering), here(do), whole],
        out_specs=[jax.tree.map(here, inputs), whole],
        out_shape=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), [inputs, dlast]),
        name="gated_linear_attention_gradient",
    )(inputs, entering, do, dlast)


gated_linear_attention = kernels.operator(_forward, _backward, _CHUNK, lambda width: width)
