"""The gated delta rule.

A step multiplies what the state holds along k_t by 1 − β_t |k_t|², so that beyond β |k|² = 2 the
recurrence itself diverges, in any implementation: no case here goes there. Keys of other lengths
than one are drawn together with a β that keeps to it.
"""

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
    outputs_and_gradients,
    tracing_for,
)

from pallas_kernels import dispatch, gated_delta_rule

B, H, K, V = 2, 2, 8, 5


def _inputs(rng, t, decay="weak", keys="unit", state=True):
    """`decay`: "weak", "resets" (strong ones and −inf beside weak ones) or "none".

    `keys`: "unit", with β in (0, 1); "any", of lengths between 0.3 and 3, with β |k|² in (0, 2);
    or "edges", of length one with β = 0 or β = 1.
    """
    k = rng.normal(size=(B, t, H, K))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    beta = rng.uniform(size=(B, t, H))
    if keys == "any":
        lengths = 10 ** rng.uniform(-0.5, 0.5, size=beta.shape)
        k *= lengths[..., None]
        beta *= 2 / lengths**2
    elif keys == "edges":
        beta = np.round(beta)
    g = None
    if decay != "none":
        g = -(10 ** rng.uniform(-3, -1, size=beta.shape))
        if decay == "resets":
            g = np.where(rng.integers(3, size=g.shape) == 0, 1e3 * g, g)
            g[:, :: max(t // 3, 1)] = -np.inf
    return [
        rng.normal(size=(B, t, H, K)),
        k,
        rng.normal(size=(B, t, H, V)),
        beta,
        g,
        rng.normal(size=(B, H, K, V)) if state else None,
    ]


def _loop(q, k, v, beta, log_decay=None, initial_state=None, scale=None):
    S = np.zeros((B, H, K, V)) if initial_state is None else initial_state
    o = np.zeros(v.shape)
    for t in range(q.shape[1]):
        erase = np.eye(K) - beta[:, t, :, None, None] * np.einsum("bhk,bhl->bhkl", k[:, t], k[:, t])
        if log_decay is not None:
            S = np.exp(log_decay[:, t])[..., None, None] * S
        S = erase @ S + beta[:, t, :, None, None] * np.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        o[:, t] = np.einsum("bhk,bhkv->bhv", q[:, t], S) * (K**-0.5 if scale is None else scale)
    return o, S


def _case(options=None, **kinds):
    return Case(functools.partial(_inputs, **kinds), lambda length: options or {})


class TestGatedDeltaRule(OperatorSuite):
    operator = "gated_delta_rule"
    implementations = ("reference", "xla", "pallas_tpu", "pallas_gpu")
    cases = {  # noqa: RUF012
        "decay": _case(),
        "bare": _case(decay="none", state=False, options={"scale": 1.0}),
        "resets": _case(decay="resets"),
        "long_keys": _case(keys="any", decay="none"),
        "edges": _case(keys="edges", decay="none"),
    }
    loop = _loop
    interpreted_lengths = (1, 65)

    def test_form_for_accelerators(self, case):
        """Longer chunks, and all of them prepared at once."""
        with dispatch.target("gpu"):
            self.check(case, "xla", 200)

    @pytest.mark.parametrize("drifting", ["edges", "long_keys"])
    def test_no_drift_without_decay(self, drifting):
        """Nothing forgets but the rule itself."""
        self.check(drifting, "xla", 16_384)

    def test_float64_through_xla(self, case):
        """Two float64 computations, in another order: ε √(4 T) of the suite, and some slack."""
        with jax.enable_x64(True):
            arrays = cast(self.inputs(case, 65, "float32"), "float64")
            results = outputs_and_gradients(self.call(case, "xla", 65), arrays)
        assert results[0].dtype == jnp.float64
        assert_close(results, self.truth(case, 65), 1e-13)


@pytest.mark.parametrize("implementation", TestGatedDeltaRule.implementations[1:])
@pytest.mark.parametrize(("key_width", "value_width"), [(1, 1), (3, 130)])
def test_widths(implementation, key_width, value_width):
    """Less than a tile and more than a block, none of them whole."""
    rng = np.random.default_rng(0)
    k, v = rng.normal(size=(1, 70, 2, key_width)), rng.normal(size=(1, 70, 2, value_width))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    beta, g = rng.uniform(size=k.shape[:3]), -rng.uniform(size=k.shape[:3])
    state = rng.normal(size=(1, 2, key_width, value_width))
    arrays = cast([rng.normal(size=k.shape), k, v, beta, g, state], "float32")
    with tracing_for("gated_delta_rule", implementation):
        results, truths = (
            outputs_and_gradients(functools.partial(gated_delta_rule, implementation=i), arrays)
            for i in (implementation, "reference")
        )
    assert_close(results, truths, 2 * TOLERANCE["float32"])  # two float32 computations


@pytest.mark.parametrize("implementation", TestGatedDeltaRule.implementations)
def test_reset_equals_a_fresh_start(implementation):
    """The second of two documents and its gradient are what they are alone, after any first."""
    border = 30
    q, k, v, beta, g, _ = cast(_inputs(np.random.default_rng(0), 80), "float32")
    g, v = g.at[:, border].set(-jnp.inf), v.at[:, :border].mul(1e15)

    @jax.jit
    def run(*arrays):
        (o, last), transpose = jax.vjp(
            functools.partial(gated_delta_rule, implementation=implementation), *arrays
        )
        return [o, last], transpose((jnp.cos(o), jnp.ones_like(last)))

    with tracing_for("gated_delta_rule", implementation):
        (o, last), gradients = run(q, k, v, beta, g)
        alone, gradients_alone = run(*(x[:, border:] for x in (q, k, v, beta, g)))
    # The same values, cut into other chunks: two float32 computations of 50 steps.
    tolerance = TOLERANCE["float32"]
    assert_close([o[:, border:], last], alone, tolerance)
    assert_close([x[:, border:] for x in gradients], gradients_alone, tolerance)
    assert np.all(np.asarray(gradients[4][:, border]) == 0)
