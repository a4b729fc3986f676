"""The laws of the mixer interface, for every registered architecture: to register is to test."""

import dataclasses
import functools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch

B, T, D = 2, 37, 32  # a prime length divides into no block size
MAX_LENGTH = 40

# Options that change how a mixer computes, beyond the defaults of every registered name.
VARIANTS = [
    ("attention", {"num_heads": 4, "num_kv_heads": 2, "positions": "none"}),
    ("attention", {"num_heads": 2, "window": 6}),
    ("attention", {"num_heads": 2, "causal": False}),
    ("base_conv", {"width": None}),
    ("based", {"num_heads": 4, "feature_width": 3}),
    ("block_local", {"block": 6, "num_heads": 2}),
    ("gla", {"conv_size": 4}),
    ("deltanet", {"conv_size": None}),
    ("gated_deltanet", {"conv_size": None, "num_heads": 2}),
    ("h3", {"num_heads": 8}),
    ("hgrn2", {"expand_ratio": 8}),
    ("mamba2", {"head_width": 16}),
    ("mom", {"rule": "gla", "conv_size": None, "num_memories": 4}),
    ("mom", {"rule": "linear", "shared_memory": False, "num_memories": 4}),
    ("orchid", {"conditioning": "correlation"}),
    ("sliding_window", {"window": 6, "num_heads": 4, "num_kv_heads": 2}),
    ("selective_lookups", {"selection": "programmatic", "num_heads": 2}),
    ("sparse_fixed", {"num_heads": 2, "heads": "split", "stride": 5, "summary": 2}),
    ("sparse_strided", {"num_heads": 2, "heads": "split"}),
    ("lru", {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3, "output": "gate"}),
    ("s4", {"bidirectional": True}),
    ("s4d", {"init": "legs", "discretization": "bilinear"}),
    ("s4d", {"bidirectional": True}),
    ("titans_lmm", {"num_heads": 2, "memory_depth": 3, "chunk_size": 5}),
    ("titans_mac", {"num_heads": 2, "segment": 6}),
    ("titans_mag", {"num_heads": 2, "window": 6}),
]


def _case(name, options):
    # A variant of Titans takes a minute to compile, and tests of its own cover its options.
    marks = [pytest.mark.slow] if options and name.startswith("titans") else []
    label = "-".join([name, *(f"{k}={v}" for k, v in options.items())])
    return pytest.param((name, options), id=label, marks=marks)


CASES = [_case(*pair) for pair in [(name, {}) for name in arch.names()] + VARIANTS]


def token_ids(seed=0):
    """Ids of an alphabet so small that words of three letters come back within T."""
    return jax.random.randint(jax.random.key(seed), (B, T), 0, 3)


CONTEXT = arch.Context(tokens=token_ids())


def cut_out(x, context, start, stop):
    """The part [start, stop) of a sequence and of its context."""
    return jax.tree.map(lambda a: a[:, start:stop], (x, context))


@dataclasses.dataclass
class Case:
    """A mixer with its two forms, compiled once for the whole module."""

    mixer: Any
    apply: Any = dataclasses.field(default_factory=lambda: jax.jit(lambda m, x, c: m(x, c)))
    extend: Any = dataclasses.field(
        default_factory=lambda: jax.jit(lambda m, s, x, c: m.extend(s, x, c))
    )

    def forward(self, x, context=CONTEXT):
        return self.apply(self.mixer, x, context)

    def feed(self, x, lengths, context=CONTEXT):
        """The recurrent form over the parts of x that `lengths` cuts off one after the other."""
        state, parts, start = self.mixer.initial_state(x.shape[0], x.shape[1]), [], 0
        for length in lengths:
            part, cut = cut_out(x, context, start, start + length)
            state, y = self.extend(self.mixer, state, part, cut)
            parts.append(y)
            start += length
        return jnp.concatenate(parts, axis=1)


@pytest.fixture(scope="module", params=CASES)
def case(request, build):
    name, options = request.param
    return Case(build(name, **options))


