"""Random automata: their law, their canonical form against languages that are written out."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats

from tasks.generators.automata import Automaton, Distribution, canonical, fingerprint

PAPER = Distribution(num_symbols=18, states=(4, 12), symbols=(4, 18), edges=(1, 4))
# So small that many draws have the same language.
SMALL = Distribution(num_symbols=3, states=(2, 4), symbols=(2, 3), edges=(1, 1))
SMALL_2 = Distribution(num_symbols=2, states=(3, 4), symbols=(2, 2), edges=(1, 2))


def draws(distribution, count, seed=0, then=lambda automaton: automaton):
    keys = jax.random.split(jax.random.key(seed), count)
    drawn = jax.jit(jax.vmap(lambda key: then(distribution.draw(key))))(keys)
    return jax.tree.map(np.asarray, drawn)


def members(stacked):
    """The automata of a stack, one by one."""
    return [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(len(stacked.degree))]


def edges(automaton, state):
    """{symbol: target} of a state."""
    d = automaton.degree[state]
    symbols, targets = automaton.symbols[state, :d], automaton.targets[state, :d]
    return dict(zip(symbols.tolist(), targets.tolist(), strict=True))


def language(automaton, start=0, longest=8):
    """Every word of at most `longest` symbols that can be read from `start`.

    Two automata of at most four states, and one more for what cannot be read, that differ at all
    differ on a word shorter than 5 + 5 symbols, and where they accept all prefixes, on one of eight
    at most: after reading it one of them is in the additional state.
    """
    words, reached = set(), {(): start}
    for _ in range(longest):
        reached = {
            (*word, symbol): target
            for word, state in reached.items()
            for symbol, target in edges(automaton, state).items()
        }
        words |= set(reached)
    return frozenset(words)


def as_bytes(automaton):
    return b"".join(leaf.astype(np.int32).tobytes() for leaf in jax.tree.leaves(automaton))


@pytest.mark.parametrize("distribution", [PAPER, SMALL, SMALL_2], ids=["paper", "small", "small 2"])
def test_draws_are_as_described(distribution):
    for automaton in members(draws(distribution, 500)):
        n = int((automaton.degree > 0).sum())
        assert distribution.states[0] <= n <= distribution.states[1]
        assert np.all(automaton.degree[n:] == 0)
        used = set()
        for state in range(n):
            out = edges(automaton, state)
            low, high = distribution.edges
            assert low <= len(out) == automaton.degree[state] <= min(high, n - 1)
            assert list(out) == sorted(out)
            assert state not in out.values()
            assert len(set(out.values())) == len(out)
            assert max(out.values()) < n
            used |= set(out)
        assert used <= set(range(distribution.num_symbols))
        assert len(used) <= distribution.symbols[1]


def test_sizes_are_uniform():
    automata = draws(PAPER, 20_000)
    n = (automata.degree > 0).sum(axis=1)
    assert scipy.stats.chisquare(np.bincount(n)[4:]).pvalue > 1e-4
    # With four states there are three others; with five or more the bound of four edges holds.
    for states, most in ((4, 3), (5, 4), (12, 4)):
        degree = automata.degree[n == states][:, :states].ravel()
        counts = np.bincount(degree, minlength=most + 1)[1:]
        assert len(counts) == most
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    for target in (automata.targets[n == 12][:, 5, 0], automata.symbols[n == 12][:, 5, 0]):
        assert len(np.unique(target)) >= 11  # every other state, most symbols


@pytest.mark.parametrize("distribution", [SMALL, SMALL_2], ids=["one edge", "two edges"])
def test_equal_languages_are_equal_canonical_automata(distribution):
    drawn = members(draws(distribution, 400))
    forms = members(draws(distribution, 400, then=canonical))
    hashes = draws(distribution, 400, then=fingerprint).tolist()
    language_of_form, form_of_language, hash_of_form = {}, {}, {}
    for automaton, form, number in zip(drawn, forms, hashes, strict=True):
        words, form = language(automaton), as_bytes(form)
        assert hash_of_form.setdefault(form, number) == number
        assert language_of_form.setdefault(form, words) == words
        assert form_of_language.setdefault(words, form) == form
    assert 20 < len(form_of_language) < 350  # both cases come up
    assert len(set(hash_of_form.values())) == len(hash_of_form)


@pytest.mark.parametrize("distribution", [SMALL, SMALL_2], ids=["one edge", "two edges"])
def test_the_canonical_form_is_minimal(distribution):
    """One state for each set of words that can follow, in the order of a breadth-first search."""
    smaller = 0
    for automaton, form in zip(
        members(draws(distribution, 200)),
        members(draws(distribution, 200, then=canonical)),
        strict=True,
    ):
        reached, rest = [0], [0]
        while rest:
            for target in edges(automaton, rest.pop(0)).values():
                if target not in reached:
                    reached.append(target)
                    rest.append(target)
        residuals = []
        for state in reached:
            if (words := language(automaton, state)) not in residuals:
                residuals.append(words)
        n = int((form.degree > 0).sum())
        assert [language(form, state) for state in range(n)] == residuals
        smaller += n < (automaton.degree > 0).sum()
    assert smaller > 20


def test_the_canonical_form_forgets_names_of_states():
    """Any permutation of the states other than the start gives the same form and fingerprint."""
    random = np.random.default_rng(0)
    originals = members(draws(PAPER, 50))
    renamed = []
    for automaton in originals:
        old = np.concatenate([[0], 1 + random.permutation(11)])  # old[new name] = old name
        new = np.argsort(old)
        targets = np.where(automaton.exists, new[automaton.targets], 0)[old]
        renamed.append(Automaton(automaton.degree[old], automaton.symbols[old], targets))
    stacked = [jax.tree.map(lambda *a: np.stack(a), *group) for group in (originals, renamed)]
    forms = [jax.jit(jax.vmap(canonical))(group) for group in stacked]
    jax.tree.map(np.testing.assert_array_equal, *forms)
    hashes = [jax.vmap(fingerprint)(group) for group in (*stacked, forms[0])]
    np.testing.assert_array_equal(hashes[0], hashes[1])
    np.testing.assert_array_equal(hashes[0], hashes[2])
    assert len(set(hashes[0].tolist())) == 50
    jax.tree.map(np.testing.assert_array_equal, jax.vmap(canonical)(forms[0]), forms[0])


def test_fingerprints_are_spread_evenly():
    hashes = draws(PAPER, 20_000, then=fingerprint)
    for bits in (hashes % 8, hashes >> 29):
        assert scipy.stats.chisquare(np.bincount(bits, minlength=8)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"states": (1, 4)}, "states=1: expected an integer of at least 2"),
        ({"states": (5, 4)}, "states=(5, 4)"),
        ({"symbols": (4, 19)}, "expected at most num_symbols=18"),
        ({"edges": (1, 5)}, "edges of a state bear distinct symbols"),
        ({"edges": (4, 4)}, "there may be only 3"),
    ],
)
def test_impossible_distributions(changes, message):
    given = {"num_symbols": 18, "states": (4, 12), "symbols": (4, 18), "edges": (1, 4)}
    with pytest.raises(ValueError, match=r"edges|symbols|states") as error:
        Distribution(**given | changes)
    assert message in str(error.value)


def test_small_automata_are_read_far_enough():
    """No two that agree on eight symbols differ on eleven."""
    drawn = members(draws(SMALL_2, 60, seed=3))
    for a, b in itertools.combinations(drawn, 2):
        if language(a) == language(b):
            assert language(a, longest=11) == language(b, longest=11)
