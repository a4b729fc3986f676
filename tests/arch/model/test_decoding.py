"""Decoding: greedily as the parallel form would, by sampling as the probabilities say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from perturbed import perturbed
from scipy import special, stats

import arch
from arch.model import decoding
from arch.model.decoding import GREEDY, Sampling, decode, greedy, prefill, repeat, row_keys, sample

VOCAB_SIZE, PERIOD, PROMPT, DECODED = 12, 5, 11, 16
LENGTH = PROMPT + DECODED
STEPS = 60


def periodic(key, batch_size):
    """Random words of PERIOD tokens, repeated: what comes next is in the context."""
    words = jax.random.randint(key, (batch_size, PERIOD), 0, VOCAB_SIZE)
    return jnp.tile(words, (1, -(-LENGTH // PERIOD)))[:, :LENGTH]


@jax.jit
def trained(model):
    optimizer = optax.adam(1e-2)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters, tokens):
        logits = nnx.merge(graph, parameters, rest)(tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    def step(carry, key):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters, periodic(key, 16))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), value

    keys = jax.random.split(jax.random.key(0), STEPS)
    (parameters, _), losses = jax.lax.scan(step, (parameters, optimizer.init(parameters)), keys)
    return nnx.merge(graph, parameters, rest), losses


@pytest.mark.slow  # five minutes: each is trained
@pytest.mark.parametrize("name", [name for name in arch.names() if arch.get(name).causal])
def test_decoding_by_extend_equals_rerunning_the_parallel_form(name):
    model = arch.Backbone(
        name, 32, num_layers=2, vocab_size=VOCAB_SIZE, max_length=LENGTH, rngs=nnx.Rngs(0)
    )
    model, losses = trained(model)
    assert np.all(np.isfinite(losses)), losses
    assert losses[-5:].mean() < losses[:5].mean()
    prompt = periodic(jax.random.key(1), 4)[:, :PROMPT]
    decoded = jax.jit(greedy, static_argnums=2)(model, prompt, DECODED)

    assert_chosen(model, prompt, decoded)


def assert_chosen(model, prompt, decoded):
    """Each decoded token is the likeliest after all before it, as the parallel form says."""
    tokens = jnp.concatenate([prompt, decoded], axis=1)
    logits = jax.jit(lambda model, tokens: model(tokens))(model, tokens[:, :-1])
    own = logits[:, prompt.shape[1] - 1 :]  # what stands after t is not seen: the model is causal
    np.testing.assert_array_equal(decoded, jnp.argmax(own, axis=-1))


@functools.cache
def moved(mixer, **options):
    """A backbone whose logits differ so much that rounding does not choose between them."""
    model = arch.Backbone(
        mixer,
        16,
        num_layers=2,
        vocab_size=VOCAB_SIZE,
        max_length=64,
        channel_mixer="swiglu",
        rngs=nnx.Rngs(0),
        **options,
    )
    return perturbed(model, 0.3)


PATTERN = ("base_conv", "attention", "gla")
PROMPTS = jax.random.randint(jax.random.key(7), (3, 9), 0, VOCAB_SIZE)


@pytest.mark.parametrize("mixer", ["attention", "sliding_window", "gla", "mamba", "lstm", "hyena"])
def test_greedy_decoding_is_the_argmax_of_the_parallel_form(mixer):
    model = moved(mixer)
    assert_chosen(model, PROMPTS, greedy(model, PROMPTS, 12))


def test_layers_of_several_kinds_keep_their_states_apart():
    model = arch.Backbone(
        PATTERN,
        16,
        num_layers=6,
        vocab_size=VOCAB_SIZE,
        max_length=32,
        position_embedding=True,
        mixer_options={"attention": {"num_heads": 4, "num_kv_heads": 2}},
        rngs=nnx.Rngs(2),
    )
    assert_chosen(model, PROMPTS, greedy(model, PROMPTS, 12))


def continued(model, prompt, keys, sampling, num_tokens=12, dispatch=12, chunk=512):
    """[B, num_tokens], with `dispatch` tokens a call."""
    state, logits = prefill(model, prompt, prompt.shape[1] + num_tokens, chunk)
    found = []
    for _ in range(0, num_tokens, dispatch):
        state, logits, tokens = decode(
            model, state, logits, keys, num_tokens=dispatch, sampling=sampling
        )
        found.append(tokens)
    return np.concatenate(found, axis=1)


KEYS = row_keys(jax.random.key(5), jnp.arange(3))
DRAWN = Sampling(1.0, top_k=8, top_p=0.95)


class TestTheTextOfARow:
    """It depends on its prompt and its key alone."""

    @pytest.mark.parametrize("mixer", ["attention", "gla", "mamba"])
    def test_does_not_depend_on_the_dispatch_or_the_chunks(self, mixer):
        model = moved(mixer)
        expected = continued(model, PROMPTS, KEYS, DRAWN)
        assert len(np.unique(expected)) > 3
        for dispatch, chunk in ((1, 512), (4, 4), (6, 1)):
            found = continued(model, PROMPTS, KEYS, DRAWN, dispatch=dispatch, chunk=chunk)
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("mixer", ["attention", "gla", "mamba"])
    def test_does_not_depend_on_the_batch(self, mixer):
        model = moved(mixer)
        expected = continued(model, PROMPTS, KEYS, DRAWN)
        for row in range(3):
            own = slice(row, row + 1)
            found = continued(model, PROMPTS[own], KEYS[own], DRAWN)
            np.testing.assert_array_equal(found, expected[own])

    def test_depends_on_the_key(self):
        model = moved("gla")
        other = row_keys(jax.random.key(6), jnp.arange(3))
        first, second = (continued(model, PROMPTS, keys, DRAWN) for keys in (KEYS, other))
        assert np.any(first != second)

    @pytest.mark.parametrize("mixer", ["attention", "gla"])
    def test_repeated_sequences_are_as_if_each_was_read_alone(self, mixer):
        model = moved(mixer)
        state, logits = prefill(model, PROMPTS[:2], 21)
        state, logits = repeat(model, state, logits, 2, 21)
        keys = KEYS[jnp.array([0, 1, 0, 1])]
        _, _, found = decode(model, state, logits, keys, num_tokens=12, sampling=DRAWN)
        expected = continued(model, jnp.repeat(PROMPTS[:2], 2, axis=0), keys, DRAWN)
        np.testing.assert_array_equal(found, expected)
        assert np.any(found[0] != found[1])


@pytest.mark.parametrize("mixer", ["attention", "gla"])
class TestTheStateIsOwned:
    def test_it_is_given_away(self, mixer):
        model = moved(mixer)
        state, logits = prefill(model, PROMPTS, 32)
        decode(model, state, logits, None, num_tokens=4, sampling=GREEDY)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state, logits)))

    def test_it_is_written_in_place(self, mixer):
        """Every byte of the state is passed on, and at most one layer of it is held beside it."""
        room, layers = 4096, 8
        model = arch.Backbone(
            mixer, 16, num_layers=layers, vocab_size=5, max_length=room, rngs=nnx.Rngs(0)
        )
        state, logits = prefill(model, PROMPTS % 5, room)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        program = decode.lower(model, state, logits, None, num_tokens=4, sampling=GREEDY)
        memory = program.compile().memory_analysis()
        assert memory.alias_size_in_bytes >= size
        # Beside a layer's part: activations, and the scores of a cache.
        assert memory.temp_size_in_bytes < 1.3 * size / layers + 2**18


def test_a_long_prompt_needs_no_more_memory():
    """A chunk's temporaries do not depend on the room, nor do logits exist at all positions."""
    vocab_size, chunk = 4096, 128
    model = arch.Backbone(
        "gla", 16, num_layers=2, vocab_size=vocab_size, max_length=64, rngs=nnx.Rngs(0)
    )
    sizes = []
    for room in (1024, 65536):
        state = jax.eval_shape(lambda m, room=room: m.initial_state(2, room), model)
        tokens = jax.ShapeDtypeStruct((2, chunk), jnp.int32)
        memory = decoding._feed.lower(model, state, tokens).compile().memory_analysis()
        sizes.append(memory.temp_size_in_bytes)
    assert sizes[0] == sizes[1] < 2 * chunk * vocab_size * 4 / 2