@pytest.fixture
def causal(case):
    if not case.mixer.causal:
        pytest.skip("sees the future by design")
    return case


def inputs(dtype=jnp.float32, seed=0):
    return jax.random.normal(jax.random.key(seed), (B, T, D)).astype(dtype)


def error(actual, expected):
    """‖actual − expected‖ / ‖expected‖ in float64: a single unlucky element does not decide."""
    actual, expected = (np.asarray(a, np.float64) for a in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def partition(seed):
    """A random partition of T into parts of two lengths, for each length is compiled."""
    draw, lengths = random.Random(seed), []
    while sum(lengths) < T:
        lengths.append(draw.choice([n for n in (1, 5) if n <= T - sum(lengths)]))
    return lengths


# Sums of at most T · E = 37 · 64 rounded terms: random rounding gives √(37 · 64) · 6e-8 ≈ 3e-6 of
# the sum's terms, and a factor 30 is left for sums that cancel.
TOLERANCE = 1e-4
# bfloat16 keeps 8 bits, eps = 2⁻⁸ ≈ 4e-3. About ten rounded operations in a row stand between x and
# y, and compiled programs of different shape round at different ones.
TOLERANCE_BF16 = 3e-2


def one_by_one(mixer, x, context):
    """The recurrent form token by token: the reference form of every law."""

    def step(state, token):
        state, y = mixer.extend(state, *jax.tree.map(lambda a: a[:, None], token))
        return state, y[:, 0]

    by_time = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (x, context))
    _, y = jax.lax.scan(step, mixer.initial_state(*x.shape[:2]), by_time)
    return jnp.swapaxes(y, 0, 1)


class TestSplit:
    @pytest.mark.parametrize("seed", range(3))
    def test_any_partition_gives_the_parallel_form(self, causal, seed):
        x = inputs()
        y = causal.feed(x, partition(seed))
        assert error(y, causal.forward(x)) < TOLERANCE

    def test_one_prompt_gives_the_parallel_form(self, causal):
        x = inputs()
        assert error(causal.feed(x, [T]), causal.forward(x)) < TOLERANCE

    def test_bfloat16(self, causal):
        x = inputs(jnp.bfloat16)
        y, parallel = causal.feed(x, [16, 16, *[1] * 5]), causal.forward(x)
        assert y.dtype == parallel.dtype == jnp.bfloat16
        assert error(y, parallel) < TOLERANCE_BF16
        exact = causal.forward(x.astype(jnp.float32))
        assert error(parallel, exact) < TOLERANCE_BF16

    def test_state_keeps_its_shapes_and_dtypes(self, causal):
        state = causal.mixer.initial_state(B, T)
        after = jax.eval_shape(
            lambda m, s, x, c: m.extend(s, x, c)[0], causal.mixer, state, inputs(), CONTEXT
        )
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, after)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_causality(causal, dtype):
    past = inputs(dtype), CONTEXT
    future = inputs(dtype, seed=1), arch.Context(tokens=token_ids(seed=1))
    y = causal.forward(*past)
    for t in (1, 16, 36):
        changed = causal.forward(
            *jax.tree.map(lambda a, b, t=t: a.at[:, t:].set(b[:, t:]), past, future)
        )
        if causal.mixer.uses_fft:
            # Every output of a transform carries the rounding of every input: here float32's, which
            # may tip the rounding of the result.
            margin = 1e-5 if dtype == jnp.float32 else 2**-7
            y32, changed32 = y.astype(jnp.float32), changed.astype(jnp.float32)
            np.testing.assert_allclose(
                changed32[:, :t], y32[:, :t], atol=margin * jnp.abs(y32).max()
            )
        else:
            np.testing.assert_array_equal(changed[:, :t], y[:, :t])
        assert not np.array_equal(changed[:, t], y[:, t])


