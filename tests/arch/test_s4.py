"""S4 against dense matrices in float64: HiPPO itself, powers for the kernel, and the recurrence."""

import jax
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D, N = 2, 50, 8, 16


def dense(mixer):
    """(Ā [D, N, N], B̄ [D, N], C [D, N]) complex, from the definitions: equation 3."""
    step, eigenvalues, P, B_in, C = (np.asarray(v, np.complex128) for v in mixer.continuous())
    eigenvalues, P, B_in, C = (np.concatenate([v, v.conj()], -1) for v in (eigenvalues, P, B_in, C))
    eye = np.eye(P.shape[1])
    A = eye * eigenvalues[:, None] - P[:, :, None] * P[:, None].conj()
    half = step[..., None] / 2 * A
    A_bar = np.linalg.solve(eye - half, eye + half)
    return A_bar, np.linalg.solve(eye - half, (step * B_in)[..., None])[..., 0], C


def powers(mixer, length):
    """K_l = C Ā^l B̄, [D, length], or [2, D, length] of both directions."""
    A_bar, h, C = dense(mixer)
    kernel = []
    for _ in range(length):
        kernel.append(np.sum(C * h, -1).real)
        h = (A_bar @ h[..., None])[..., 0]
    return np.stack(kernel, -1)


@pytest.mark.parametrize("length", [1, 2, 37, 1024])
@pytest.mark.parametrize("initial", [True, False])
def test_kernel_equals_dense_powers(build, initial, length):
    mixer = arch.build("s4", D, rngs=nnx.Rngs(0)) if initial else build("s4", D)
    assert mixer.P.shape == (D, 32, 2)  # N = 64
    expected = powers(mixer, length)
    kernel = jax.jit(lambda m: m.kernel(length))(mixer)
    # Repeated squaring, the Cauchy sums and the transform each add a few eps of their largest term;
    # where the resolvent is large, at a frequency near an eigenvalue, up to 1 / |ΔA| ≈ 100 times
    # that: 100 · 6e-8 · √64 = 5e-5.
    errors = np.linalg.norm(kernel - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() <= 1e-4


def test_kernel_is_exact_in_float64(build):
    """What is left in float32 is rounding: here the kernel gains the digits of its numbers."""
    mixer, length = build("s4", D), 1024
    with jax.enable_x64(True):
        mixer = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, "float64"), mixer)
        kernel = jax.jit(lambda m: m.kernel(length))(mixer)
        expected = powers(mixer, length)
    assert kernel.dtype == np.float64
    np.testing.assert_allclose(kernel, expected, atol=1e-11 * np.abs(expected).max())


def test_both_ways_is_the_sum_over_two_kernels(build):
    """y_t = Σ_{s ≤ t} K_{t−s} u_s + Σ_{s ≥ t} K′_{s−t} u_s over the real tokens, in float64.

    The two kernels carry errors of 1e-4 as above, and their sums relative ones no larger.
    """
    mixer, real = build("s4", D, d_state=N, bidirectional=True), 31
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)))
    u, (ahead, behind) = x[:, :real].astype(np.float64), powers(mixer, T)
    distance = np.arange(real)[:, None] - np.arange(real)
    y = np.einsum("dts,bsd->btd", np.where(distance >= 0, ahead[:, abs(distance)], 0), u)
    y += np.einsum("dts,bsd->btd", np.where(distance <= 0, behind[:, abs(distance)], 0), u)
    y += np.asarray(mixer.D[...], np.float64) * u
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    kernel, bias = (np.asarray(p[...], np.float64) for p in (mixer.out.kernel, mixer.out.bias))
    value, gate = np.split(y @ kernel + bias, 2, -1)
    expected = value / (1 + np.exp(-gate))
    ids = np.broadcast_to(np.arange(T) < real, (B, T)).astype(np.int32)
    actual = jax.jit(lambda m, x: m(x, arch.Context(segment_ids=ids)))(mixer, x)[:, :real]
    assert np.linalg.norm(actual - expected) <= 1e-4 * np.linalg.norm(expected)

    gradients = jax.jit(jax.grad(lambda m: (m(x) ** 2).sum()))(mixer)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)
    assert np.all(np.any(np.asarray(gradients.C[...]) != 0, axis=(1, 2, 3)))


def test_starts_from_hippo():
    """V (Λ − P P*) V* is the LegS matrix and V B its input vector (theorem 1)."""
    mixer = arch.build("s4", D, rngs=nnx.Rngs(0), d_state=N)
    _, eigenvalues, P, B_in, _ = (np.asarray(v)[0] for v in mixer.continuous())
    n = np.arange(N)
    root = np.sqrt(2 * n + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    skew = legs + 0.5 * np.outer(root, root) + 0.5 * np.eye(N)
    omega = np.linalg.eigvalsh(-1j * skew)
    # Eigenvectors have no phase of their own: what does not depend on it are the moments B* A^k B.
    np.testing.assert_allclose(eigenvalues.imag, omega[N // 2 :], rtol=1e-6)
    np.testing.assert_allclose(eigenvalues.real, -0.5, rtol=1e-6)
    eigenvalues, P, B_in = (np.concatenate([v, v.conj()]) for v in (eigenvalues, P, B_in))
    A = np.diag(eigenvalues) - np.outer(P, P.conj())
    for k in range(4):
        expected = root @ np.linalg.matrix_power(legs, k) @ root
        actual = B_in.conj() @ np.linalg.matrix_power(A, k) @ B_in
        # Float32 parameters, k + 2 of them multiplied, and moments that hardly cancel.
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_recurrence(build):
    """A chunk and then single tokens, from the dense matrix in float64."""
    mixer = build("s4", D, d_state=N)
    x = np.asarray(jax.random.normal(jax.random.key(0), (B, T, D)), np.float64)
    A_bar, B_bar, C = dense(mixer)
    gain, kernel, bias = (
        np.asarray(p[...], np.float64) for p in (mixer.D, mixer.out.kernel, mixer.out.bias)
    )
    h, ys = np.zeros((B, D, N), complex), []
    for t in range(T):
        h = np.einsum("dnm,bdm->bdn", A_bar, h) + B_bar * x[:, t, :, None]
        y = np.sum(C * h, -1).real + gain * x[:, t]
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        value, gate = np.split(y @ kernel + bias, 2, -1)
        ys.append(value / (1 + np.exp(-gate)))
    expected = np.stack(ys, 1)
    extend = jax.jit(lambda m, s, x: m.extend(s, x))
    state, parts = mixer.initial_state(B, T), []
    for part in np.split(x.astype(np.float32), [30, *range(31, T)], axis=1):
        state, y = extend(mixer, state, part)
        parts.append(y)
    # T increments, each with a few eps of rounding, of a map that does not grow: √T · 10 · 6e-8.
    tolerance = 1e-5
    np.testing.assert_allclose(
        np.concatenate(parts, 1), expected, atol=tolerance * np.abs(expected).max()
    )
    np.testing.assert_allclose(state, h[..., : N // 2], atol=tolerance * np.abs(h).max())


def test_impossible_options():
    with pytest.raises(ValueError, match="d_state is 7, expected an even number"):
        arch.build("s4", D, rngs=nnx.Rngs(0), d_state=7)


def test_the_state_is_fixed():
    mixer = arch.build("s4", D, rngs=nnx.Rngs(0), d_state=N)
    assert arch.state_bytes(mixer, 10) == arch.state_bytes(mixer, 10**6) == 8 * D * N // 2
