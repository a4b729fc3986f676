"""The optional library for Hopper GPUs: what it refuses, and that its conventions are ours.

Off Hopper jla computes in plain JAX, which holds the mapping of arguments to the reference. Of its
kernels, Pallas' interpreter runs those of gated linear attention, and the selective scan's forward.
"""

import functools
import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operator_suite import TOLERANCE, assert_close, cast, outputs_and_gradients

import pallas_kernels
from pallas_kernels import dispatch, hopper

B, H = 2, 2


def _qkv(rng, t, K, V, heads=H):
    return [
        rng.normal(size=(B, t, heads, K)),
        rng.normal(size=(B, t, heads, K)) * K**-0.5,
        rng.normal(size=(B, t, heads, V)),
    ]


def _log_decay(rng, shape, resets):
    """Of ordinary size; `resets` is the share of the decays that are exactly zero."""
    decays = np.where(rng.random(shape) < resets, -np.inf, -np.exp(rng.normal(size=shape) - 3))
    if resets:
        decays[:, shape[1] // 2] = -np.inf  # a document's first token
    return decays


def _gated_linear_attention(rng, t, K=8, V=5, decay="channel", resets=0.0, state=True):
    shape = {"channel": (B, t, H, K), "head": (B, t, H)}.get(decay)
    return [
        *_qkv(rng, t, K, V),
        None if shape is None else _log_decay(rng, shape, resets),
        rng.normal(size=(B, H, K, V)) if state else None,
    ]


def _gated_delta_rule(rng, t, K=8, V=5, decay=True, resets=0.0, state=True):
    return [
        *_qkv(rng, t, K, V),
        1 / (1 + np.exp(-rng.normal(size=(B, t, H)))),
        _log_decay(rng, (B, t, H), resets) if decay else None,
        rng.normal(size=(B, H, K, V)) if state else None,
    ]


def _selective_scan(rng, t, D=6, N=5, skip=True, state=True, step=1.0):
    return [
        rng.normal(size=(B, t, D)),
        step * np.log1p(np.exp(rng.normal(size=(B, t, D)))),
        -np.exp(rng.normal(size=(D, N))),
        rng.normal(size=(B, t, N)),
        rng.normal(size=(B, t, N)),
        rng.normal(size=D) if skip else None,
        rng.normal(size=(B, D, N)) if state else None,
    ]


CASES = {
    "gated_linear_attention": {
        "channel": _gated_linear_attention,
        "head": functools.partial(_gated_linear_attention, decay="head"),
        "none": functools.partial(_gated_linear_attention, decay=None, state=False),
        "wide": functools.partial(_gated_linear_attention, K=65, V=70),
        "channel_resets": functools.partial(_gated_linear_attention, resets=0.1),
        "head_resets": functools.partial(_gated_linear_attention, decay="head", resets=0.1),
    },
    "gated_delta_rule": {
        "decay": _gated_delta_rule,
        "none": functools.partial(_gated_delta_rule, decay=False, state=False),
        "wide": functools.partial(_gated_delta_rule, K=70, V=130),
        "resets": functools.partial(_gated_delta_rule, resets=0.1),
    },
    "selective_scan": {
        "all": _selective_scan,
        "bare": functools.partial(_selective_scan, skip=False, state=False),
        "strong": functools.partial(_selective_scan, step=30.0),  # decays of exactly zero
    },
}
OPERATORS = tuple(CASES)
EVERY_CASE = [
    pytest.param(operator, make, length, id=f"{operator}-{name}-{length}")
    for operator, cases in CASES.items()
    for i, (name, make) in enumerate(cases.items())
    for length in ((1, 65) if i == 0 else (65,))
]
WITH_RESETS = [
    (operator, name) for operator, cases in CASES.items() for name in cases if "resets" in name
]


def _arrays(operator, name="", t=65, dtype="bfloat16"):
    make = CASES[operator].get(name) or next(iter(CASES[operator].values()))
    return cast(make(np.random.default_rng(t), t), dtype)


def _scale(operator, arrays):
    return {} if operator == "selective_scan" else {"scale": arrays[0].shape[-1] ** -0.5}


@pytest.fixture
def adapter(monkeypatch):
    """operator -> jla's form of it, in plain JAX instead of its kernels."""
    pytest.importorskip("jla")
    monkeypatch.setattr(hopper, "KERNELS", "chunked")

    def get(operator):
        module = importlib.import_module(f"pallas_kernels.{operator}.jla")
        return getattr(module, operator)

    return get


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a Hopper GPU, with jla and its jax; takes what should be otherwise."""

    def pretend(capability="9.0", installed=True, version=hopper.JAX_VERSION):
        gpu = types.SimpleNamespace(compute_capability=capability, device_kind="NVIDIA A100")
        monkeypatch.setattr(jax, "devices", lambda: [gpu])
        monkeypatch.setattr(jax, "__version__", version)
        monkeypatch.setattr(hopper.importlib.util, "find_spec", lambda name: installed or None)

    return pretend


def _why(operator, *arrays):
    with dispatch.target("gpu"):
        return dispatch.available(operator, *arrays, **_scale(operator, arrays))["jla"]


@pytest.mark.parametrize("operator", OPERATORS)
class TestObstacle:
    def test_none_on_hopper(self, operator, machine):
        machine()
        assert _why(operator, *_arrays(operator)) is None

    def test_other_platform(self, operator):
        arrays = _arrays(operator)
        if jax.default_backend() != "gpu":
            why = dispatch.available(operator, *arrays, **_scale(operator, arrays))["jla"]
            assert why == f"it needs a gpu, and this is a {jax.default_backend()}"

    def test_other_gpu(self, operator, machine):
        machine(capability="8.0")
        assert "compute capability 9.0), and this is NVIDIA A100" in _why(
            operator, *_arrays(operator)
        )

    def test_not_installed(self, operator, machine):
        machine(installed=False)
        assert "pip install 'seqbench[hopper]'" in _why(operator, *_arrays(operator))

    def test_other_jax(self, operator, machine):
        machine(version="0.10.2")
        why = "jla needs jax 0.11.2 exactly, and this is jax 0.10.2"
        assert _why(operator, *_arrays(operator)) == why

    def test_runs_on_request_only(self, operator, machine):
        machine()
        with dispatch.target("gpu"):
            assert pallas_kernels.chosen(operator, *_arrays(operator)) != "jla"


class TestRefusals:
    @pytest.mark.parametrize("operator", ["gated_linear_attention", "gated_delta_rule"])
    def test_float32(self, operator, machine):
        machine()
        why = _why(operator, *_arrays(operator, dtype="float32"))
        assert why == "it takes bfloat16, and q is float32"

    def test_float64_scan(self, machine):
        machine()
        u, *others = _arrays("selective_scan")
        u = jax.ShapeDtypeStruct(u.shape, np.float64)
        assert "u is float64" in _why("selective_scan", u, *others)

    @pytest.mark.parametrize(
        ("operator", "K", "V", "able"),
        [
            ("gated_linear_attention", 128, 128, True),
            ("gated_linear_attention", 128, 129, False),
            ("gated_delta_rule", 256, 512, True),
            ("gated_delta_rule", 257, 64, False),
        ],
    )
    def test_widths(self, operator, K, V, able, machine):
        machine()
        make = next(iter(CASES[operator].values()))
        why = _why(operator, *cast(make(np.random.default_rng(0), 3, K=K, V=V), "bfloat16"))
        assert why == (None if able else f"no kernel takes heads with K = {K} and V = {V}")

    def test_large_state(self, machine):
        machine()
        arrays = cast(_selective_scan(np.random.default_rng(0), 3, N=33), "float32")
        assert "at most 32 per channel, and N = 33" in _why("selective_scan", *arrays)


# jla's forms carry sums of log-decays over a chunk of 64 tokens. A reset adds 128 to them, so that
# n resets in a chunk round the decays between its tokens by 2^-24 × 128 n = 8e-6 n relative to 1.
# Below n is 7 on average, which is 5e-5, and a result gathers a few such roundings.
RESET_TOLERANCE = 2e-4


@pytest.mark.parametrize(("operator", "make", "length"), EVERY_CASE)
def test_equals_reference(operator, make, length, adapter):
    arrays = cast(make(np.random.default_rng(length), length), "float32")
    call = functools.partial(adapter(operator), **_scale(operator, arrays))
    reference = functools.partial(getattr(pallas_kernels, operator), implementation="reference")
    has_resets = any(bool(jnp.isneginf(a).any()) for a in arrays if a is not None)
    tolerance = RESET_TOLERANCE if has_resets else TOLERANCE["float32"]
    with jax.enable_x64(True):
        wide = cast([None if a is None else np.asarray(a) for a in arrays], "float64")
        truth = [np.asarray(r) for r in outputs_and_gradients(reference, wide)]
    assert_close(outputs_and_gradients(call, arrays), truth, tolerance)


@pytest.mark.parametrize(("operator", "name"), WITH_RESETS)
def test_nothing_crosses_a_reset(operator, name, adapter):
    """Not even a billionth: the past may be multiplied by 1e9 without changing a bit after it."""
    arrays = _arrays(operator, name, dtype="float32")
    call = functools.partial(adapter(operator), **_scale(operator, arrays))
    first = 65 // 2  # token at which every channel resets
    past = (jnp.arange(65) < first)[:, None, None]
    other = [*arrays[:2], jnp.where(past, 1e9 * arrays[2], arrays[2]), *arrays[3:-1]]

    @jax.jit
    def future(arrays):
        o, state = call(*arrays)
        return o[:, first:], state

    for result, again in zip(future(arrays), future([*other, 1e9 * arrays[-1]]), strict=True):
        np.testing.assert_array_equal(result, again)
    loss = jax.jit(lambda arrays: sum(jnp.sum(r**2) for r in future(arrays)))
    gradients = jax.grad(loss)(arrays)
    *tokens, initial_state = gradients
    assert not np.any(initial_state)
    for gradient in tokens:
        assert np.all(np.isfinite(gradient))
    for gradient in tokens[1:3]:  # what the past has written
        assert not np.any(gradient[:, :first])


def test_kernels_take_resets(monkeypatch):
    """jla's kernels for gated linear attention, in Pallas' interpreter, in bfloat16."""
    pytest.importorskip("jla")
    from jla.ops.mosaic_gpu import gla_kernels

    def interpreted(kind, q, k, v, *, g, impl, output_final_state, **options):
        assert (kind, impl, output_final_state) == ("gla", "mosaic_gpu", True)
        return gla_kernels.chunked_gla(q, k, v, g, interpret=True, **options)

    monkeypatch.setattr("jla.ops.linear_attention", interpreted)
    module = importlib.import_module("pallas_kernels.gated_linear_attention.jla")
    arrays = cast(_gated_linear_attention(np.random.default_rng(0), 65, resets=0.1), "bfloat16")
    reference = functools.partial(pallas_kernels.gated_linear_attention, implementation="reference")
    with jax.enable_x64(True):
        wide = cast([np.asarray(a).astype(np.float64) for a in arrays], "float64")
        truth = [np.asarray(r) for r in outputs_and_gradients(reference, wide)]
    call = functools.partial(module.gated_linear_attention, scale=8**-0.5)
    outputs, transpose = jax.vjp(call, *arrays)
    rng = np.random.default_rng(1)
    weights = tuple(jnp.asarray(rng.normal(size=o.shape), o.dtype) for o in outputs)
    assert_close([*outputs, *transpose(weights)], truth, TOLERANCE["bfloat16"])


def test_kernel_takes_padding_and_vmap():
    """jla's kernel for the selective scan, in Pallas' interpreter: T, D and N are all padded."""
    pytest.importorskip("jla")
    from jax.experimental.pallas import mosaic_gpu

    module = importlib.import_module("pallas_kernels.selective_scan.jla")
    models = [cast(_selective_scan(np.random.default_rng(i), 40), "float32") for i in range(2)]
    arrays = [jnp.stack(pair) for pair in zip(*models, strict=True)]
    reference = functools.partial(pallas_kernels.selective_scan, implementation="reference")
    with jax.enable_x64(True):
        wide = cast([np.asarray(a) for a in arrays], "float64")
        truth = [np.asarray(r) for r in jax.vmap(reference)(*wide)]
    with mosaic_gpu.force_gpu_interpret_mode():
        assert_close(jax.vmap(module.selective_scan)(*arrays), truth, TOLERANCE["float32"])
