"""Dropout on what enters the residual stream: its mean, its rate, and independent draws."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.model.block import Block

B, T, D, V, RATE = 4, 64, 16, 5, 0.3
IDS = jax.random.randint(jax.random.key(1), (B, T), 0, V)


class Constant(arch.SequenceMixer):
    """Adds the same number everywhere, so that the residual stream counts what was not dropped."""

    value = 1.0

    def __init__(self, d_model, *, rngs):
        del d_model, rngs

    def __call__(self, x, context=None):
        return jnp.full_like(x, self.value)


class Tens(Constant):
    value = 10.0


class Stream(nnx.Module):
    """In place of norm and head: shows the residual stream."""

    def __call__(self, x, mask=None):
        return x


def build(mixer="base_conv", num_layers=2, **options):
    return arch.Backbone(
        mixer, D, num_layers=num_layers, vocab_size=V, max_length=T, rngs=nnx.Rngs(0), **options
    )


def counts(classes, num_layers, seed=0):
    """How many ones and how many tens were kept at each entry, [B · T · D] each."""
    names = [f"{__name__}:{cls.__name__}" for cls in classes]
    model = build(names, num_layers, head="class", num_classes=2, dropout=RATE)
    model.final_norm, model.head = Stream(), Stream()
    kept = model(IDS, context=arch.Context(rng=jax.random.key(seed))) - model.embed(IDS)
    digits = np.rint(np.asarray(kept, np.float64) * (1 - RATE)).astype(int).ravel()
    return digits % 10, digits // 10


def binomial(n, k):
    return math.comb(n, k) * (1 - RATE) ** k * RATE ** (n - k)


def check_frequency(happened, probability):
    """Within 5 standard errors of independent draws, missed once in two million."""
    margin = 5 * math.sqrt(probability * (1 - probability) / happened.size)
    assert abs(happened.mean() - probability) < margin


def test_keeps_the_mean_and_the_rest_is_zero():
    """Over 2,000 keys; each entry is y / (1 − p) or 0, of standard deviation |y| √(p / (1 − p))."""
    mixer = arch.build("base_conv", D, rngs=nnx.Rngs(0))
    block = Block(mixer, D, "layer", "none", RATE, rngs=nnx.Rngs(1))
    x = jax.random.normal(jax.random.key(0), (1, 5, D))
    y = block(x) - x
    keys = jax.random.split(jax.random.key(2), 2000)
    added = jax.jit(jax.vmap(lambda key: block(x, rng=key)))(keys) - x
    zero = np.isclose(added, 0, atol=1e-6)  # x + y − x, in which an eps of x is left
    np.testing.assert_allclose(added, np.where(zero, 0, y / (1 - RATE)), atol=1e-6)
    check_frequency(zero, RATE)
    margin = 5 * np.abs(y) * math.sqrt(RATE / (1 - RATE) / len(keys))
    assert np.all(np.abs(added.mean(0) - y) <= margin + 1e-6)


@pytest.mark.parametrize(
    ("classes", "num_layers", "ones", "tens"),
    [
        ([Constant], 3, 3, 0),  # one scan over layers that are alike
        ([Constant, Tens], 4, 2, 2),  # a repeated unit of two
        ([Constant, Tens, Tens], 3, 1, 2),  # two scans
    ],
)
def test_layers_draw_independently(classes, num_layers, ones, tens):
    kept_ones, kept_tens = counts(classes, num_layers)
    for i, j in itertools.product(range(ones + 1), range(tens + 1)):
        expected = binomial(ones, i) * binomial(tens, j)
        check_frequency((kept_ones == i) & (kept_tens == j), expected)


def test_mixer_and_channel_mixer_draw_independently():
    mixer = Constant(D, rngs=nnx.Rngs(0))
    block = Block(mixer, D, "layer", "mlp", RATE, rngs=nnx.Rngs(0))
    block.channel_mixer = Tens(D, rngs=nnx.Rngs(0))
    kept = block(jnp.zeros((B, T, D)), rng=jax.random.key(0))
    digits = np.rint(np.asarray(kept) * (1 - RATE)).astype(int)
    for i, j in itertools.product(range(2), range(2)):
        check_frequency(digits == i + 10 * j, binomial(1, i) * binomial(1, j))


def test_keys_and_positions_differ():
    """Two of 256 rows of 16 entries agree with probability (p² + (1 − p)²)¹⁶ = 1.3e-4, so that
    some four of 32,640 pairs do: more than 230 rows differ from all others.
    """
    first, second = (counts([Constant], 1, seed)[0].reshape(-1, D) for seed in (0, 1))
    assert len(np.unique(first, axis=0)) > 230
    agreement = binomial(1, 0) ** 2 + binomial(1, 1) ** 2
    check_frequency(first == second, agreement)
    np.testing.assert_array_equal(first, counts([Constant], 1, 0)[0].reshape(-1, D))


def program(model, rng=None):
    """The text of a model's forward pass with a key among its arguments."""
    return str(jax.make_jaxpr(lambda m, rng: m(IDS, context=arch.Context(rng=rng)))(model, rng))


def test_costs_nothing_where_nothing_is_dropped():
    plain, dropping = build(), build(dropout=RATE)
    key = jax.random.key(0)
    assert program(dropping) == program(plain)
    assert "random" not in program(plain, key)
    assert "random" in program(dropping, key)


def test_recomputed_blocks_drop_the_same():
    """Where a block runs again in the backward pass, its gradient is that of the same draws."""
    context = arch.Context(rng=jax.random.key(0))

    @jax.jit
    def gradients(model):
        return jax.grad(lambda m: (m(IDS, context=context) ** 2).sum())(model)

    stored, again = (
        jax.tree.leaves(gradients(build(channel_mixer="mlp", dropout=RATE, remat=remat)))
        for remat in (False, True)
    )
    for a, b in zip(stored, again, strict=True):
        # Sums of B · T = 256 terms in another order: 256 · 6e-8 of the largest at most.
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(a).max())


def test_the_recurrent_form_drops_as_well():
    model = build(dropout=RATE)
    state = model.initial_state(B, T)
    plain, dropped = (
        model.extend(state, IDS, arch.Context(rng=rng))[1] for rng in (None, jax.random.key(0))
    )
    assert np.abs(plain - dropped).max() > 1e-2 * np.abs(plain).max()
