"""Every implementation of every operator: values, final states and the gradient of every input.

The truth is the reference implementation under x64; its values are checked against loops in float64
numpy, written apart from the package.

Tolerances are on the root mean square of the error over that of the truth. float32 rounds by
ε = 6e-8; the longest chain is a few times T = 200 dependent operations, whose rounding adds up to
ε √(4 T) ≈ 2e-6, and an FFT adds ε log T: 1e-5 leaves a factor of five. bfloat16 inputs are exact in
the truth too, so that only the rounding of the result is left, 2^-9 = 2e-3: the same factor.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels
from pallas_kernels import Causal, Full, Window

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
LENGTHS = (1, 2, 63, 64, 65)  # around the borders of chunks and blocks
B = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs of an operator at any length.

    Attributes:
      operator: its name.
      make: (random generator, length) -> float64 arrays, which are differentiated.
      options: length -> further keyword arguments.
    """

    operator: str
    make: Callable[[np.random.Generator, int], list[np.ndarray]]
    options: Callable[[int], dict[str, Any]] = lambda length: {}


def _attention_inputs(rng, t, heads=2, groups=2, keys=None):
    s = keys or t
    return [
        rng.normal(size=(B, t, heads, 8)),
        rng.normal(size=(B, s, groups, 8)),
        rng.normal(size=(B, s, groups, 5)),
    ]


