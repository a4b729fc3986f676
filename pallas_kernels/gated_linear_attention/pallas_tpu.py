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

_CHUNK = 128


def _forward_kernel(inputs, S_0, o, last, entering, S_ref, *, plan: kernels.Plan):
    @pl.when(pl.program_id(1) == 0)
    def _():
        S_ref[...] = S_0[...]

    q, k, v, decay = kernels.read(plan, inputs)
    S = S_ref[...]
    parts = chunk.prepare(q, k, decay, decay.scores(q, k, plan.precision))
    entering[...] = S
    o[...] = chunk.output(parts, v, S, plan.precision).astype(o.dtype)
    S = parts.total * S + chunk.update(parts, v, plan.precision)
    S_ref[...] = S
    last[...] = S


def _backward_kernel(inputs, entering, do, dlast, dinputs, dS_0, dS_ref, *, plan: kernels.Plan):
    @pl.when(pl.program_id(1) == 0)
    def _():
        dS_ref[...] = dlast[...]

    q, k, v, decay = kernels.read(plan, inputs)
    do, dS = do[...].astype(jnp.float32), dS_ref[...]
    parts = chunk.prepare(q, k, decay, decay.scores(q, k, plan.precision))
    gradients = chunk.gradients(q, k, v, decay, parts, entering[...], do, dS, plan.precision)
    kernels.write_gradients(plan, dinputs, gradients)
    dS = parts.total * dS + chunk.update_gradient(parts, do, plan.precision)
    dS_ref[...] = dS
    dS_0[...] = dS


def _call(kernel, plan: kernels.Plan, state: jax.Array, **kwargs):
    """A call of the kernel for every chunk, those of one sequence in order."""
    return pl.pallas_call(
        functools.partial(kernel, plan=plan),
        scratch_shapes=[pltpu.VMEM(state.shape[1:], jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=plan.interpret,
        **kwargs,
    )


def _forward(plan: kernels.Plan, inputs: kernels.Inputs, state: jax.Array):
    q, _, v, _ = inputs
    o = jax.ShapeDtypeStruct(v.shape, q.dtype)
    entering = kernels.states(plan, q, state)
    here = functools.partial(kernels.per_chunk, plan)
    whole = kernels.per_sequence(state)
    return _call(
        _forward_kernel,
        plan,
        state,
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), whole],
        out_specs=[here(o), whole, here(entering)],
        out_shape=[o, jax.ShapeDtypeStruct(state.shape, jnp.float32), entering],
        name="gated_linear_attention",
    )(inputs, state)


def _backward(plan, inputs, entering, do, dlast):
    here = functools.partial(kernels.per_chunk, plan, last_first=True)
    whole = kernels.per_sequence(dlast)
    return _call(
        _backward_kernel,
        plan,
        dlast,
        grid=entering.shape[:2],
        in_specs=[jax.tree.map(here, inputs), here(entering), here(do), whole],
        out_specs=[jax.tree.map(here, inputs), whole],
        out_shape=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), [inputs, dlast]),
        name="gated_linear_attention_gradient",
    )(inputs, entering, do, dlast)


gated_linear_attention = kernels.differentiable(_forward, _backward, _CHUNK, lambda width: width)
