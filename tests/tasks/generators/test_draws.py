"""Random selections have the laws that they are named for.

χ² tests fail below a P-value of 1e-4; keys are fixed, so that a test passes always or never.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tasks.generators.draws import draw_distinct, draw_except, draw_gaps

P_MIN = 1e-4


def many(draw, count, seed=0):
    """`count` draws as a numpy array; draw: key -> array."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(draw))(keys))


@pytest.mark.parametrize(("n", "size"), [(1, 1), (1, 7), (2, 5), (3, 3), (3, 5), (4, 4)])
def test_distinct_is_uniform_over_ordered_selections(n, size):
    draws = many(lambda k: draw_distinct(k, n, size), 30_000)
    space = list(itertools.permutations(range(size), n))
    place = {selection: i for i, selection in enumerate(space)}
    counts = np.bincount([place[tuple(row)] for row in draws.tolist()], minlength=len(space))
    assert len(counts) == len(space)
    if len(space) > 1:
        assert scipy.stats.chisquare(counts).pvalue > P_MIN


@pytest.mark.parametrize(("n", "size"), [(64, 64), (100, 127), (256, 4095)])
def test_distinct_is_the_shuffle_of_fisher_and_yates(n, size):
    """Against the plain algorithm on a real array, fed with the same random numbers."""
    for key in jax.random.split(jax.random.key(1), 20):
        j = np.asarray(jax.random.randint(key, (n,), jnp.arange(n), size))
        a = np.arange(size)
        for i in range(n):
            a[[i, j[i]]] = a[[j[i], i]]
        np.testing.assert_array_equal(draw_distinct(key, n, size), a[:n])


@pytest.mark.parametrize("power_a", [0.01, 1.0, 2.5])
@pytest.mark.parametrize("slots", [5, 28])
def test_one_gap_follows_the_power_law(slots, power_a):
    gaps = many(lambda k: draw_gaps(k, 1, slots, power_a), 50_000)[:, 0]
    p = np.arange(1, slots + 1) ** (power_a - 1.0)
    expected = 50_000 * p / p.sum()
    assert scipy.stats.chisquare(np.bincount(gaps, minlength=slots), expected).pvalue > P_MIN


@pytest.mark.parametrize("n", [2, 3])
def test_gaps_are_drawn_one_after_another_without_replacement(n):
    """All ordered selections of n out of 6, with P = Π p(g_j) / (1 − Σ_{i<j} p(g_i))."""
    slots = 6
    gaps = many(lambda k: draw_gaps(k, n, slots, 0.01), 100_000)
    p = np.arange(1, slots + 1) ** (0.01 - 1)
    p /= p.sum()
    space = list(itertools.permutations(range(slots), n))
    law = [
        np.prod([p[g] / (1 - p[list(order[:j])].sum()) for j, g in enumerate(order)])
        for order in space
    ]
    place = {selection: i for i, selection in enumerate(space)}
    counts = np.bincount([place[tuple(row)] for row in gaps.tolist()], minlength=len(space))
    assert scipy.stats.chisquare(counts, 100_000 * np.array(law)).pvalue > P_MIN


def test_gaps_fill_every_slot_when_there_is_one_for_each():
    gaps = many(lambda k: draw_gaps(k, 8, 8, 0.01), 100)
    np.testing.assert_array_equal(np.sort(gaps, 1), np.tile(np.arange(8), (100, 1)))


@pytest.mark.parametrize("excluded", [[0], [3], [6], [6, 0, 3], [1, 0, 2], [4, 6, 5]], ids=str)
def test_filler_is_uniform_over_what_is_allowed(excluded):
    draws = many(lambda k: draw_except(k, 4, 7, jnp.array(excluded)), 5_000)
    counts = np.bincount(draws.reshape(-1), minlength=7)
    assert np.all(counts[excluded] == 0)
    assert scipy.stats.chisquare(np.delete(counts, excluded)).pvalue > P_MIN
