"""Gated linear attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operator_suite import (
    TOLERANCE,
    Case,
    OperatorSuite,
    assert_close,
    cast,
    lower,
    outputs_and_gradients,
    tracing_for,
)

from pallas_kernels import dispatch, gated_linear_attention

B, H, K, V = 2, 2, 8, 5


def _inputs(rng, t, decay="channel", state=True, strength=1.0, resets=False, edges=False):
    shape = {"none": None, "head": (B, t, H), "channel": (B, t, H, K)}[decay]
    g = None
    if shape is not None:
        # Magnitudes over three orders: strong decays beside weak ones are what breaks quotients.
        g = -strength * 10 ** rng.uniform(-3, 0.3, size=shape)
        if resets:
            g[:, :: max(t // 3, 1)] = -np.inf
        if edges:  # decays of exactly zero, of exactly one, and of 1e-13 beside the others
            kind = rng.integers(8, size=shape)
            g[kind == 0] = -np.inf
            g[(kind == 1) | (kind == 2)] = 0
            g[kind == 3] = -30
    return [
        rng.normal(size=(B, t, H, K)),
        3 * rng.normal(size=(B, t, H, K)),  # keys are not normalised
        rng.normal(size=(B, t, H, V)),
        g,
        rng.normal(size=(B, H, K, V)) if state else None,
    ]


def _case(only=None, scale=None, **kinds):
    options = {} if scale is None else {"scale": scale}
    return Case(functools.partial(_inputs, **kinds), lambda length: options, only)


def _loop(q, k, v, log_decay=None, initial_state=None, scale=K**-0.5):
    state = np.zeros((B, H, K, V)) if initial_state is None else initial_state
    if log_decay is None:
        log_decay = np.zeros(q.shape)
    elif log_decay.ndim == 3:
        log_decay = np.repeat(log_decay[..., None], K, -1)
    o = np.zeros(v.shape)
    for t in range(q.shape[1]):
        state = np.exp(log_decay[:, t])[..., None] * state
        state = state + np.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        o[:, t] = scale * np.einsum("bhk,bhkv->bhv", q[:, t], state)
    return o, state


class TestGatedLinearAttention(OperatorSuite):
    operator = "gated_linear_attention"
    implementations = ("reference", "xla", "pallas_tpu", "pallas_gpu")
    cases = {  # noqa: RUF012
        "channel": _case(),
        "bare": _case(decay="none", state=False),
        "undecayed": _case(decay="none"),
        "head": _case(decay="head"),
        "strong": _case(strength=100.0),
        "resets": _case(resets=True, scale=1.0),
        "edges": _case(edges=True),
        "head_edges": _case(decay="head", edges=True),
        "head_strong": _case(decay="head", strength=100.0, resets=True),
    }
    loop = _loop
    interpreted_lengths = (1, 65)


@pytest.mark.parametrize("implementation", TestGatedLinearAttention.implementations)
@pytest.mark.parametrize("decay", ["channel", "head"])
def test_reset_equals_a_fresh_start(implementation, decay):
    """The second of two documents and its gradients are what they are alone, after any first."""
    border = 30
    q, k, v, g, state = cast(_inputs(np.random.default_rng(0), 65, decay), "float32")
    g, v = g.at[:, border].set(-jnp.inf), v.at[:, :border].mul(1e30)
    call = functools.partial(gated_linear_attention, implementation=implementation)

    @jax.jit
    def run(q, k, v, g, state):
        (o, last), transpose = jax.vjp(call, q, k, v, g, state)
        # The last state gets no gradient, o only that of the second document.
        do = jnp.where(jnp.arange(o.shape[1])[:, None, None] < o.shape[1] - 35, 0, jnp.cos(o))
        dq, dk, dv, dg, _ = transpose((do, jnp.zeros_like(last)))
        return o, dq, dk, dv, dg, last

    with tracing_for("gated_linear_attention", implementation):
        *results, last = run(q, k, v, g, state)
        *alone, last_alone = run(*(x[:, border:] for x in (q, k, v, g)), state)
    # Each side sums up to 35 steps and rounds in its own order: ε √(4 · 35) ≈ 7e-7.
    assert_close([*(r[:, border:] for r in results), last], [*alone, last_alone], 2e-6)


@pytest.mark.parametrize("implementation", TestGatedLinearAttention.implementations)
@pytest.mark.parametrize("decay", ["channel", "head"])
def test_gradient_of_a_reset_is_zero(implementation, decay):
    """exp g has the slope 0 at −∞, in whatever exponents the step takes part."""
    arrays = cast(_inputs(np.random.default_rng(0), 65, decay, resets=True), "float32")
    call = functools.partial(gated_linear_attention, implementation=implementation)
    with tracing_for("gated_linear_attention", implementation):
        *_, dg, _ = outputs_and_gradients(call, arrays)
    assert np.all(np.asarray(dg)[np.isneginf(arrays[3])] == 0)


def test_tpu_kernel_in_many_chunks():
    TestGatedLinearAttention().check("edges", "pallas_tpu", 300)


@pytest.mark.parametrize("decay", ["head", None])
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_kernels_of_cheaper_decays_lower(platform, decay):
    """The named shapes have a decay per key channel; heads of width one are padded."""

    def loss(v, qk, g):
        call = functools.partial(gated_linear_attention, implementation=f"pallas_{platform}")
        o, state = call(qk, qk, v, g if decay else None)
        return jnp.sum(o) + jnp.sum(state)

    arrays = [jax.ShapeDtypeStruct((2, 65, 3, *x), jnp.float32) for x in ((1,), (1,), ())]
    assert "custom_call" in lower(jax.value_and_grad(loss), platform, *arrays)


@pytest.mark.parametrize("case", ["edges", "head_edges", "undecayed"])
def test_float64_through_xla(case):
    """65 dependent steps of float64, whose ε is 1e-16, in another order than the reference's."""
    suite = TestGatedLinearAttention()
    with jax.enable_x64(True):
        arrays = cast(suite.inputs(case, 65, "float32"), "float64")
        results = outputs_and_gradients(suite.call(case, "xla", 65), arrays)
    assert results[0].dtype == results[1].dtype == jnp.float64
    assert_close(results, suite.truth(case, 65), 1e-14)


@pytest.mark.parametrize("case", ["edges", "head_edges", "undecayed"])
@pytest.mark.parametrize("length", [2, 63, 1000])
def test_all_chunks_at_once_for_accelerators(case, length):
    suite = TestGatedLinearAttention()
    arrays = cast(suite.inputs(case, length, "float32"), "float32")
    with dispatch.target("gpu"):
        results = outputs_and_gradients(suite.call(case, "xla", length), arrays)
    assert_close(results, suite.truth(case, length), TOLERANCE["float32"])
