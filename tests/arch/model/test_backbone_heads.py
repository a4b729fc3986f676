"""What enters and leaves a backbone: features, padding, the heads that judge whole sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backbones import REAL, TOLERANCE, B, C, D, F, T, V, build, error, forward, ids, padded
from flax import nnx

from arch.model.heads import ClassHead, PairHead

apply = jax.jit(lambda layer, *inputs: layer(*inputs))


def mean(x, mask):
    """[B, T, D] and [B, T] to [B, D] in float64, one row after the other."""
    return np.stack(
        [np.asarray(row, np.float64)[m].mean(0) for row, m in zip(x, mask, strict=True)]
    )


def affine(layer, x):
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def encoded(model, x):
    """The blocks and the final norm on rows without padding, one layer after the other."""
    x = model.embed(x)
    for run in model.runs:
        for i in range(jax.tree.leaves(run)[0].shape[0]):
            for stacked in run:
                x = apply(jax.tree.map(lambda leaf, i=i: leaf[i], stacked), x)
    return model.final_norm(x)


class TestHeads:
    """Against float64; rows of different lengths, of which one is full."""

    x = np.random.default_rng(0).normal(size=(4, T, D)).astype(np.float32)
    mask = np.arange(T) < np.array([[T], [1], [5], [T - 1]])

    def test_class(self):
        head = ClassHead(D, C, rngs=nnx.Rngs(0))
        expected = affine(head.out, mean(self.x, self.mask))[:, None]
        assert head(self.x, self.mask).shape == (4, 1, C)
        # Three sums of at most T · D = 208 terms: 3 · 208 · 6e-8 of their terms, at the very most.
        np.testing.assert_allclose(head(self.x, self.mask), expected, atol=4e-5)
        unpadded = affine(head.out, np.mean(self.x, 1, dtype=np.float64))[:, None]
        np.testing.assert_allclose(head(self.x), unpadded, atol=4e-5)

    def test_pair(self):
        head = PairHead(D, C, rngs=nnx.Rngs(0))
        means = mean(self.x, self.mask)
        expected = []
        for x, y in ((means[0], means[1]), (means[2], means[3])):
            hidden = affine(head.hidden, np.concatenate([x, y, x * y, x - y]))
            expected.append([affine(head.out, np.maximum(hidden, 0))])
        np.testing.assert_allclose(head(self.x, self.mask), expected, atol=4e-5)

    def test_what_stands_in_padding_does_not_get_through(self):
        head = ClassHead(D, C, rngs=nnx.Rngs(0))
        spoilt = np.where(self.mask[..., None], self.x, np.nan)
        np.testing.assert_array_equal(head(spoilt, self.mask), head(self.x, self.mask))


def test_a_class_model_is_its_encoder_and_its_head():
    model, x = build(), ids((B, T))
    expected = affine(model.head.out, mean(encoded(model, x), np.ones((B, T), bool)))
    assert error(forward(model, x, None)[:, 0], expected) < TOLERANCE
    ignored = model(x, jnp.zeros((B, 1), jnp.int32))  # a batch has positions for whatever head
    assert error(ignored[:, 0], expected) < TOLERANCE


def test_a_pair_model_encodes_both_alike_and_apart():
    """By hand, each tower without the padding of its row."""
    model, x = build(head="pair"), ids((B, 2, T))
    lengths = np.array([[T, 5], [5, T], [5, 5]])
    logits = forward(model, x, jnp.arange(T) < lengths[..., None])
    assert logits.shape == (B, 1, C)
    for pair, sizes, actual in zip(x, lengths, logits, strict=True):
        u, v = (
            np.asarray(encoded(model, row[None, :size])[0], np.float64).mean(0)
            for row, size in zip(pair, sizes, strict=True)
        )
        hidden = affine(model.head.hidden, np.concatenate([u, v, u * v, u - v]))
        assert error(actual[0], affine(model.head.out, np.maximum(hidden, 0))) < TOLERANCE


def test_features_enter_by_a_linear_map():
    model = build(num_features=F, position_embedding=True)
    x = np.random.default_rng(0).normal(size=(B, T, F)).astype(np.float32)
    expected = affine(model.features, x) + np.asarray(model.position_embedding[...])[:T]
    np.testing.assert_allclose(model.embed(x), expected, atol=1e-6)  # F + 2 terms of about 1
    logits = forward(model, x, None)
    assert logits.shape == (B, 1, C)
    pooled = mean(encoded(model, x), np.ones((B, T), bool))
    assert error(logits[:, 0], affine(model.head.out, pooled)) < TOLERANCE


@pytest.mark.parametrize("head", ["class", "pair"])
@pytest.mark.parametrize("num_features", [None, F])
def test_every_parameter_of_every_layer_learns(head, num_features):
    given = {} if num_features is None else {"num_features": num_features}
    model = build(head=head, channel_mixer="mlp", position_embedding=True, **given)
    shape = (B, *[2] * (head == "pair"), T)
    x = ids(shape) if num_features is None else jax.random.normal(jax.random.key(0), (*shape, F))
    mask = jnp.broadcast_to(jnp.arange(T) < REAL, shape)

    def loss(model):
        return -jax.nn.log_softmax(model(x, mask=mask))[..., 0].mean()

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(model)):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), name
        layers = np.asarray(gradient).reshape(2 if "runs" in name else 1, -1)
        assert np.all(np.any(layers != 0, axis=1)), name


@pytest.mark.parametrize("head", ["class", "pair"])
def test_population_under_vmap(head):
    models = [build(head=head, seed=seed) for seed in range(3)]
    x, mask = padded(ids((B, *[2] * (head == "pair"), REAL)), T, 1, axis=1 + (head == "pair"))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    logits = jax.jit(jax.vmap(lambda m: m(x, mask=mask)))(stacked)
    for single, model in zip(logits, models, strict=True):
        assert error(single, forward(model, x, mask)) < TOLERANCE


@pytest.mark.parametrize("head", ["class", "pair"])
def test_bfloat16_stays_close(head):
    """8 bits of mantissa, 4e-3 a rounding, about ten in a row; the head itself is in float32."""
    x, mask = padded(ids((B, *[2] * (head == "pair"), REAL)), T, 1, axis=1 + (head == "pair"))
    half = forward(build(head=head, compute_dtype="bfloat16"), x, mask)
    assert half.dtype == jnp.float32
    assert error(half, forward(build(head=head), x, mask)) < 3e-2


@pytest.mark.parametrize("head", ["class", "pair"])
def test_a_whole_sequence_is_not_fed_part_by_part(head):
    model = build("causal gla", head=head)
    for call in (lambda: model.initial_state(1, T), lambda: model.extend(None, ids((1, T)))):
        with pytest.raises(ValueError, match=f"head is '{head}', .* expected 'token'"):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocab_size": None}, "vocab_size is None and num_features None, expected one of them"),
        ({"vocab_size": V, "num_features": F}, "vocab_size is 11 and num_features 3, expected one"),
        ({"num_features": 0}, "num_features is 0, expected at least 1"),
        ({"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ({"head": "klass"}, "head is 'klass', expected one of 'token', 'class', 'pair'"),
        ({"num_classes": None}, "num_classes is None, expected a number for the head 'class'"),
        ({"num_classes": 1}, "num_classes is 1, expected at least 2"),
        ({"head": "token"}, "num_classes is 4, expected None for the head 'token'"),
        (
            {"head": "token", "num_classes": None, "num_features": F},
            "head is 'token', .* vocab_size is None",
        ),
        ({"dropout": 1.0}, "dropout is 1.0, expected a rate"),
        ({"embedding_dropout": -0.1}, "embedding_dropout is -0.1, expected a rate"),
    ],
)
def test_what_cannot_be_built_is_named(options, words):
    with pytest.raises(ValueError, match=words) as raised:
        build(**options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "inputs", "mask", "words"),
    [
        ({}, jnp.ones((B, T)), None, r"float32 \[3, 13\], expected integer ids \[B, T\]"),
        ({}, ids((B, 2, T)), None, r"int32 \[3, 2, 13\], expected integer ids \[B, T\]"),
        ({"head": "pair"}, ids((B, T)), None, r"\[3, 13\], expected integer ids \[B, 2, T\]"),
        ({"head": "pair"}, ids((B, 3, T)), None, r"expected integer ids \[B, 2, T\]"),
        (
            {"num_features": F},
            jnp.ones((B, T, 2)),
            None,
            r"\[3, 13, 2\], expected floating features \[B, T, 3\]",
        ),
        ({"num_features": F}, ids((B, T, F)), None, "int32 .* expected floating features"),
        ({}, ids((B, T)), jnp.ones((B, T - 1), bool), r"mask is bool \[3, 12\], .* \[3, 13\]"),
        ({}, ids((B, T)), jnp.ones((B, T)), r"mask is float32 \[3, 13\], expected bool"),
        ({"head": "pair"}, ids((B, 2, T)), jnp.ones((B, T), bool), r"expected bool \[3, 2, 13\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(options, inputs, mask, words):
    with pytest.raises(ValueError, match=words) as raised:
        build(**options)(inputs, mask=mask)
    assert "\n" not in str(raised.value)