def test_gradients_equal_those_of_the_recurrent_form(causal):
    x, weight = inputs(), inputs(seed=2)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(form, mixer, x):
        def loss(mixer, x):
            return jnp.sum(weight * form(mixer, x, CONTEXT))

        return jax.grad(loss, argnums=(0, 1))(mixer, x)

    parallel = jax.tree.leaves_with_path(gradients(lambda m, x, c: m(x, c), causal.mixer, x))
    recurrent = jax.tree.leaves(gradients(one_by_one, causal.mixer, x))
    for (path, actual), expected in zip(parallel, recurrent, strict=True):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(actual)), name
        assert np.any(np.asarray(actual) != 0), name
        # Backward, the sums run over batch and time as well: one order above the forward pass.
        assert error(actual, expected) < 10 * TOLERANCE, name


@pytest.mark.slow  # another backward pass to compile for each mixer
def test_gradients_in_bfloat16(causal):
    x, weight = inputs(), inputs(seed=2)

    @jax.jit
    def gradients(mixer, x):
        return jax.grad(lambda m, x: jnp.sum(weight * m(x, CONTEXT)), argnums=(0, 1))(mixer, x)

    half = gradients(causal.mixer, x.astype(jnp.bfloat16))
    for path, leaf in jax.tree.leaves_with_path(half):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)), name
        assert np.any(np.asarray(leaf) != 0), name
    # Backward, there are twice as many rounded operations in a row.
    assert error(half[1], gradients(causal.mixer, x)[1]) < 2 * TOLERANCE_BF16


def test_without_tokens(case):
    """They are asked for by name, or make no difference."""
    x = inputs()
    if case.mixer.needs_tokens:
        with pytest.raises(ValueError, match=f"{type(case.mixer).__name__} compares token ids"):
            case.mixer(x)
        with pytest.raises(ValueError, match="compares token ids"):
            case.mixer.extend(case.mixer.initial_state(B, T), x)
    else:
        assert error(case.forward(x, None), case.forward(x)) < TOLERANCE


class TestState:
    def test_bytes_are_those_of_a_real_state(self, causal):
        for length in (8, MAX_LENGTH):
            state = causal.mixer.initial_state(1, length)
            expected = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            assert arch.state_bytes(causal.mixer, length) == expected

    def test_bytes_grow_exactly_if_a_shape_does(self, causal):
        short, long = (causal.mixer.initial_state(1, length) for length in (8, MAX_LENGTH))
        grows = [
            a.shape != b.shape
            for a, b in zip(jax.tree.leaves(short), jax.tree.leaves(long), strict=True)
        ]
        growth = arch.state_bytes(causal.mixer, MAX_LENGTH) - arch.state_bytes(causal.mixer, 8)
        assert growth > 0 if any(grows) else growth == 0

    def test_every_batch_element_has_a_state_of_its_own(self, causal):
        x, lengths = inputs(), partition(0)
        other = causal.feed(x.at[0].set(inputs(seed=1)[0]), lengths)
        assert error(other[1], causal.feed(x, lengths)[1]) < TOLERANCE


def test_twice_the_same_bits(case):
    x = inputs()
    np.testing.assert_array_equal(case.forward(x), case.forward(x))


@pytest.mark.parametrize("name", arch.names())  # without jit every operation compiles by itself
def test_jit_changes_only_speed(build, name):
    case, x = Case(build(name)), inputs()
    assert error(case.forward(x), case.mixer(x, CONTEXT)) < TOLERANCE


@pytest.mark.parametrize("name", arch.names())
def test_population_under_vmap(name):
    """A population is a mixer with a leading axis; layers so stacked run under lax.scan."""

    def mixer(key):
        return arch.build(name, D, rngs=nnx.Rngs(key), max_length=MAX_LENGTH)

    keys = jax.random.split(jax.random.key(0), 3)
    mixers = jax.jit(jax.vmap(mixer))(keys)
    xs = jax.random.normal(jax.random.key(1), (3, B, T, D))
    forward = jax.jit(lambda m, x: m(x, CONTEXT))
    ys = jax.jit(jax.vmap(lambda m, x: m(x, CONTEXT)))(mixers, xs)
    singles = [jax.tree.map(lambda leaf, i=i: leaf[i], mixers) for i in range(3)]
    for y, single, x in zip(ys, singles, xs, strict=True):
        assert error(y, forward(single, x)) < TOLERANCE

    def layer(x, m):
        return x + m(x, CONTEXT), None

    scanned = jax.jit(lambda m, x: jax.lax.scan(layer, x, m)[0])(mixers, xs[0])
    looped = xs[0]
    for single in singles:
        looped = looped + forward(single, looped)
    assert error(scanned, looped) < TOLERANCE


