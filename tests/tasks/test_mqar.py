"""MQAR has the distribution of its paper.

χ² tests fail below a P-value of 1e-4; keys are fixed, so that a test passes always or never.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import tasks

P_MIN = 1e-4

SHAPES = [  # vocab_size, length, num_kv_pairs: the paper's, the tightest in T, the tightest in V
    (8192, 64, 4),
    (256, 32, 8),
    (18, 40, 8),
    (4096, 256, 64),
]


def many(draw, count, seed=0):
    """`count` draws as a numpy array; draw: key -> array."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(draw))(keys))


def build(vocab_size=8192, length=64, num_kv_pairs=4, **options):
    small = {"num_train_examples": 10, "num_validation_examples": 10, "num_test_examples": 10}
    return tasks.build(
        "mqar", vocab_size=vocab_size, length=length, num_kv_pairs=num_kv_pairs, **small | options
    )


@functools.cache
def drawn(shape, random_non_queries, seed=0):
    task = build(*shape, random_non_queries=random_non_queries)
    return jax.tree.map(
        np.asarray, jax.jit(task.sample, static_argnums=1)(jax.random.key(seed), 500)
    )


@pytest.mark.parametrize("random_non_queries", [False, True], ids=["zero", "random"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_structure(shape, random_non_queries):
    (V, T, n), batch = shape, drawn(shape, random_non_queries)
    assert batch.inputs.shape == (500, T)
    assert batch.loss_positions.shape == batch.targets.shape == batch.weights.shape == (500, n)
    assert batch.inputs.dtype == batch.loss_positions.dtype == batch.targets.dtype == np.int32
    assert np.all(batch.weights == 1)

    keys, values = batch.inputs[:, 0 : 2 * n : 2], batch.inputs[:, 1 : 2 * n : 2]
    assert keys.min() >= 1
    assert keys.max() < V // 2
    assert values.min() >= V // 2
    assert values.max() < V
    for row in (*keys, *values, *batch.loss_positions):
        assert len(set(row.tolist())) == n
    assert np.all(batch.loss_positions % 2 == 0)
    assert batch.loss_positions.min() >= 2 * n
    assert batch.loss_positions.max() <= T - 2
    # Pair j: its key stands at positions[j], where its value is the target.
    np.testing.assert_array_equal(np.take_along_axis(batch.inputs, batch.loss_positions, 1), keys)
    np.testing.assert_array_equal(batch.targets, values)

    filler = np.ones((500, T), bool)
    filler[:, : 2 * n] = False
    np.put_along_axis(filler, batch.loss_positions, False, 1)
    for row, is_filler, own in zip(batch.inputs, filler, keys, strict=True):
        if random_non_queries:
            assert not np.isin(row[is_filler], own).any()
            assert row.min() >= 0
            assert row.max() < V
        else:
            assert np.all(row[is_filler] == 0)


def test_the_example_of_the_docstring():
    """The n-th query answers with what followed its key, found by reading the sequence alone."""
    batch = drawn((256, 32, 8), True)
    for row, positions, targets in zip(
        batch.inputs, batch.loss_positions, batch.targets, strict=True
    ):
        table = dict(zip(row[0:16:2].tolist(), row[1:16:2].tolist(), strict=True))
        assert [table[row[p]] for p in positions.tolist()] == targets.tolist()


# The law of an example.


def test_gap_law_of_whole_sequences():
    """The first pair's query, in the paper's shape: a single draw over 28 slots."""
    task = build()
    first = many(lambda k: task.example(k).loss_positions[0], 50_000)
    p = np.arange(1, 29) ** (0.01 - 1)
    counts = np.bincount((first - 8) // 2, minlength=28)
    assert scipy.stats.chisquare(counts, 50_000 * p / p.sum()).pvalue > P_MIN


def test_keys_and_values_are_uniform():
    task = build(vocab_size=64, length=16, num_kv_pairs=4)
    inputs = many(lambda k: task.example(k).inputs, 20_000)
    for j in range(4):
        for column, low, high in ((2 * j, 1, 32), (2 * j + 1, 32, 64)):
            counts = np.bincount(inputs[:, column], minlength=high)[low:]
            assert scipy.stats.chisquare(counts).pvalue > P_MIN


# Seeds, splits, programs.


def test_same_key_same_bits():
    task = build(random_non_queries=True)
    eager = task.sample(jax.random.key(0), 20)
    jitted = jax.jit(lambda k: task.sample(k, 20))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, eager, jitted)
    other = task.sample(jax.random.key(1), 20)
    assert not np.array_equal(eager.inputs, other.inputs)


def test_a_population_is_its_members():
    task = build(random_non_queries=True)
    keys = jax.random.split(jax.random.key(0), 3)
    single = jax.jit(lambda key: task.train_batch(key, 3, 20))
    together = jax.jit(jax.vmap(single))(keys)
    for r, key in enumerate(keys):
        member = jax.tree.map(lambda leaf, r=r: leaf[r], together)
        jax.tree.map(np.testing.assert_array_equal, member, single(key))


@pytest.mark.parametrize("num_train_examples", [20_000, None], ids=["finite", "endless"])
def test_splits_are_disjoint(num_train_examples):
    """Of 20,000 examples each, no two contexts agree, within a split or between splits."""
    task = tasks.build(
        "mqar",
        num_train_examples=num_train_examples,
        num_validation_examples=20_000,
        num_test_examples=20_000,
    )
    splits = [
        jax.jit(lambda k: task.train_batch(k, 0, 20_000))(jax.random.key(0)).inputs,
        jax.jit(lambda: task.eval_batch(0, 20_000, "validation"))().inputs,
        jax.jit(lambda: task.eval_batch(0, 20_000, "test"))().inputs,
    ]
    contexts = np.concatenate([np.asarray(inputs[:, :8]) for inputs in splits])
    assert len(np.unique(contexts, axis=0)) == 60_000


def test_evaluation_sets_never_change():
    """They are part of what the numbers mean: whoever changes these bits bumps MQAR.version."""
    task = tasks.build("mqar", random_non_queries=True)
    batch = jax.jit(lambda: task.eval_batch(0, 3, "test"))()
    assert tasks.get("mqar").version == 1
    assert batch.inputs[0, :8].tolist() == [549, 8048, 1031, 6736, 2185, 6838, 196, 5699]
    assert int(batch.inputs.sum()) == 778_824


# Metrics and reference scores.


def test_reference_scores():
    """The oracle scores 1; uniform guesses among the values score chance, within 4.5 σ."""
    task = build(vocab_size=64, length=16, num_kv_pairs=4, num_test_examples=1000)
    references = task.reference_scores()
    batch = jax.jit(lambda: task.eval_batch(0, 1000, "test"))()

    oracle = task.metrics(100 * jax.nn.one_hot(batch.targets, 64), batch)
    assert float(oracle["accuracy"].value) == references["oracle"] == 1
    assert float(oracle["accuracy"].count) == 4000
    assert float(oracle["loss"].value) < 1e-6

    guesses = jax.random.randint(jax.random.key(0), (1000, 4), 32, 64)
    chance = float(task.metrics(jax.nn.one_hot(guesses, 64), batch)["accuracy"].value)
    p = references["chance"]
    assert p == 1 / 32
    assert abs(chance - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5

    # Any value of the context: the 4 values stand at positions 1, 3, 5, 7.
    pick = 2 * jax.random.randint(jax.random.key(1), (1000, 4), 0, 4) + 1
    guesses = jnp.take_along_axis(batch.inputs, pick, axis=1)
    in_context = float(task.metrics(jax.nn.one_hot(guesses, 64), batch)["accuracy"].value)
    p = references["guess among values in context"]
    assert p == 1 / 4
    assert abs(in_context - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5

    uniform = task.metrics(jnp.zeros((1000, 4, 64)), batch)["loss"]
    np.testing.assert_allclose(uniform.value, np.log(64), rtol=1e-5)  # a float32 sum of 4000 terms


@pytest.mark.parametrize(
    ("power_a", "share"),
    # Of two pairs in two slots with p ∝ (1, w), w = 2^(a−1), the first pair is asked for in the
    # first slot with probability 1 / (1 + w), and then the second in the second.
    [(0.01, 1 / (1 + 2**-0.99)), (-3.0, 1 / (1 + 2**-4)), (1.0, 1 / 2)],
)
def test_the_guess_from_position_of_two(power_a, share):
    p = build(length=8, num_kv_pairs=2, power_a=power_a).reference_scores()["guess from position"]
    assert abs(p - share) < 4.5 * (share * (1 - share) / 4096) ** 0.5


def test_the_guess_from_position_as_a_predictor():
    """Counted in validation examples, whose i-th position asks for pair i, and judged on others."""
    sizes = {"num_validation_examples": 1000, "num_test_examples": 1000}
    task = build(vocab_size=64, length=16, num_kv_pairs=4, **sizes)
    seen, judged = (
        jax.jit(lambda s=split: task.eval_batch(0, 1000, s))().loss_positions
        for split in ("validation", "test")
    )
    counts = np.zeros((16, 4))
    np.add.at(counts, (seen, np.arange(4)), 1)
    right = counts.argmax(axis=1)[judged] == np.arange(4)
    p = task.reference_scores()["guess from position"]
    assert 0.3 < p < 0.5
    assert abs(right.mean() - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5
