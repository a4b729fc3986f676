"""In-context n-gram predictors against a plain counter."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks.generators.ngrams import in_context

V, SEPARATOR = 5, 4


def counted(tokens, t, n):
    """The distribution after token t, from a dictionary of what followed each (n − 1)-gram."""
    for m in range(n - 1, -1, -1):  # the length of what must have been the same
        followers = collections.defaultdict(collections.Counter)
        for j in range(m, t + 1):
            if tokens[j] != SEPARATOR:
                followers[tuple(tokens[j - m : j])][tokens[j]] += 1
        seen = followers[tuple(tokens[t + 1 - m : t + 1])] if t + 1 >= m else {}
        if seen:
            return [seen[v] / sum(seen.values()) for v in range(V)]
    return [0.0 if v == SEPARATOR else 1 / (V - 1) for v in range(V)]


@pytest.mark.parametrize("seed", range(5))
def test_equal_those_of_a_counter(seed):
    tokens = np.random.default_rng(seed).integers(0, V, 40)
    tokens[0] = SEPARATOR
    predicted = jnp.arange(V) != SEPARATOR
    results = jax.jit(lambda x: in_context(x, 4, predicted))(jnp.asarray(tokens))
    assert len(results) == 4
    for n, result in enumerate(results, 1):
        expected = [counted(tokens.tolist(), t, n) for t in range(40)]
        # Quotients of whole numbers, each rounded once.
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=0)


def test_nothing_is_known_before_it_is_seen():
    tokens = jnp.asarray([SEPARATOR, 0, 1, 0, 1, 2])
    predicted = jnp.arange(V) != SEPARATOR
    for n, result in enumerate(in_context(tokens, 3, predicted), 1):
        changed = in_context(tokens.at[4:].set(3), 3, predicted)[n - 1]
        np.testing.assert_array_equal(result[:4], changed[:4])
        np.testing.assert_array_equal(result[0], [0.25, 0.25, 0.25, 0.25, 0])