def _documents(t):
    """Two documents, then padding, in the first row; one document in the second."""
    ids = np.ones((B, t), np.int32)
    ids[0, t // 3 :] = 2
    ids[0, t - t // 4 :] = 0
    return ids


def _scan_inputs(rng, t, skip=True, state=True, step=1.0):
    d, n = 6, 4
    return [
        rng.normal(size=(B, t, d)),
        step * np.log1p(np.exp(rng.normal(size=(B, t, d)))),
        -np.exp(rng.normal(size=(d, n))),
        rng.normal(size=(B, t, n)),
        rng.normal(size=(B, t, n)),
        rng.normal(size=d) if skip else None,
        rng.normal(size=(B, d, n)) if state else None,
    ]


def _linear_inputs(rng, t, decay="channel", state=True, strength=1.0, resets=False):
    h, k, v = 2, 8, 5
    shape = {"none": None, "head": (B, t, h), "channel": (B, t, h, k)}[decay]
    g = None
    if shape is not None:
        # Magnitudes over three orders: strong decays beside weak ones are what breaks quotients.
        g = -strength * 10 ** rng.uniform(-3, 0.3, size=shape)
        if resets:
            g[:, :: max(t // 3, 1)] = -np.inf
    return [
        rng.normal(size=(B, t, h, k)),
        3 * rng.normal(size=(B, t, h, k)),  # keys are not normalised
        rng.normal(size=(B, t, h, v)),
        g,
        rng.normal(size=(B, h, k, v)) if state else None,
    ]


_partial = functools.partial
CASES = {
    "attention-causal": Case("attention", _attention_inputs, lambda t: {"mask": Causal()}),
    "attention-full": Case("attention", _attention_inputs, lambda t: {"mask": Full()}),
    "attention-window": Case("attention", _attention_inputs, lambda t: {"mask": Window(7)}),
    "attention-grouped": Case(
        "attention", _partial(_attention_inputs, heads=4), lambda t: {"mask": Causal()}
    ),
    "attention-documents": Case(
        "attention",
        _attention_inputs,
        lambda t: {
            "mask": Causal(),
            "q_segment_ids": _documents(t),
            "kv_segment_ids": _documents(t),
        },
    ),
    "attention-cache": Case(
        "attention",
        _partial(_attention_inputs, keys=90),
        lambda t: {"mask": Window(20), "q_offset": 10},
    ),
    "convolution": Case(
        "long_convolution", lambda rng, t: [rng.normal(size=(B, t, 6)), rng.normal(size=(6, t))]
    ),
    "convolution-short": Case(
        "long_convolution", lambda rng, t: [rng.normal(size=(B, t, 6)), rng.normal(size=(6, 5))]
    ),
    "convolution-batched": Case(
        "long_convolution", lambda rng, t: [rng.normal(size=(B, t, 6)), rng.normal(size=(B, 6, 70))]
    ),
    "convolution-circular": Case(
        "long_convolution",
        lambda rng, t: [rng.normal(size=(B, t, 6)), rng.normal(size=(6, t))],
        lambda t: {"causal": False},
    ),
    "scan": Case("selective_scan", _scan_inputs),
    "scan-bare": Case("selective_scan", _partial(_scan_inputs, skip=False, state=False)),
    "scan-strong": Case("selective_scan", _partial(_scan_inputs, step=30.0)),
    "linear": Case("gated_linear_attention", _linear_inputs),
    "linear-bare": Case(
        "gated_linear_attention", _partial(_linear_inputs, decay="none", state=False)
    ),
    "linear-undecayed": Case("gated_linear_attention", _partial(_linear_inputs, decay="none")),
    "linear-head": Case("gated_linear_attention", _partial(_linear_inputs, decay="head")),
    "linear-strong": Case("gated_linear_attention", _partial(_linear_inputs, strength=100.0)),
    "linear-resets": Case("gated_linear_attention", _partial(_linear_inputs, resets=True)),
    "linear-head-strong": Case(
        "gated_linear_attention",
        _partial(_linear_inputs, decay="head", strength=100.0, resets=True),
    ),
}
MAIN_CASES = ["attention-grouped", "convolution", "scan", "linear"]  # one an operator
main_cases = pytest.mark.parametrize("name", MAIN_CASES)


def _inputs(name, length, dtype):
    """float64 arrays whose values `dtype` can represent, so that the truth sees the same inputs."""
    arrays = CASES[name].make(np.random.default_rng(length), length)
    return [a if a is None else a.astype(dtype).astype(np.float64) for a in arrays]


def _cast(arrays, dtype):
    return [a if a is None else jnp.asarray(a, dtype) for a in arrays]


def _call(name, implementation, length):
    """The operator as a function of its arrays alone, with a tuple as result."""
    case = CASES[name]
    operator = getattr(pallas_kernels, case.operator)

    def call(*arrays):
        result = operator(*arrays, **case.options(length), implementation=implementation)
        return result if isinstance(result, tuple) else (result,)

    return call


def _outputs_and_gradients(call, arrays):
    """The outputs, and the gradients of a random weighting of them in every array that is there."""

    @jax.jit
    def run(arrays):
        outputs, transpose = jax.vjp(lambda arrays: call(*arrays), arrays)
        rng = np.random.default_rng(1)
        weights = tuple(jnp.asarray(rng.normal(size=o.shape), o.dtype) for o in outputs)
        return outputs, transpose(weights)[0]

    outputs, gradients = run(arrays)
    return [*outputs, *(g for g in gradients if g is not None)]


@functools.cache
def _truth(name, length, dtype):
    """Outputs and gradients of the reference in float64."""
    arrays = _inputs(name, length, dtype)
    with jax.enable_x64(True):
        results = _outputs_and_gradients(_call(name, "reference", length), _cast(arrays, "float64"))
        results = [np.asarray(r) for r in results]
    return results


def _assert_close(values, truths, tolerance):
    for i, (value, truth) in enumerate(zip(values, truths, strict=True)):
        value = np.asarray(value, np.float64)
        assert value.shape == truth.shape
        assert np.all(np.isfinite(value)), f"result {i} is not finite"
        error, size = (np.sqrt(np.mean(x**2)) for x in (value - truth, truth))
        assert error <= tolerance * size, f"result {i}: {error} against {size}"


def _check(name, implementation, length, dtype):
    arrays = _cast(_inputs(name, length, dtype), dtype)
    results = _outputs_and_gradients(_call(name, implementation, length), arrays)
    assert results[0].dtype == dtype
    _assert_close(results, _truth(name, length, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("name", CASES)
def test_truth_equals_loop(name, loops):
    case = CASES[name]
    outputs = loops[case.operator](*_inputs(name, 65, "float32"), **case.options(65))
    _assert_close(_truth(name, 65, "float32")[: len(outputs)], outputs, 1e-12)


@main_cases
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(name, length):
    _check(name, "xla", length, "float32")


@pytest.mark.parametrize("name", sorted(set(CASES) - set(MAIN_CASES)))
def test_options(name):
    _check(name, "xla", 65, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [*LENGTHS, 200])
def test_options_at_every_length(name, length):
    _check(name, "xla", length, "float32")


@main_cases
def test_reference_in_float32(name):
    _check(name, "reference", 65, "float32")


@main_cases
@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_bfloat16(name, implementation):
    _check(name, implementation, 65, "bfloat16")


@main_cases
def test_vmap_equals_loop(name):
    arrays = _cast(_inputs(name, 65, "float32"), "float32")
    call = _call(name, "xla", 65)
    single = [_outputs_and_gradients(call, [a * s for a in arrays]) for s in (1.0, 0.5)]

    @jax.jit
    @jax.vmap
    def mapped(arrays):
        return _outputs_and_gradients(call, arrays)

    stacked = mapped([jnp.stack([a, 0.5 * a]) for a in arrays])
    for i in range(2):
        _assert_close([r[i] for r in stacked], [np.asarray(r) for r in single[i]], 1e-6)


def test_jit_changes_only_rounding():
    arrays = _cast(_inputs("scan", 65, "float32"), "float32")
    call = _call("scan", "xla", 65)
    _assert_close(jax.jit(call)(*arrays), [np.asarray(o) for o in call(*arrays)], 1e-6)


def test_reset_equals_a_fresh_start():
    q, k, v, g, state = _cast(_inputs("linear", 65, "float32"), "float32")
    g = g.at[:, 30].set(-jnp.inf)
    run = jax.jit(pallas_kernels.gated_linear_attention)
    o, last = run(q, k, v, g, state)
    fresh = run(*(x[:, 30:] for x in (q, k, v, g)))
    _assert_close([o[:, 30:], last], [np.asarray(r) for r in fresh], 1e-6)


def test_attention_offset_may_be_traced():
    q, k, v = _cast(_inputs("attention-cache", 65, "float32"), "float32")
    run = jax.jit(
        lambda offset: pallas_kernels.attention(q, k, v, mask=Window(20), q_offset=offset)
    )
    _assert_close([run(10)], _truth("attention-cache", 65, "float32")[:1], TOLERANCE["float32"])


@pytest.mark.parametrize("mask", [Causal(), Window(150)], ids=str)
def test_attention_in_blocks(mask):
    """Longer than a block of queries, so that blocks are skipped and recomputed."""
    rng = np.random.default_rng(0)
    arrays = _cast([rng.normal(size=(1, 300, 1, 8)) for _ in range(3)], "float32")
    results = [
        _outputs_and_gradients(
            lambda *a, i=implementation: (
                pallas_kernels.attention(*a, mask=mask, implementation=i),
            ),
            arrays,
        )
        for implementation in ("xla", "reference")
    ]
    _assert_close(results[0], [np.asarray(r) for r in results[1]], TOLERANCE["float32"])
