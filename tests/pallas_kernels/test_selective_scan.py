"""Mamba's selective scan."""

import functools
import math

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

from pallas_kernels import dispatch, selective_scan
from pallas_kernels.example import examples
from pallas_kernels.selective_scan import pallas_gpu, pallas_tpu, rows

B, D, N = 2, 6, 4


def _inputs(rng, t, skip=True, state=True, step=1.0):
    return [
        rng.normal(size=(B, t, D)),
        step * np.log1p(np.exp(rng.normal(size=(B, t, D)))),
        -np.exp(rng.normal(size=(D, N))),
        rng.normal(size=(B, t, N)),
        rng.normal(size=(B, t, N)),
        rng.normal(size=D) if skip else None,
        rng.normal(size=(B, D, N)) if state else None,
    ]


def _loop(u, delta, A, B, C, D=None, h0=None):
    h = np.zeros((u.shape[0], *A.shape)) if h0 is None else h0
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        x = (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        h = np.exp(delta[:, t, :, None] * A) * h + x
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t])
    return (y if D is None else y + D * u), h


@pytest.fixture(autouse=True)
def _few_steps_together(monkeypatch, request):
    """The steps of a tile or chunk are compiled one by one, 16 of them for some seconds."""
    if {"lowered", "whole_tiles"} & set(request.fixturenames):
        return
    monkeypatch.setattr(pallas_tpu, "_TILE", 4)
    monkeypatch.setattr(pallas_gpu, "_STEPS", 4)


class TestSelectiveScan(OperatorSuite):
    operator = "selective_scan"
    implementations = ("reference", "xla", "pallas_tpu", "pallas_gpu")
    cases = {  # noqa: RUF012
        "all": Case(_inputs),
        "bare": Case(functools.partial(_inputs, skip=False, state=False)),
        "strong": Case(functools.partial(_inputs, step=30.0)),
    }
    loop = _loop
    interpreted_lengths = (1, 65)


@pytest.mark.parametrize("implementation", TestSelectiveScan.implementations)
def test_large_step_is_a_boundary(implementation):
    """exp(Δ A) = 0: the second of two documents, and its gradient, is what it is alone."""
    border = 30
    u, delta, A, B_, C, D_, h0 = cast(_inputs(np.random.default_rng(0), 80), "float32")
    delta = delta.at[:, border].set(1e6)
    u = u.at[:, :border].mul(1e6).at[:, border].mul(1e-6)

    @jax.jit
    def run(*inputs):
        def scan(*inputs):
            u, delta, B_, C = inputs
            return selective_scan(u, delta, A, B_, C, D_, h0, implementation=implementation)

        (y, h_last), transpose = jax.vjp(scan, *inputs)
        return y, h_last, *transpose((jnp.cos(y), jnp.ones_like(h_last)))

    inputs = (u, delta, B_, C)
    with tracing_for("selective_scan", implementation):
        y, h_last, *gradients = run(*inputs)
        y_alone, h_alone, *alone = run(*(a[:, border:] for a in inputs))
    # The same float32 operations in chunks that begin elsewhere; how many are fused differs.
    assert_close([y[:, border:], h_last], [y_alone, h_alone], 1e-6)
    assert_close([g[:, border:] for g in gradients], alone, 1e-6)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_trees_for_accelerators():
    """The form for XLA on accelerators, where a loop of T small kernels would crawl."""
    suite = TestSelectiveScan()
    for case, length in (("all", 1), ("all", 65), ("all", 1000), ("strong", 65)):
        arrays = cast(suite.inputs(case, length, "float32"), "float32")
        with dispatch.target("gpu"):
            results = outputs_and_gradients(suite.call(case, "xla", length), arrays)
        assert_close(results, suite.truth(case, length), TOLERANCE["float32"])


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_float64_through_xla(platform):
    """The same float64 operations in another order: some hundred roundings of 1e-16."""
    suite = TestSelectiveScan()
    with jax.enable_x64(True), dispatch.target(platform):
        arrays = cast(suite.inputs("all", 65, "float32"), "float64")
        results = outputs_and_gradients(suite.call("all", "xla", 65), arrays)
    assert results[0].dtype == results[1].dtype == jnp.float64
    assert_close(results, suite.truth("all", 65), 1e-14)


@pytest.mark.parametrize("mapped", [(0, 0, 0, 0, 0, 0, 0), (None, 0, None, 0, None, 0, None)])
def test_blocks_of_rows(monkeypatch, mapped):
    """Mapped axes become rows; they, and the last block, which is not full, change nothing."""
    monkeypatch.setattr(rows, "_STATE", 4 * D * N)
    members = [cast(_inputs(np.random.default_rng(i), 20), "float32") for i in range(3)]
    arrays = [
        members[0][i] if axis is None else jnp.stack([m[i] for m in members])
        for i, axis in enumerate(mapped)
    ]
    results, truths = (
        jax.vmap(
            lambda *arrays, i=i: outputs_and_gradients(
                functools.partial(selective_scan, implementation=i), arrays
            ),
            mapped,
        )(*arrays)
        for i in ("xla", "reference")
    )
    assert_close(results, truths, 2 * TOLERANCE["float32"])  # two float32 computations


@pytest.fixture
def whole_tiles():
    """Leaves the kernels as they are."""


@pytest.mark.parametrize("implementation", ["pallas_tpu", "pallas_gpu"])
@pytest.mark.usefixtures("whole_tiles")
def test_kernels_in_many_blocks(monkeypatch, implementation):
    """Several blocks of width and time, the last not full, and a state size that is no power."""
    monkeypatch.setattr(pallas_tpu, "_STEPS", 16)
    size = {"B": 2, "T": 40, "D": {"pallas_tpu": 200, "pallas_gpu": 40}[implementation], "N": 3}
    (example,) = (e for e in examples("selective_scan") if e.name == "small")
    arrays = list(
        example.make(jax.random.split(jax.random.key(0), 8), jnp.float32, **size).values()
    )
    with tracing_for("selective_scan", implementation):
        results, truths = (
            outputs_and_gradients(functools.partial(selective_scan, implementation=i), arrays)
            for i in (implementation, "reference")
        )
    assert_close(results, truths, 2 * TOLERANCE["float32"])  # two float32 computations


def test_temporary_memory_of_the_gradient():
    """At most a quarter of [B, T, D, N], the states of all steps, for value and gradient on CPU."""
    (example,) = (e for e in examples("selective_scan") if e.name == "typical")
    arrays = jax.eval_shape(lambda: example.arrays(jax.random.key(0)))

    def run(arrays, weights):
        outputs, transpose = jax.vjp(lambda arrays: selective_scan(**arrays), arrays)
        return outputs, transpose(weights)

    outputs = jax.eval_shape(lambda arrays: selective_scan(**arrays), arrays)
    with dispatch.target("cpu"):
        memory = jax.jit(run).lower(arrays, outputs).compile().memory_analysis()
    states = 4 * math.prod(example.sizes.values())  # 512 MiB
    assert memory.temp_size_in_bytes <= states / 4


def test_output_dtype():
    suite = TestSelectiveScan()
    for platform in ("cpu", "gpu"):
        with dispatch.target(platform):
            y, h_last = selective_scan(*cast(suite.inputs("all", 5, "bfloat16"), "bfloat16"))
        assert (y.dtype, h_last.dtype) == (jnp.bfloat16, jnp.float32)
