"""S4D against dense powers and the recurrence in float64, for every initialisation, both ways."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch
from arch.nn.diagonal_siso import sum_of_powers

INITS = ("lin", "inv", "legs", "real")
DISCRETIZATIONS = ("zoh", "bilinear")
B, T, D, N = 2, 50, 8, 16


def discretized(ssm, discretization):
    """(Ā, B̄, C, |ΔA|) in float64 from the definitions of section 3.1."""
    decay, frequency, log_step, pairs_B, pairs_C = (
        np.asarray(p[...], np.float64)
        for p in (ssm.decay, ssm.frequency, ssm.log_step, ssm.B, ssm.C)
    )
    A = -np.exp(decay) + 1j * frequency
    B, C = (p[..., 0] + 1j * p[..., 1] for p in (pairs_B, pairs_C))
    step = np.exp(log_step)[:, None]
    if discretization == "zoh":
        return np.exp(step * A), (np.exp(step * A) - 1) / A * B, C, abs(step * A)
    return (1 + step * A / 2) / (1 - step * A / 2), step * B / (1 - step * A / 2), C, abs(step * A)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("init", INITS)
def test_kernel_equals_dense_powers(build, init, discretization):
    mixer = build("s4d", D, init=init, discretization=discretization, d_state=N)
    Ā, B̄, C, size = discretized(mixer.ssm, discretization)
    expected = 2 * np.einsum("dn,ldn->dl", C * B̄, Ā ** np.arange(T)[:, None, None]).real
    log_A, B_bar, C32 = mixer.ssm.discretized()
    kernel = jax.jit(sum_of_powers, static_argnums=2)(C32 * B_bar, log_A, T)
    # Term n is exp(l log Ā_n): the rounding of its exponent is a relative error of eps l |log Ā_n|
    # in the term, the few other operations are eps each; |log Ā| is at most |ΔA| + π.
    bound = 8 * 6e-8 * np.sum(abs(C * B̄) * (4 + T * (size + np.pi)), axis=1, keepdims=True)
    assert np.all(np.abs(kernel - expected) <= bound)


def recurrence(mixer, C, x):
    """Σ_{j ≥ 0} K_j x_{t−j} by the recurrence with one direction's C."""
    Ā, B̄, _, _ = discretized(mixer.ssm, "zoh")
    h, ys = np.zeros((len(x), D, N // 2), complex), []
    for t in range(x.shape[1]):
        h = Ā * h + B̄ * x[:, t, :, None]
        ys.append(2 * np.sum(C * h, -1).real)
    return np.stack(ys, 1)


def after_the_state_space(mixer, y, x):
    """The skip, GELU and the gated linear unit."""
    y = y + np.asarray(mixer.ssm.D[...], np.float64) * x
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    kernel, bias = (np.asarray(p[...], np.float64) for p in (mixer.out.kernel, mixer.out.bias))
    value, gate = np.split(y @ kernel + bias, 2, -1)
    return value / (1 + np.exp(-gate))


def test_block_equals_the_recurrence(build):
    mixer = build("s4d", D, d_state=N)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)), np.float64)
    C = discretized(mixer.ssm, "zoh")[2]
    expected = after_the_state_space(mixer, recurrence(mixer, C, x), x)
    actual = jax.jit(lambda m, x: m(x))(mixer, x.astype(np.float32))
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("real", [T, 31, 1])
def test_both_ways_is_a_recurrence_from_either_end(build, real):
    """The second one from the last real token; what stands behind it changes nothing.

    The tolerance is that of one direction: the sum of two has no larger error relative to its size.
    """
    mixer = build("s4d", D, d_state=N, bidirectional=True)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)), np.float64)
    C = discretized(mixer.ssm, "zoh")[2]
    assert C.shape[0] == 2
    alone = x[:, :real]
    y = recurrence(mixer, C[0], alone) + recurrence(mixer, C[1], alone[:, ::-1])[:, ::-1]
    expected = after_the_state_space(mixer, y, alone)
    ids = np.broadcast_to(np.arange(T) < real, (B, T)).astype(np.int32)
    forward = jax.jit(lambda m, x, ids: m(x, arch.Context(segment_ids=ids)))
    actual = forward(mixer, x.astype(np.float32), ids)[:, :real]
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


def test_both_directions_learn(build):
    mixer = build("s4d", D, d_state=N, bidirectional=True)
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    gradients = jax.jit(jax.grad(lambda m: (m(x) ** 2).sum()))(mixer)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)
    assert np.all(np.any(np.asarray(gradients.ssm.C[...]) != 0, axis=(1, 2, 3)))


@pytest.mark.parametrize("name", ["s4", "s4d"])
def test_the_range_of_steps(name):
    """Log-uniform: of 400 drawn, the extremes come within 5% of the range's ends in the logarithm
    but for a probability of 2 · 0.95⁴⁰⁰ = 2e-9.
    """
    mixer = arch.build(name, 400, rngs=nnx.Rngs(0), d_state=4, dt_min=1e-4, dt_max=1e-2)
    log_step = (mixer.ssm if name == "s4d" else mixer).log_step[...]
    low, high = np.log(1e-4), np.log(1e-2)
    margin = 0.05 * (high - low)
    assert low <= log_step.min() <= low + margin
    assert high - margin <= log_step.max() <= high


@pytest.mark.parametrize("name", ["s4", "s4d"])
@pytest.mark.parametrize("given", [{"dt_min": 0.2}, {"dt_min": 0.0}, {"dt_max": -1.0}])
def test_an_impossible_range_of_steps(name, given):
    with pytest.raises(ValueError, match="expected 0 < dt_min <= dt_max"):
        arch.build(name, D, rngs=nnx.Rngs(0), **given)
