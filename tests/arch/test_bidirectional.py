"""The encoder made of two causal mixers: reversal, padding, documents."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from arch.bidirectional import reversal

B, D, REAL = 2, 32, 11
CAUSAL = [name for name in arch.names() if arch.get(name).causal]
forward = jax.jit(lambda m, x, c: m(x, c))


def sequence(length, seed=0):
    x = jax.random.normal(jax.random.key(seed), (B, length, D))
    return x, arch.Context(tokens=jax.random.randint(jax.random.key(seed + 1), (B, length), 0, 3))


def flip(a):
    """Reverses the real tokens."""
    return a.at[:, :REAL].set(a[:, :REAL][:, ::-1])


def error(actual, expected):
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def padded(length, seed):
    """The same 11 tokens, and behind them padding that differs with the seed."""
    (x, context), (noise, other) = sequence(REAL), sequence(length, seed)
    ids = jnp.broadcast_to(jnp.arange(length) < REAL, (B, length)).astype(jnp.int32)
    return noise.at[:, :REAL].set(x), arch.Context(
        tokens=other.tokens.at[:, :REAL].set(context.tokens), segment_ids=ids
    )


@pytest.mark.parametrize("name", CAUSAL)
def test_the_laws_of_an_encoder(build, name):
    """How much padding follows, and what stands in it, changes nothing at the real tokens; with
    twice the same parameters, reversing the input reverses the output.

    Operators cut 13 and 16 tokens differently: sums of at most 32 terms, √32 · 6e-8 each, in about
    ten stages, and as in the other laws a factor 30 for sums that cancel.
    """
    mixer = build("bidirectional", mixer=name, max_length=16)
    short, long = (forward(mixer, *padded(length, seed=length)) for length in (13, 16))
    assert error(short[:, :REAL], long[:, :REAL]) < 1e-4

    mixer.backward = mixer.forward
    x, context = padded(13, seed=13)
    there = forward(mixer, x, context)
    back = forward(mixer, flip(x), dataclasses.replace(context, tokens=flip(context.tokens)))
    assert error(flip(back)[:, :REAL], there[:, :REAL]) < 1e-6  # two terms in the other order
    assert error(back[:, :REAL], there[:, :REAL]) > 1e-2


@pytest.mark.parametrize("name", ["base_conv", "gla"])
def test_without_segment_ids_the_row_is_one_document(build, name):
    mixer = build("bidirectional", mixer=name)
    y = forward(mixer, *padded(16, seed=16))[:, :REAL]
    assert error(y, forward(mixer, *sequence(REAL))) < 1e-4


def test_is_the_sum_of_two_directions(build):
    mixer = build("bidirectional", mixer="ngram")
    x, context = sequence(REAL)
    reversed_context = arch.Context(tokens=flip(context.tokens))
    expected = mixer.forward(x, context) + flip(mixer.backward(flip(x), reversed_context))
    assert error(mixer(x, context), expected) < 1e-6
    assert np.all(mixer.forward.here.kernel[...] != mixer.backward.here.kernel[...])


def test_every_document_is_reversed_in_place():
    lengths = (4, 1, 1, 7, 2)
    starts = np.zeros((1, sum(lengths)), bool)
    starts[0, np.cumsum([0, *lengths[:-1]])] = True
    expected, begin = [], 0
    for length in lengths:
        expected += list(range(begin, begin + length))[::-1]
        begin += length
    np.testing.assert_array_equal(reversal(jnp.asarray(starts))[0], expected)


def test_every_parameter_gets_a_gradient(build):
    mixer = build("bidirectional")
    x, context = sequence(REAL)
    gradients = jax.jit(jax.grad(lambda m: jnp.sum(m(x, context) ** 2)))(mixer)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)


class TestAMixerThatCannotKeepDocumentsApart:
    @pytest.fixture
    def mixer(self, build):
        mixer = build("bidirectional", mixer="s4d")
        assert not mixer.packs
        return mixer

    @pytest.mark.parametrize("ids", [[1, 1, 1, 2, 2], [1, 1, 0, 1, 1], [0, 0, 1, 1, 1]])
    def test_gives_nan_where_a_row_is_more_than_one_padded_document(self, mixer, ids):
        ids = jnp.asarray([ids, [3, 3, 3, 3, 0]])
        y = forward(mixer, sequence(5)[0], arch.Context(segment_ids=ids))
        assert np.all(np.isnan(y[0]))
        assert np.all(np.isfinite(y[1]))


def test_both_directions_draw_their_own_dropout(build):
    drawn = []
    mixer = build("bidirectional", mixer="base_conv")

    class Spy(type(mixer.forward)):
        def __call__(self, x, context=None):
            drawn.append(context.rng)
            return x

    for direction in (mixer.forward, mixer.backward):
        direction.__class__ = Spy
    mixer(sequence(5)[0], dataclasses.replace(sequence(5)[1], rng=jax.random.key(0)))
    assert not np.array_equal(*map(jax.random.key_data, drawn))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixer": "orchid"}, "mixer is 'orchid', which sees both ways already"),
        ({"mixer": "glo"}, "did you mean 'gla'"),
        ({"mixer": "gla", "mixer_options": {"num_head": 2}}, "did you mean 'num_heads'"),
        ({"num_heads": 2}, "'bidirectional' has no option 'num_heads'"),
    ],
)
def test_impossible_options_are_refused(build, options, words):
    with pytest.raises(ValueError, match=words) as raised:
        build("bidirectional", **options)
    assert "\n" not in str(raised.value)


def test_the_mixers_options_and_lengths_reach_it(build):
    mixer = build("bidirectional", mixer="gla", mixer_options={"num_heads": 2})
    assert mixer.forward.num_heads == mixer.backward.num_heads == 2
    long = build("bidirectional", mixer="base_conv", mixer_options={"width": None}, max_length=19)
    assert long.forward.conv.kernel.shape[1] == 19
    assert long.uses_fft
    assert build("bidirectional", mixer="mamba").channel_mixing


def test_stacks_in_the_backbone():
    model = arch.Backbone(
        "bidirectional",
        D,
        num_layers=2,
        vocab_size=5,
        max_length=16,
        mixer_options={"mixer": "ngram", "mixer_options": {"orders": [1, 2]}},
        rngs=nnx.Rngs(0),
    )
    assert not model.causal
    assert model(sequence(REAL)[1].tokens).shape == (B, REAL, 5)
