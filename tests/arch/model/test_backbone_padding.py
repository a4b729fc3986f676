"""Padding behind a sequence changes no logit, whatever mixes the sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backbones import MIXERS, REAL, TOLERANCE, B, C, D, T, V, build, error, forward, ids, padded
from flax import nnx

import arch

SLOW = ("s4", "s4d", "bidirectional gla", "causal s4d", "causal gla")  # to compile


@pytest.mark.parametrize(
    "mixer", [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in MIXERS]
)
def test_padding_changes_no_class(mixer):
    """Neither what stands in it, nor how much there is, nor a row that holds nothing else."""
    model, x = build(mixer), ids((B, REAL))
    expected = forward(model, x, None)

    @jax.jit
    def step(model, x, mask):
        def loss(model):
            logits = model(x, mask=mask)
            return (logits**2).sum(), logits

        (_, logits), gradients = jax.value_and_grad(loss, has_aux=True)(model)
        return logits, gradients

    for seed in (1, 2):
        noise, mask = padded(x, T, seed)
        logits, gradients = step(model, noise, mask)
        assert error(logits, expected) < TOLERANCE
    # Backward, as many stages again.
    direct = jax.jit(jax.grad(lambda m: (m(x) ** 2).sum()))(model)
    for actual, truth in zip(*map(jax.tree.leaves, (gradients, direct)), strict=True):
        assert error(actual, truth) < 10 * TOLERANCE

    everything = jnp.ones_like(mask)
    assert error(step(model, noise, everything)[0], expected) > 1e-2  # the mask does act
    logits, gradients = step(model, noise, mask.at[1].set(False))
    assert error(logits[::2], expected[::2]) < TOLERANCE
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves((logits, gradients)))


@pytest.mark.parametrize("mixer", ["attention", "s4d"])
def test_padding_changes_no_pair(mixer):
    model, x = build(mixer, head="pair"), ids((B, 2, REAL))
    expected = forward(model, x, None)
    for seed in (1, 2):
        noise, mask = padded(x, T, seed, axis=2)
        assert error(forward(model, noise, mask), expected) < TOLERANCE
    assert error(forward(model, noise, jnp.ones_like(mask)), expected) > 1e-2


def test_padding_changes_no_token():
    model, x = build("s4d", head="token", num_classes=None), ids((B, REAL))
    noise, mask = padded(x, T, 1)
    assert error(forward(model, noise, mask)[:, :REAL], forward(model, x, None)) < TOLERANCE


def test_a_mask_and_documents_are_not_both_given():
    context = arch.Context(segment_ids=jnp.ones((B, T), jnp.int32))
    with pytest.raises(ValueError, match=r"mask and context.segment_ids are both given"):
        build()(ids((B, T)), context=context, mask=jnp.ones((B, T), bool))


def test_a_mixer_that_cannot_take_padding_says_so():
    model = arch.Backbone(
        "orchid", D, num_layers=1, vocab_size=V, max_length=T, head="class", num_classes=C,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    with pytest.raises(ValueError, match="Orchid cannot keep packed documents apart"):
        model(ids((B, T)), mask=jnp.ones((B, T), bool))
