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
from pallas_kernels.linear_scan import pallas_tpu

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
    implementations = ("reference", "xla", "pallas_tpu", "pallas_gpu")
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
    """The second of two documents and its gradient are what they are alone, after any first."""
    border = 30
    a, x, h0 = cast(_inputs(np.random.default_rng(0), 80), "float32")
    a, x = a.at[:, border].set(0), x.at[:, :border].mul(1e30)

    @jax.jit
    def run(a, x):
        (h, h_last), transpose = jax.vjp(
            lambda a, x: linear_scan(a, x, h0, implementation=implementation), a, x
        )
        return h, transpose((jnp.cos(h), jnp.ones_like(h_last)))

    with tracing_for("linear_scan", implementation):
        h, (da, dx) = run(a, x)
        alone, (da_alone, dx_alone) = run(a[:, border:], x[:, border:])
    # The same float32 operations; how many of them are fused differs.
    assert_close([h[:, border:], dx[:, border:]], [alone, dx_alone], 1e-6)
    assert_close([da[:, border + 1 :]], [da_alone[:, 1:]], 1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_tpu_kernel_in_many_blocks(monkeypatch, dtype, reverse):
    """Several blocks of batch, time and width, the last of each past the end of the arrays."""
    monkeypatch.setattr(pallas_tpu, "_ROW", 256)
    monkeypatch.setattr(pallas_tpu, "_BLOCK", 2**13)
    keys = jax.random.split(jax.random.key(0))
    sizes, angles = jax.random.uniform(keys[0], (2, 2, 3, 70, 300))
    arrays = [*sizes, jax.random.normal(keys[1], (3, 300))]
    if dtype == "complex64":
        arrays[:2] = sizes * jnp.exp(2j * jnp.pi * angles)
    with tracing_for("linear_scan", "pallas_tpu"):
        results, truths = (
            outputs_and_gradients(
                functools.partial(linear_scan, reverse=reverse, implementation=i), arrays
            )
            for i in ("pallas_tpu", "reference")
        )
    assert_close(results, truths, 2 * TOLERANCE["float32"])  # two float32 computations


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
    """The form for XLA on accelerators, where a loop of T small kernels would crawl."""
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
