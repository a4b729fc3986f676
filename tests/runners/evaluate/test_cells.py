"""Models whose scores are known, and the intervals."""

import math

import numpy as np
import pytest
from flax import nnx

import arch
from runners.evaluate.cells import Settings, measure, wilson
from tasks import recall

SETTINGS = Settings(1, (64, 150), (0.0, 0.5, 1.0), 12, 0)


def small_model(**options):
    sizes = {"num_layers": 1, "vocab_size": 257, "max_length": 64}
    return arch.Backbone("gla", 8, **sizes, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ["passkey", "phone_book"])
def test_a_model_that_copies_is_always_right_and_the_control_misleads_it(text_task, copier, name):
    cells = measure(copier, text_task(), recall.get(name), SETTINGS)
    found = [(cell.length, cell.depth, cell.examples) for cell in cells]
    assert found == [
        (length, depth, 36 if depth is None else 12)
        for length in (64, 150)
        for depth in (None, 0.0, 0.5, 1.0)
    ]
    for cell in cells:
        assert cell.scores["exact_match"][0] == 1
        assert cell.scores["token_accuracy"] == (1, 1, 1)
        assert cell.scores["bits_per_byte"][0] < 1e-6
        assert cell.scores["bits_saved"][1] > 5


def test_it_copies_a_passage_after_the_first_bytes(text_task, copier):
    settings = Settings(1, (400,), (0.0,), 6, 0)
    (cell,) = measure(copier, text_task(), recall.get("copy"), settings)
    assert cell.depth is None
    assert cell.scores["exact_match"][0] == 0
    assert cell.scores["bits_saved"][0] > 1


@pytest.mark.parametrize("name", ["passkey", "phone_book"])
def test_a_model_that_knows_only_digits_is_at_chance(text_task, digits, name):
    for cell in measure(digits, text_task(), recall.get(name), SETTINGS):
        for metric in ("bits_per_byte", "control_bits_per_byte"):
            np.testing.assert_allclose(cell.scores[metric], math.log2(10), rtol=1e-6)
        np.testing.assert_allclose(cell.scores["bits_saved"], 0, atol=1e-6)
        if cell.depth is None:
            guess = cell.guesses["any answer"]
            assert guess["bits_per_byte"] == pytest.approx(math.log2(10))
            assert guess["token_accuracy"] == pytest.approx(0.1)
            size = {"passkey": 5, "phone_book": 7}[name]
            assert guess["exact_match"] == pytest.approx(10.0**-size)
            _, low, high = cell.scores["token_accuracy"]
            assert low < guess["token_accuracy"] < high


def test_a_guess_among_the_numbers_of_the_book(text_task, digits):
    settings = Settings(1, (150,), (0.5,), 4, 0)
    cell = measure(digits, text_task(), recall.get("phone_book"), settings)[0]
    count = (150 - 15) // 16
    guess = cell.guesses["one in context"]
    assert guess["exact_match"] == pytest.approx(1 / count)
    assert guess["bits_per_byte"] == pytest.approx(math.log2(count) / 7)
    assert "one in context" not in _passkey_guesses(text_task, digits)


def _passkey_guesses(text_task, digits):
    settings = Settings(1, (150,), (0.5,), 4, 0)
    return measure(digits, text_task(), recall.get("passkey"), settings)[0].guesses


def test_lengths_that_cannot_be_had_have_a_reason(text_task):
    model = small_model(position_embedding=True)
    settings = Settings(1, (20, 64, 128), (0.0,), 2, 0)
    cells = measure(model, text_task(), recall.get("passkey"), settings)
    assert [cell.length for cell in cells if cell.failure is None] == [64, 64]
    assert cells[0].failure == "20 bytes are too few for an example, expected at least 47"
    assert "expected at most the 64 learned positions" in cells[-1].failure


def test_the_settings_decide_the_examples(text_task):
    model = small_model()

    def bits(**changes):
        settings = Settings(1, (90,), (0.0,), **{"examples": 4, "seed": 0} | changes)
        cells = measure(model, text_task(), recall.get("copy"), settings)
        return cells[0].scores["bits_per_byte"][0]

    assert bits() == bits()
    assert bits() != bits(seed=1)


class TestIntervals:
    def test_wilson_by_hand(self):
        """Its ends solve (p − share)² = z² p (1 − p) / n."""
        for hits, count in ((3, 10), (50, 60), (1, 400)):
            share, *ends = wilson(hits, count)
            assert share == hits / count
            assert ends[0] < share < ends[1]
            for end in ends:
                square = 1.959963984540054**2 * end * (1 - end) / count
                assert (end - share) ** 2 == pytest.approx(square, rel=1e-9)

    def test_at_the_borders(self):
        assert wilson(0, 10)[:2] == (0, 0)
        assert wilson(10, 10)[::2] == (1, 1)
        assert 0.2 < wilson(0, 10)[2] < 0.35

    def test_one_example_has_no_interval(self, text_task, copier):
        settings = Settings(1, (90,), (0.0,), 1, 0)
        (cell,) = measure(copier, text_task(), recall.get("copy"), settings)
        assert cell.scores["bits_saved"][1:] == (None, None)
