"""ICLL: every word belongs to its language, every language to one split, every metric to its
definition."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import tasks
from tasks.generators.automata import canonical

SMALL = {"words": (3, 5), "word_length": (1, 6), "edges": (1, 4)}
SEPARATOR = 18


@pytest.fixture(scope="module")
def task():
    return tasks.build("icll", **SMALL)


@pytest.fixture(scope="module")
def drawn(task):
    """300 examples of the test set and their languages."""
    keys = jax.random.split(jax.random.key(0), 300)

    @jax.jit
    @jax.vmap
    def draw(key):
        return task.example(key, "test"), task.language(jax.random.split(key, 4)[0], "test")

    return jax.tree.map(np.asarray, draw(keys))


def successors(automaton, row, state):
    d = automaton.degree[row, state]
    symbols, targets = automaton.symbols[row, state, :d], automaton.targets[row, state, :d]
    return dict(zip(symbols.tolist(), targets.tolist(), strict=True))


def test_every_word_is_accepted(task, drawn):
    """The automaton reads each word from its start; truth is uniform over what it could read."""
    batch, language = drawn
    counts, lengths = set(), set()
    chosen = collections.defaultdict(list)
    for row in range(300):
        inputs, targets = batch.inputs[row].tolist(), batch.targets[row].tolist()
        assert inputs[0] == SEPARATOR
        assert inputs[1:] == targets[:-1]
        text = [*inputs, targets[-1]]
        words = "".join(chr(97 + t) for t in text).split(chr(97 + SEPARATOR))[1:]
        while words and not words[-1]:
            words.pop()
        counts.add(len(words))
        lengths |= set(map(len, words))
        assert sum(len(w) for w in words) == batch.weights[row].sum()
        state = 0
        for t, target in enumerate(targets):
            if inputs[t] == SEPARATOR:
                state = 0
            assert batch.weights[row, t] == (target != SEPARATOR)
            if target == SEPARATOR:
                continue
            legal = successors(language, row, state)
            expected = np.zeros(19)
            expected[list(legal)] = 1 / len(legal)
            np.testing.assert_allclose(batch.truth[row, t], expected, rtol=1e-6)
            chosen[len(legal)].append(list(legal).index(target))
            state = legal[target]
    assert counts == {3, 4, 5}
    assert lengths == set(range(1, 7))
    for edges, choices in chosen.items():  # what is taken is uniform over what may be
        if edges > 1:
            counts = np.bincount(choices, minlength=edges)
            assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("draws", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_languages_of_the_splits_are_disjoint(task, draws):
    """Small automata, too, of which the same languages are drawn many times."""
    small = tasks.build("icll", num_symbols=4, states=(2, 4), symbols=(2, 4), edges=(1, 1))
    for each in (task, small):
        found = {}
        for split, count in (
            ("train", draws // 2),
            ("validation", draws // 4),
            ("test", draws // 4),
        ):
            keys = jax.random.split(jax.random.key(1), count)
            languages = jax.jit(
                jax.vmap(lambda k, s=split, t=each: canonical(t.language(k, s))),
                compiler_options={"xla_backend_optimization_level": 2},  # it computes for long
            )
            flat = [np.asarray(a).reshape(count, -1) for a in jax.tree.leaves(languages(keys))]
            found[split] = {row.tobytes() for row in np.concatenate(flat, axis=1)}
        assert not found["train"] & found["validation"]
        assert not found["train"] & found["test"]
        assert not found["validation"] & found["test"]
    assert len(found["train"]) < draws // 4  # of the small task: they do repeat


def test_the_oracle_and_the_n_grams_by_their_own_metrics(task, drawn):
    batch, _ = drawn
    log_truth = jnp.log(batch.truth)
    oracle = jax.jit(task.metrics)(log_truth, batch)
    assert oracle["validity"].value == 1
    # Zero but for the rounding of logarithms and of their sum.
    assert abs(oracle["nll_gap"].value) < 1e-6
    assert oracle["tv"].value < 1e-6
    for n, p in enumerate(task.ngrams(jnp.asarray(batch.inputs)), 1):
        metrics = jax.jit(task.metrics)(jnp.log(p), batch)
        assert metrics[f"tv_{n}gram"].value < 1e-6
        assert metrics["tv"].value > 0.1
        # The distance from the n-gram predictor to the truth, seen from both sides.
        np.testing.assert_allclose(metrics["tv"].value, oracle[f"tv_{n}gram"].value, rtol=1e-5)


def test_metrics_against_their_definitions(task, drawn):
    batch, _ = drawn
    logits = np.random.default_rng(0).normal(size=batch.truth.shape)
    metrics = jax.jit(task.metrics)(jnp.asarray(logits, jnp.float32), batch)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth, judged = batch.truth.astype(np.float64), batch.weights > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(truth > 0, truth * np.log(truth / p), 0).sum(-1)
    values = {
        "validity": np.take_along_axis(truth, p.argmax(-1)[..., None], -1)[..., 0] > 0,
        "tv": np.abs(p - truth).sum(-1) / 2,
        "nll_gap": gap,
        "loss": -np.log(np.take_along_axis(p, batch.targets[..., None], -1)[..., 0]),
    }
    seen = np.cumsum(batch.inputs == SEPARATOR, axis=1) - 1
    for name, value in values.items():
        # Float32 means of some 5,000 numbers.
        np.testing.assert_allclose(metrics[name].value, value[judged].mean(), rtol=1e-5)
        if name == "loss":
            continue
        counts = 0.0
        for words in range(5):
            at = judged & (seen == words)
            slice_ = metrics[f"{name}/words={words}"]
            np.testing.assert_allclose(slice_.value, value[at].mean(), rtol=1e-4)
            counts += float(slice_.count)
        assert counts == judged.sum()


def test_reference_scores_are_in_order(task):
    references = task.reference_scores()
    assert task.reference_notes().keys() == references.keys()
    assert list(references) == ["uniform", "1-gram", "2-gram", "3-gram", "oracle"]
    assert references["oracle"] == 1
    assert 1 / 18 < references["uniform"] < references["1-gram"] < references["2-gram"] < 1


def test_evaluation_sets_never_change():
    """They are part of what the numbers mean: whoever changes these bits bumps ICLL.version."""
    task = tasks.build("icll", **SMALL)
    batch = jax.jit(lambda: task.eval_batch(0, 3, "test"))()
    assert tasks.get("icll").version == 1
    assert batch.inputs[0, :10].tolist() == [18, 12, 0, 2, 18, 12, 0, 2, 12, 18]
    assert batch.weights.sum() == 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_symbols": 3}, "expected at most num_symbols=3"),
        ({"symbols": (2, 18)}, "edges of a state bear distinct symbols"),
        ({"states": (2, 12), "edges": (2, 3)}, "there may be only 1"),
        ({"words": (0, 3)}, "words=0: expected an integer of at least 1"),
        ({"words": (5, 3)}, "words=(5, 3): expected the fewest before the most"),
        ({"word_length": 7}, "word_length=7: expected two integers"),
        ({"num_test_examples": None}, "num_test_examples=None"),
        ({"num_train_examples": 0}, "num_train_examples=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=r"=|expected|edges") as error:
        tasks.build("icll", **options)
    assert message in str(error.value)
