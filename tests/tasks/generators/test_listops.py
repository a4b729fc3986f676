"""Random ListOps expressions are well formed, of the right size, and worth what they say."""

import itertools
import statistics

import numpy as np
import pytest

from tasks.generators import listops
from tasks.generators.listops import Grammar

SMALL = Grammar(max_depth=4, max_arguments=5, length=(6, 60))


def evaluate(tokens):
    """(value, depth, most arguments) by recursion over the text."""
    rest = iter(tokens)

    def node(token):
        if token.isdigit():
            return int(token), 1, 0
        found = [node(t) for t in iter(lambda: next(rest), "]")]
        values = [value for value, _, _ in found]
        value = {
            "[MIN": min,
            "[MAX": max,
            "[MED": lambda v: int(statistics.median(v)),
            "[SM": lambda v: sum(v) % 10,
        }[token](values)
        depth = 1 + max(depth for _, depth, _ in found)
        return value, depth, max(len(found), *(most for _, _, most in found))

    result = node(next(rest))
    assert next(rest, None) is None, "tokens after the end"
    return result


def draw(grammar, seed, count):
    return list(itertools.islice(grammar.expressions(np.random.default_rng(seed)), count))


def check(grammar, expressions):
    """Everything that must hold of each expression; returns their depths and arguments."""
    depths, arguments = [], []
    for tokens, value in expressions:
        assert grammar.length[0] <= len(tokens) <= grammar.length[1]
        found, depth, most = evaluate([listops.TOKENS[t] for t in tokens])
        assert found == value
        assert depth <= grammar.max_depth
        assert most <= grammar.max_arguments
        depths.append(depth)
        arguments.append(most)
    return np.array(depths), np.array(arguments)


def test_the_published_example():
    text = "[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]"
    assert evaluate(text.split()) == (5, 3, 6)


@pytest.mark.parametrize("grammar", [SMALL, Grammar(), Grammar(length=(100, 120))])
def test_values_agree_with_a_recursive_evaluator(grammar):
    depths, arguments = check(grammar, draw(grammar, 0, 300))
    assert depths.max() == grammar.max_depth
    assert arguments.max() == grammar.max_arguments


def test_the_length_decides_and_nothing_else():
    """Short trees as often as their probability: a digit 3/4; [OP a b ] 1/4 · 1/9 · (3/4)²."""
    expressions = draw(Grammar(length=(1, 4)), 1, 20_000)
    alone = sum(len(tokens) == 1 for tokens, _ in expressions)
    pairs = sum(len(tokens) == 4 for tokens, _ in expressions)
    p = 0.25 / 9 * 0.75**2
    share = p / (p + 0.75)
    assert alone + pairs == len(expressions)
    error = (share * (1 - share) / len(expressions)) ** 0.5
    assert abs(pairs / len(expressions) - share) < 4 * error


def test_operators_digits_and_numbers_of_arguments_are_uniform():
    expressions = draw(Grammar(max_depth=2, operator_share=1.0, length=(1, 99)), 2, 20_000)
    operators = np.bincount([t[0] for t, _ in expressions], minlength=14)[10:]
    arguments = np.bincount([len(t) - 2 for t, _ in expressions], minlength=11)[2:]
    digits = np.bincount(np.concatenate([t[1:-1] for t, _ in expressions]), minlength=10)
    for counts in (operators, arguments, digits):
        expected = counts.sum() / len(counts)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        # Mean k − 1 and variance 2 (k − 1): six standard deviations.
        assert chi2 < len(counts) - 1 + 6 * (2 * (len(counts) - 1)) ** 0.5


def test_the_same_seed_gives_the_same_expressions():
    first, again, other = (draw(SMALL, seed, 50) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) and v == w for (a, v), (b, w) in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": (9, 3)}, "fewest before the most"),
        ({"max_depth": 0}, "max_depth=0"),
        ({"max_arguments": 1}, "max_arguments=1"),
        ({"operator_share": 0}, "operator_share=0"),
    ],
)
def test_a_wrong_grammar_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        Grammar(**options)


def test_lengths_that_no_tree_has_are_named(monkeypatch):
    monkeypatch.setattr(listops, "_FOREST", 10)
    with pytest.raises(ValueError, match="none of 1,000 trees"):
        draw(Grammar(max_depth=1, length=(2, 9)), 0, 1)


@pytest.mark.slow
def test_a_whole_data_set():
    """100,000 expressions as the Long Range Arena has them."""
    expressions = draw(Grammar(), 0, 100_000)
    depths, _ = check(Grammar(), expressions)
    assert depths.max() == 10
    classes = np.bincount([value for _, value in expressions], minlength=10) / 100_000
    # The outermost MIN and MAX make 0 and 9 likelier; no class may be missing or rule.
    assert classes.min() > 0.05
    assert classes.max() < 0.2
    assert len({tokens.tobytes() for tokens, _ in expressions}) == 100_000