@pytest.mark.parametrize("mixer", ["gla", "lstm", "mamba"])
def test_a_fixed_state_is_decoded_by_one_program_after_any_context(mixer):
    """The time of a token cannot depend on the tokens before it: the program is the same."""
    model = moved(mixer)
    programs = set()
    for room in (1024, 16384):
        state = jax.eval_shape(lambda m, room=room: m.initial_state(2, room), model)
        logits = jax.ShapeDtypeStruct((2, VOCAB_SIZE), jnp.float32)
        lowered = decode.lower(model, state, logits, None, num_tokens=4, sampling=GREEDY)
        programs.add(lowered.as_text())
    assert len(programs) == 1


LOGITS = 1.5 * jax.random.normal(jax.random.key(3), (30,))
DRAWS = 100_000


def kept(sampling):
    """The probabilities that a sampling rule means, by its definition."""
    scaled = np.asarray(LOGITS, np.float64) / sampling.temperature
    likeliest = np.argsort(-scaled)[: sampling.top_k]
    p = special.softmax(scaled[likeliest])
    if sampling.top_p is not None:
        count = np.searchsorted(np.cumsum(p), sampling.top_p) + 1
        likeliest, p = likeliest[:count], p[:count] / p[:count].sum()
    return dict(zip(likeliest.tolist(), p, strict=True))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.8),
        Sampling(0.7, top_k=12, top_p=0.9),
    ],
    ids=str,
)
def test_draws_have_the_probabilities_of_the_rule(sampling):
    keys = row_keys(jax.random.key(11), jnp.arange(DRAWS))
    drawn = jax.jit(lambda keys: sample(jnp.tile(LOGITS, (DRAWS, 1)), keys, sampling))(keys)
    expected = kept(sampling)
    counts = np.bincount(drawn, minlength=30)
    assert counts[list(expected)].sum() == DRAWS  # nothing that was left out
    assert len(expected) == sampling.top_k or sampling.top_k != 5
    p = np.array(list(expected.values()))
    distance = np.sum((counts[list(expected)] - DRAWS * p) ** 2 / (DRAWS * p))
    assert DRAWS * p.min() > 5  # the statistic is then near its limit
    assert distance < stats.chi2.ppf(1 - 1e-4, len(p) - 1)


