"""Scores against a computation of their own, in float64 and with the parallel form."""

import numpy as np
import pytest
from flax import nnx
from perturbed import perturbed

import arch
from arch.model.decoding import greedy
from runners.evaluate import scoring
from runners.evaluate.encoding import Encoded, Encoder
from tasks import recall

LENGTH = 100  # no multiple of a part


def model_of(mixer, **options):
    """A model whose logits are far from uniform."""
    model = arch.Backbone(
        mixer, 16, num_layers=2, vocab_size=257, max_length=128, rngs=nnx.Rngs(0), **options
    )
    return perturbed(model, 0.3)


def encoded_of(task, length=LENGTH):
    encoder = Encoder(task)
    drawn = [
        encoder.draw(recall.get(name), length, 0.5, 0, number)
        for name in recall.names()
        for number in range(2)
    ]
    return [encoder.encode(example, example.context) for example in drawn]


def expected(model, sequence):
    """Exact match, token accuracy and bits per byte of one answer."""
    tokens, count = sequence.tokens, len(sequence.sizes)
    logits = np.asarray(model(tokens[None, :-1])[0, -count:], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = logits.argmax(-1) == tokens[-count:]
    nats = -log_p[np.arange(count), tokens[-count:]].sum()
    return right.all(), right.mean(), nats / np.log(2) / sequence.sizes.sum()


@pytest.mark.parametrize("mixer", ["attention", "gla", "hyena", "mamba"])
def test_scores_are_those_of_the_parallel_form(text_task, mixer):
    model, encoded = model_of(mixer), encoded_of(text_task())
    found = scoring.score(model, encoded, LENGTH)
    for row, sequence in enumerate(encoded):
        exact, accuracy, bits = expected(model, sequence)
        assert found.exact[row] == exact
        np.testing.assert_allclose(found.accuracy[row], accuracy)
        np.testing.assert_allclose(found.bits[row], bits, rtol=1e-4)


def test_they_do_not_depend_on_what_is_read_together(text_task, monkeypatch):
    model, encoded = model_of("gla"), encoded_of(text_task())
    found = scoring.score(model, encoded, LENGTH)
    monkeypatch.setattr(scoring, "_BATCH", 4)  # 6 sequences: the last batch is filled up
    monkeypatch.setattr(scoring, "_PART", 32)
    other = scoring.score(model, encoded, LENGTH + 20)
    np.testing.assert_allclose(other.bits, found.bits, rtol=1e-5)
    np.testing.assert_array_equal(other.accuracy, found.accuracy)


def test_greedy_decoding_gives_the_answers_that_match_exactly(text_task):
    model = model_of("gla")
    prompt = text_task().encode(b"for i in range")
    said = np.asarray(greedy(model, prompt[None], 5)[0])
    for changed in (None, 0, 4):
        answer = said.copy()
        if changed is not None:
            answer[changed] = (answer[changed] + 1) % 256
        sequence = Encoded(np.concatenate([prompt, answer]), np.ones(5, int))
        found = scoring.score(model, [sequence], 30)
        assert found.exact[0] == (changed is None)
        assert found.exact[0] or found.accuracy[0] < 1


def test_a_model_without_a_state_for_a_length_says_so():
    for model in (model_of("gla", position_embedding=True), model_of("hyena")):
        scoring.check_length(model, 128)
        with pytest.raises(ValueError, match="128"):
            scoring.check_length(model, 129)
