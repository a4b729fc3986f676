"""HGRN2 token by token in float64."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D = 2, 23, 32


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(mixer, x, n, segment_ids):
    """The recurrence of section 3.2, one token after the other."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), mixer)
    gamma = sigmoid(p.lower_bound[...])
    h, ys = np.zeros((B, D // n, n, n)), []
    for t in range(T):
        g = gamma + (1 - gamma) * sigmoid(x[:, t] @ p.forget_gate.kernel[...])
        o = x[:, t] @ p.output_gate.kernel[...]
        o, i, g = (y.reshape(B, -1, n) for y in (o * sigmoid(o), x[:, t] @ p.input.kernel[...], g))
        kept = t > 0 and segment_ids[t] == segment_ids[t - 1]
        h = kept * g[..., None] * h + (1 - g)[..., None] * i[:, :, None]
        y = np.einsum("bhk,bhkv->bhv", o, h).reshape(B, D)
        y = y / np.sqrt(np.mean(y**2, -1, keepdims=True) + 1e-5) * p.norm.scale[...]
        ys.append(y @ p.out.kernel[...])
    return np.stack(ys, 1)


@pytest.mark.parametrize("n", [8, 32])
def test_equals_the_recurrence(build, n):
    mixer = build("hgrn2", expand_ratio=n)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    for ids in (np.ones(T, int), np.repeat([1, 2, 1], [7, 9, 7])):
        expected = reference(mixer, x.astype(np.float64), n, ids)
        context = arch.Context(segment_ids=np.broadcast_to(ids, (B, T)))
        actual = jax.jit(lambda m, x, c: m(x, c))(mixer, x, context)
        # Sums of at most 32 terms in four stages, divided by an rms of y that is well above zero.
        np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_nothing_is_forgotten_faster_than_the_lower_bound(build):
    mixer = build("hgrn2")
    x = jax.random.normal(jax.random.key(0), (B, 1, D))
    before, _ = mixer.extend(mixer.initial_state(B, 2), x)
    mixer.input.kernel[...] = 0 * mixer.input.kernel[...]
    after, _ = mixer.extend(before, 100 * x)  # gates as good as closed or open
    g = np.linalg.norm(after["memory"]["h"], axis=(1, 3)) / np.linalg.norm(
        before["memory"]["h"], axis=(1, 3)
    )
    gamma = sigmoid(np.asarray(mixer.lower_bound[...]))
    assert np.all(g > gamma * (1 - 1e-5))
    assert np.all(g < 1 + 1e-5)
    assert np.sum(g < gamma + 1e-3) > 5  # the bound is reached


def test_the_expansion_must_divide_the_width():
    with pytest.raises(ValueError, match="expand_ratio is 12, expected a divisor of d_model 32"):
        arch.build("hgrn2", D, rngs=nnx.Rngs(0), expand_ratio=12)


def test_the_state_is_fixed(build):
    mixer = build("hgrn2", expand_ratio=8)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 4 * (D * 8 + 1)