def test_the_chi_square_test_finds_a_wrong_temperature():
    keys = row_keys(jax.random.key(11), jnp.arange(DRAWS))
    drawn = sample(jnp.tile(LOGITS, (DRAWS, 1)), keys, Sampling(1.05))
    p = np.array([kept(Sampling())[i] for i in range(30)])
    distance = np.sum((np.bincount(drawn, minlength=30) - DRAWS * p) ** 2 / (DRAWS * p))
    assert distance > stats.chi2.ppf(1 - 1e-4, 29)


def test_no_temperature_one_token_and_little_probability_are_greedy():
    logits = jax.random.normal(jax.random.key(4), (50, 30)).at[:, 3].set(9.0).at[:, 7].set(9.0)
    keys = row_keys(jax.random.key(0), jnp.arange(50))
    np.testing.assert_array_equal(sample(logits, None, GREEDY), 3)  # of several the first
    for sampling in (GREEDY, Sampling(top_k=1), Sampling(top_p=1e-6)):
        np.testing.assert_array_equal(sample(logits, keys, sampling), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0, expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0, expected at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0, expected a probability above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_impossible_rules(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_draws_need_keys():
    with pytest.raises(ValueError, match="no keys are given"):
        sample(LOGITS[None], None, Sampling())


def test_positions_that_were_not_learned_are_refused():
    model = moved("gla", position_embedding=True)
    with pytest.raises(ValueError, match="max_length is 65, expected at most the 64 learned"):
        prefill(model, PROMPTS, 65)


def test_a_prompt_has_a_token():
    with pytest.raises(ValueError, match="the prompt's length is 0, expected at least 1"):
        prefill(moved("gla"), PROMPTS[:, :0], 4)


def test_nothing_to_decode():
    model = arch.Backbone("gru", 8, num_layers=1, vocab_size=4, max_length=8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="num_tokens is 0, expected at least 1"):
        greedy(model, jnp.zeros((1, 3), jnp.int32), 0)
