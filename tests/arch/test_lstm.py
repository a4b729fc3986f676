"""LSTM, GRU and quasi-LSTM token by token in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D = 2, 50, 16


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(p, x, h, c):
    pre = x @ p.into.kernel[...] + p.into.bias[...] + h @ p.recurrent.kernel[...]
    z, i, f, o = np.split(pre, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
    h = sigmoid(o) * np.tanh(c)
    return h, c, h


def gru(p, x, h, c):
    r_x, z_x, h_x = np.split(x @ p.into.kernel[...] + p.into.bias[...], 3, -1)
    r_h, z_h = np.split(h @ p.gates.kernel[...], 2, -1)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    h = z * h + (1 - z) * np.tanh(h_x + (r * h) @ p.candidate.kernel[...])
    return h, c, h


def qlstm(p, x, h, c):
    z, i, f, o = np.split(x @ p.into.kernel[...] + p.into.bias[...], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
    return h, c, (sigmoid(o) * np.tanh(c)) @ p.out.kernel[...]


def reference(name, mixer, x, segment_ids=None):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    step = {"lstm": lstm, "gru": gru, "qlstm": qlstm}[name]
    h, c, ys = np.zeros((B, D)), np.zeros((B, D)), []
    for t in range(T):
        if segment_ids is not None and t and segment_ids[t] != segment_ids[t - 1]:
            h, c = 0 * h, 0 * c
        h, c, y = step(p, x[:, t], h, c)
        ys.append(y)
    return np.stack(ys, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru", "qlstm"])
def test_equals_the_equations(build, name, packed):
    mixer = build(name, D)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    ids = np.repeat([1, 2, 1], [7, 30, 13]) if packed else None
    context = arch.Context(segment_ids=jnp.broadcast_to(ids, (B, T))) if packed else None
    expected = reference(name, mixer, x.astype(np.float64), ids)
    actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
    # A step rounds sums of 2 D = 32 terms, √32 · 6e-8 = 3e-7, and forgets part of what was: errors
    # of about 1 / (1 − f) < 10 steps add up.
    np.testing.assert_allclose(actual, expected, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["lstm", "qlstm"])
def test_the_forget_gate_starts_open(name):
    bias = arch.build(name, D, rngs=nnx.Rngs(0)).into.bias[...]
    np.testing.assert_array_equal(bias, np.repeat([0, 0, 1, 0], D))


def test_an_lstm_can_hold_a_number_forever():
    """The constant error carousel: f = 1, i = 0 keep c for 1,000 steps to the bit."""
    mixer = arch.build("lstm", D, rngs=nnx.Rngs(0))
    mixer.into.kernel[...] = jnp.zeros((D, 4 * D))
    mixer.recurrent.kernel[...] = jnp.zeros((D, 4 * D))
    mixer.into.bias[...] = jnp.repeat(jnp.array([1.0, -200.0, 200.0, 0.0]), D)
    state = mixer.initial_state(B, 1)
    c = jax.random.normal(jax.random.key(0), (B, D))
    state["memory"]["c"] = c
    state, _ = mixer.extend(state, jnp.ones((B, 1000, D)))
    np.testing.assert_array_equal(state["memory"]["c"], c)


@pytest.mark.parametrize(("name", "parameters"), [("lstm", 8), ("gru", 6), ("qlstm", 5)])
def test_parameters(name, parameters):
    """Weights in units of D², as in the equations, and one bias for each gate."""
    mixer = jax.eval_shape(lambda: arch.build(name, D, rngs=nnx.Rngs(0)))
    biases = 3 if name == "gru" else 4
    assert sum(leaf.size for leaf in jax.tree.leaves(mixer)) == parameters * D * D + biases * D


@pytest.mark.parametrize(("name", "tensors"), [("lstm", 2), ("gru", 1), ("qlstm", 1)])
def test_the_state_is_fixed(name, tensors):
    mixer = arch.build(name, D, rngs=nnx.Rngs(0))
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 4 * tensors * D + 4
