"""The linear recurrence."""

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

from pallas_kernels import dispatch, linear_scan

B, D = 2, 6


def _inputs(rng, t, a=True, x=True, h0=True, edges=False):
    """`a`, `x`, `h0`: True is real, "complex" complex, None absent. |a| <= 1."""

    def draw(kind, *shape):
        if kind is None:
            return None
        real = rng.normal(size=shape)
        return real if kind is True else real + 1j * rng.normal(size=shape)

    decay = 1 / (1 + np.exp(-2 - rng.normal(size=(B, t, D))))
    if a == "complex":
        decay = decay * np.exp(2j * np.pi * rng.uniform(size=decay.shape))
    if edges:
        kind = rng.integers(5, size=decay.shape)
        decay = np.where(kind == 0, 0, np.where(kind == 1, 1, decay))
        decay[:, t // 2] = 0  # a document boundary
        decay[0, :, 0] = 1  # a sum
    return [decay, draw(x, B, t, D), draw(h0, B, D)]


def _case(reverse=False, only=None, **kinds):
    return Case(functools.partial(_inputs, **kinds), lambda length: {"reverse": reverse}, only)


def _loop(a, x, h0=None, reverse=False):
    dtype = np.result_type(a, x)
    h = np.zeros((B, D), dtype) if h0 is None else h0
    y = np.zeros(x.shape, dtype)
    steps = range(x.shape[1])
    for t in reversed(steps) if reverse else steps:
        y[:, t] = h = a[:, t] * h + x[:, t]
    return y, h


class TestLinearScan(OperatorSuite):
    operator = "linear_scan"
    implementations = ("reference", "xla")
    cases = {  # noqa: RUF012
        "real": _case(),
        "no_state": _case(h0=None),
        "reverse": _case(reverse=True),
        "edges": _case(edges=True),
        "edges_reverse": _case(edges=True, reverse=True),
        "complex": _case(a="complex", x="complex", h0="complex"),
        "complex_reverse": _case(a="complex", x="complex", h0=None, reverse=True),
        "complex_decay": _case(a="complex"),
        "complex_input": _case(x="complex", edges=True),
    }
    loop = _loop
    interpreted_lengths = (1, 65)

    def test_no_drift_of_sums(self):
        self.check("edges", "xla", 16_384)
        self.check("complex", "xla", 16_384)


@pytest.mark.parametrize("implementation", TestLinearScan.implementations)
def test_zero_decay_is_a_boundary(implementation):
    """The second of two documents is what it is alone, to the last bit, and so is its gradient."""
    border = 30
    a, x, h0 = cast(_inputs(np.random.default_rng(0), 80), "float32")
    a = a.at[:, border].set(0)

    @jax.jit
    def run(a, x):
        (h, h_last), transpose = jax.vjp(
            lambda a, x: linear_scan(a, x, h0, implementation=implementation), a, x
        )
        return h, transpose((jnp.cos(h), jnp.ones_like(h_last)))

    with tracing_for(implementation):
        h, (da, dx) = run(a, x)
        alone, (da_alone, dx_alone) = run(a[:, border:], x[:, border:])
    np.testing.assert_array_equal(h[:, border:], alone)
    np.testing.assert_array_equal(dx[:, border:], dx_alone)
    np.testing.assert_array_equal(da[:, border + 1 :], da_alone[:, 1:])


@pytest.mark.parametrize("case", ["real", "complex_reverse", "complex_input"])
def test_float64_through_xla(case):
    """The same float64 operations in the same order, but for what XLA fuses: a few roundings."""
    suite = TestLinearScan()
    with jax.enable_x64(True):
        arrays = cast(suite.inputs(case, 65, "float32"), "float64")
        results = outputs_and_gradients(suite.call(case, "xla", 65), arrays)
    assert results[0].dtype == (jnp.float64 if case == "real" else jnp.complex128)
    assert_close(results, suite.truth(case, 65), 1e-14)


def test_tree_for_accelerators():
    """What XLA gets where a loop of T small kernels would crawl."""
    suite = TestLinearScan()
    for case in ("edges", "edges_reverse", "complex_reverse"):
        arrays = cast(suite.inputs(case, 1000, "float32"), "float32")
        with dispatch.target("gpu"):
            results = outputs_and_gradients(suite.call(case, "xla", 1000), arrays)
        assert_close(results, suite.truth(case, 1000), TOLERANCE["float32"])


def test_output_dtype():
    a, x = jnp.ones((1, 2, 3), jnp.bfloat16), jnp.ones((1, 2, 3))
    h, h_last = linear_scan(a, x.astype(jnp.bfloat16))
    assert (h.dtype, h_last.dtype) == (jnp.bfloat16, jnp.float32)
    h, h_last = linear_scan(a, x)
    assert (h.dtype, h_last.dtype) == (jnp.float32, jnp.float32)
    h, h_last = linear_scan(a, x.astype(jnp.complex64))
    assert (h.dtype, h_last.dtype) == (jnp.complex64, jnp.complex64)


def test_complex_state_of_a_real_recurrence():
    a = jnp.ones((1, 2, 3))
    with pytest.raises(ValueError, match="h0 is complex, a and x are real"):
        linear_scan(a, a, jnp.ones((1, 3), jnp.complex64))
