"""The complexity of an architecture is that of its code."""

import pytest

from runners.core import complexity


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attention", "T²"),
        ("sparse_strided", "T √T"),
        ("selective_lookups", "T²"),  # in training, all positions
        ("hyena", "T log T"),
        ("orchid", "T log T"),
        ("sliding_window", "T"),
        ("gla", "T"),
        ("lstm", "T"),
    ],
)
def test_of_architectures_as_their_papers_have_it(name, expected):
    assert complexity.training(name) == expected


def test_operators_are_found_after_other_traces():
    complexity.training("attention")
    complexity.summary.cache_clear()
    assert complexity.summary("attention").operators == ("attention",)


def test_a_growing_state_is_that_of_its_length():
    found = complexity.summary("attention")
    # Keys and values in float32, and three integers: the length and what tells documents apart.
    assert found.state == tuple(8 * n * complexity.D_MODEL + 12 for n in (1024, 8192))
    assert found.token == "T"


def test_a_mixer_that_sees_the_future_has_no_state():
    found = complexity.summary("orchid")
    assert (found.causal, found.token, found.state) == (False, None, None)
