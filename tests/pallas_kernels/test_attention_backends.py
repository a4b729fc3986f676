"""Attention by the backends of accelerators, splash and cuDNN, and why they refuse."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import B, each_example, each_mask, packed
from operator_suite import TOLERANCE, assert_close, cast, lower, outputs_and_gradients

import pallas_kernels
from pallas_kernels import Causal, Full, Strided, Window, dispatch


@each_mask
def test_splash_in_the_interpreter(mask):
    _check_bfloat16("splash", "tpu", {"mask": mask})


@pytest.mark.parametrize("mask", [Full(), Strided(5)], ids=str)
def test_splash_keeps_documents_apart(mask):
    _check_bfloat16("splash", "tpu", packed(mask, 65))


@each_example
def test_splash_lowers(example):
    """Splash attention, forward and backward, for a TPU."""
    text = _lowered(example, "splash", "tpu")
    assert text.count("tpu_custom_call") == 3  # forward; dk and dv; dq


@pytest.mark.parametrize("mask", [Full(), Causal(), Window(7)], ids=str)
def test_cudnn_is_asked_for_the_same(mask, monkeypatch):
    plain = jax.nn.dot_product_attention

    def elsewhere(*args, implementation, **options):
        assert implementation == "cudnn"
        return plain(*args, **options, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", elsewhere)
    _check_bfloat16("cudnn", "gpu", {"mask": mask})


@each_example
def test_cudnn_lowers(example, monkeypatch):
    """The call that jax hands to cuDNN, were it here; it names only causal masks and windows."""
    installed = types.SimpleNamespace(cudnn_get_version=lambda: 91_000)
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.cuda_versions", installed)
    if not isinstance(example.options["mask"], Causal | Window):
        with pytest.raises(ValueError, match="knows the masks"):
            _lowered(example, "cudnn", "gpu")
        return
    text = _lowered(example, "cudnn", "gpu")
    assert text.count("custom_call @__cudnn") == 2
    window = getattr(example.options["mask"], "size", 0)
    for setting in ("mask_type\\22: \\22CAUSAL", f"sliding_window_length\\22: {window},"):
        assert text.count(setting) == 2


_QKV = [jax.ShapeDtypeStruct((1, 64, 2, 16), jnp.bfloat16)] * 3
_WIDE, _FLOAT32, _LONGER = (
    [jax.ShapeDtypeStruct(shape, dtype)] * n
    for shape, dtype, n in (
        ((1, 64, 2, 12), jnp.bfloat16, 3),
        ((1, 64, 2, 16), jnp.float32, 3),
        ((1, 65, 2, 16), jnp.bfloat16, 2),
    )
)
_IDS = [jax.ShapeDtypeStruct((1, 64), jnp.int32) for _ in range(2)]
_TWO_IDS = dict(zip(("q_segment_ids", "kv_segment_ids"), _IDS, strict=True))


@pytest.mark.parametrize(
    ("platform", "arrays", "options", "words"),
    [
        ("cpu", _QKV, {}, {"cudnn": "needs a gpu", "splash": "needs a tpu"}),
        ("gpu", _QKV, {}, {"cudnn": None, "splash": "needs a tpu"}),
        ("tpu", _QKV, {}, {"cudnn": "needs a gpu", "splash": None}),
        ("gpu", _FLOAT32, {}, {"cudnn": "bfloat16"}),
        ("tpu", _FLOAT32, {}, {"splash": "bfloat16"}),
        ("gpu", _WIDE, {}, {"cudnn": "multiple of 8"}),
        ("gpu", _QKV, {"mask": Strided(8)}, {"cudnn": "Strided"}),
        ("gpu", _QKV, _TWO_IDS, {"cudnn": "segment ids"}),
        ("tpu", _QKV, _TWO_IDS, {"splash": "one array"}),
        ("gpu", _QKV, {"q_offset": 1}, {"cudnn": "q_offset=0"}),
        ("tpu", [_QKV[0], *_LONGER], {}, {"splash": "as many keys"}),
    ],
)
def test_obstacles_on_accelerators(platform, arrays, options, words):
    with dispatch.target(platform):
        able = dispatch.available("attention", *arrays, **options)
        assert dispatch.chosen("attention", *arrays, **options) == "xla"
    for implementation, word in words.items():
        why = able[implementation]
        assert why is None if word is None else word in why


def _check_bfloat16(implementation, platform, options):
    """These kernels round the weights to bfloat16 as well: an error of 2^-9 once more."""
    rng = np.random.default_rng(0)
    shapes = [(B, 65, 4, 8), (B, 65, 2, 8), (B, 65, 2, 8)]
    arrays = cast([rng.normal(size=shape) for shape in shapes], "bfloat16")
    if "q_segment_ids" in options:
        options["kv_segment_ids"] = options["q_segment_ids"]

    def results(implementation, arrays):
        options_ = {**options, "implementation": implementation}
        return outputs_and_gradients(lambda *a: (pallas_kernels.attention(*a, **options_),), arrays)

    with dispatch.target(platform, interpret=True):
        values = results(implementation, arrays)
    with jax.enable_x64(True):
        truth = [np.asarray(x) for x in results("reference", cast(arrays, "float64"))]
    assert_close(values, truth, TOLERANCE["bfloat16"])


def _lowered(example, implementation, platform):
    arrays = jax.eval_shape(lambda: example.arrays(jax.random.key(0), jnp.bfloat16))

    def loss(arrays):
        o = pallas_kernels.attention(**arrays, **example.options, implementation=implementation)
        return jnp.sum(o.astype(jnp.float32))

    return lower(jax.value_and_grad(loss), platform, arrays)
