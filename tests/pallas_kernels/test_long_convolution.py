"""Convolution with a filter as long as the sequence."""

import jax.numpy as jnp
import numpy as np
import pytest
from operator_suite import TOLERANCE, Case, OperatorSuite, assert_close, outputs_and_gradients

import pallas_kernels

B, D = 2, 6


def _inputs(*kernel):
    """u, and a kernel of such a shape, in which -1 is the length and -2 twice that."""

    def make(rng, t):
        return [
            rng.normal(size=(B, t, D)),
            rng.normal(size=[-size * t if size < 0 else size for size in kernel]),
        ]

    return make


def _loop(u, kernel, *, causal=True):
    y, taps = np.zeros_like(u), kernel.shape[-1]
    for t in range(u.shape[1]):
        for j in range(min(taps, t + 1) if causal else taps):
            s = t - j if causal else (t - j) % taps
            if s < u.shape[1]:
                y[:, t] += kernel[..., j] * u[:, s]
    return (y,)


class TestLongConvolution(OperatorSuite):
    operator = "long_convolution"
    implementations = ("reference", "xla")
    cases = {  # noqa: RUF012
        "shared": Case(_inputs(D, -1)),
        "short": Case(_inputs(D, 5)),
        "batched": Case(_inputs(B, D, -1)),
        "batched, too many taps": Case(_inputs(B, D, 70)),
        "circular": Case(_inputs(D, -1), lambda t: {"causal": False}),
        "circular, batched": Case(_inputs(B, D, -1), lambda t: {"causal": False}),
        "longer circle": Case(_inputs(D, -2), lambda t: {"causal": False}),
        "longer circle, batched": Case(_inputs(B, D, -2), lambda t: {"causal": False}),
    }
    loop = _loop

    def test_options_by_fft(self, case):
        """Longer than what is computed as a product."""
        self.check(case, "xla", 129)

    @pytest.mark.parametrize("causal", [True, False], ids=["causal", "circular"])
    @pytest.mark.parametrize("shape", [(D, -1), (B, D, -1)], ids=["shared", "batched"])
    def test_no_drift(self, causal, shape):
        """At T = 16,384, against float64 transforms: their error is that of 30 roundings, 4e-15."""
        length = 16_384
        rng = np.random.default_rng(0)
        arrays = [x.astype(np.float32) for x in _inputs(*shape)(rng, length)]
        u, kernel = (x.astype(np.float64) for x in arrays)
        padded = 2 * length if causal else length
        weights = np.random.default_rng(1).normal(size=u.shape)  # as the suite draws them

        def spectrum(x, axis):
            return np.moveaxis(np.fft.rfft(x, padded, axis=axis), axis, -1)

        def back(spectrum):
            return np.fft.irfft(spectrum, padded)[..., :length]

        in_u, in_kernel, in_weights = spectrum(u, 1), spectrum(kernel, -1), spectrum(weights, 1)
        dkernel = back(in_weights * in_u.conj())
        truth = [
            np.swapaxes(back(in_u * in_kernel), 1, 2),
            np.swapaxes(back(in_weights * in_kernel.conj()), 1, 2),
            dkernel if kernel.ndim == 3 else dkernel.sum(axis=0),
        ]

        def call(u, kernel):
            return (pallas_kernels.long_convolution(u, kernel, causal=causal),)

        results = outputs_and_gradients(call, [jnp.asarray(x) for x in arrays])
        assert_close(results, truth, TOLERANCE["float32"])

    test_kernel_lowers = None  # the transforms are XLA's own: there is no kernel


@pytest.mark.parametrize(
    ("u", "kernel", "causal", "words"),
    [
        ((2, 8, 6), (6, 5), False, "L=5"),
        ((2, 8, 6), (5, 8), True, "D=6"),
        ((2, 8, 6), (3, 6, 8), True, "B=2"),
        ((2, 8), (6, 8), True, "expected"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(u, kernel, causal, words):
    with pytest.raises(ValueError, match=words):
        pallas_kernels.long_convolution(jnp.ones(u), jnp.ones(kernel), causal=causal)