@pytest.mark.parametrize("name", arch.names())
def test_same_key_same_parameters(name):
    first, second = (arch.build(name, D, rngs=nnx.Rngs(7), max_length=MAX_LENGTH) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


class TestPackedDocuments:
    # Documents of 13 and 17 tokens, 4 of padding, and 3 that bear the first one's id again.
    LENGTHS = (13, 17, 4, 3)
    IDS = np.repeat([1, 2, 0, 1], LENGTHS)

    def alone(self, case, x):
        """Each document moved to the front: by causality, what follows it does not matter."""
        starts = np.cumsum([0, *self.LENGTHS[:-1]])
        if not case.mixer.causal:
            return [
                case.forward(*cut_out(x, CONTEXT, start, start + length))
                for start, length in zip(starts, self.LENGTHS, strict=True)
            ]
        return [
            case.forward(
                *jax.tree.map(lambda a, start=start: jnp.roll(a, -start, axis=1), (x, CONTEXT))
            )[:, :length]
            for start, length in zip(starts, self.LENGTHS, strict=True)
        ]

    def compare(self, y, alone):
        ends = np.cumsum(self.LENGTHS)
        for i, (end, expected) in enumerate(zip(ends, alone, strict=True)):
            if i != 2:  # what stands at padding is nobody's business
                assert error(y[:, end - expected.shape[1] : end], expected) < TOLERANCE, i

    def test_as_if_each_were_alone(self, case):
        if not case.mixer.packs:
            pytest.skip("refuses packed documents")
        x, ids = inputs(), jnp.broadcast_to(self.IDS, (B, T))
        context = arch.Context(tokens=CONTEXT.tokens, segment_ids=ids)
        alone = self.alone(case, x)
        self.compare(case.forward(x, context), alone)
        if not case.mixer.causal:
            return
        # Parts that end inside a document, at its border, and with its first token.
        lengths = [1, 5, 5, 1, 1, 1, 5, 5, 5, 5, 1, 1, 1]
        refusal = f"{type(case.mixer).__name__} cannot keep packed documents apart in extend"
        try:
            y = case.feed(x, lengths, context)
        except ValueError as error:
            if refusal not in str(error):
                raise
        else:
            self.compare(y, alone)

    def test_refused_by_name_or_nan(self, case):
        if case.mixer.packs:
            pytest.skip("honours packed documents")
        x, context = inputs(), arch.Context(segment_ids=jnp.broadcast_to(self.IDS, (B, T)))
        try:
            outcome = case.mixer(x, context)
        except ValueError as refusal:
            outcome = str(refusal)
        if isinstance(outcome, str):
            assert f"{type(case.mixer).__name__} cannot keep packed" in outcome
        else:  # it takes ids for the sake of padding
            assert not case.mixer.causal
            assert np.all(np.isnan(outcome))
        if case.mixer.causal:
            with pytest.raises(ValueError, match="cannot keep packed"):
                case.mixer.extend(case.mixer.initial_state(B, T), x, context)


def test_a_mixer_that_sees_the_future_has_no_recurrent_form(case):
    if case.mixer.causal:
        assert type(case.mixer).extend is not arch.SequenceMixer.extend
        return
    for call in (
        lambda: case.mixer.initial_state(B, T),
        lambda: case.mixer.extend(None, inputs(), CONTEXT),
    ):
        with pytest.raises((TypeError, ValueError), match=r"must define|sees the future"):
            call()
