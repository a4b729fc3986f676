"""A row's tokens depend on its prompt, the seed and its number alone."""

import numpy as np
import pytest
from flax import nnx
from perturbed import perturbed

import arch
from arch.model.decoding import GREEDY, Sampling
from runners.generate.stream import stream

PROMPTS = [np.array(tokens, np.int32) for tokens in ([1, 2, 3], [4, 5], [6, 7, 8], [1], [4, 5])]
DRAWN = Sampling(0.9, top_p=0.95)


@pytest.fixture(scope="module", params=["attention", "gla"])
def model(request):
    model = arch.Backbone(
        request.param, 16, num_layers=2, vocab_size=9, max_length=16, rngs=nnx.Rngs(0)
    )
    return perturbed(model, 0.3)


def texts(model, prompts, samples=1, num_tokens=20, sampling=DRAWN, done=lambda row: False, **more):
    found = {}
    for row, tokens in stream(model, prompts, samples, num_tokens, sampling, 3, done, **more):
        found[row] = found.get(row, []) + tokens.tolist()
    return found


def test_every_row_has_its_tokens(model):
    found = texts(model, PROMPTS, samples=2)
    assert sorted(found) == list(range(10))
    assert all(len(tokens) == 20 for tokens in found.values())


def test_prompts_of_unequal_length_are_as_if_each_was_alone(model):
    together = texts(model, PROMPTS, samples=2)
    for p, prompt in enumerate(PROMPTS):
        alone = texts(model, [prompt], samples=2)
        assert together[2 * p] == alone[0]
        assert together[2 * p + 1] == alone[1]
        assert alone[0] != alone[1]
    assert together[2] == together[8]  # one prompt twice
    assert texts(model, PROMPTS[:1])[0] == together[0]  # fewer samples


def test_the_dispatch_changes_nothing(model):
    expected = texts(model, PROMPTS[:3])
    for dispatch in (1, 7, 64):
        assert texts(model, PROMPTS[:3], dispatch=dispatch) == expected


def test_greedy_samples_are_equal_to_the_parallel_form(model):
    found = texts(model, PROMPTS[:2], samples=2, sampling=GREEDY)
    for p, prompt in enumerate(PROMPTS[:2]):
        tokens = np.concatenate([prompt, found[2 * p]])
        likeliest = np.argmax(model(tokens[None, :-1])[0], axis=-1)
        np.testing.assert_array_equal(likeliest[len(prompt) - 1 :], found[2 * p])
        assert found[2 * p] == found[2 * p + 1]


def test_it_stops_when_all_rows_are_done(model):
    lengths = {}

    def done(row):
        return lengths.get(row, 0) >= 4 * (row + 1)

    for row, tokens in stream(model, [PROMPTS[0]], 3, 100, DRAWN, 0, done, dispatch=4):
        lengths[row] = lengths.get(row, 0) + len(tokens)
    assert lengths == {0: 12, 1: 12, 2: 12}
