"""Examples as tokens: they fit, and the answer's tokens and bytes are counted right."""

import numpy as np
import pytest

from runners.evaluate.encoding import Encoder
from tasks import recall

PAIRS = (b": ", b" 1", b"12", b"s ", b"is", b"\n ", b"  ", b"in")


@pytest.mark.parametrize("pairs", [(), PAIRS], ids=["bytes", "pairs"])
@pytest.mark.parametrize("name", recall.names())
@pytest.mark.parametrize("length", [64, 257])
def test_the_tokens_of_a_question(text_task, pairs, name, length):
    task = text_task(pairs=pairs)
    encoder = Encoder(task)
    spare = {"phone_book": 16, "passkey": 1, "copy": 2}[name]
    for number in range(10):
        example = encoder.draw(recall.get(name), length, 0.5, 3, number)
        counts = []
        for context in (example.context, example.control):
            sequence = encoder.encode(example, context)
            tokens, count = sequence.tokens, len(sequence.sizes)
            assert task.decode(tokens) == context + example.query + example.answer
            assert tokens[0] == task.end_token
            assert task.decode(tokens[-count:]).endswith(example.answer)
            assert example.answer.endswith(task.decode(tokens[1 - count :]))
            assert sequence.sizes.sum() == len(example.answer)
            assert (sequence.sizes > 0).all()
            counts.append(len(tokens) - 1)
        assert max(counts) <= length
        assert max(counts) >= (length - spare) * (0.97 if pairs else 1)


def test_a_token_may_begin_before_the_answer(text_task):
    encoder = Encoder(text_task(pairs=(b" 1",)))
    example = recall.Example(b"a: 12\n", b"a: ", b"12", b"a: 34\n", (b"12",))
    sequence = encoder.encode(example, example.context)
    np.testing.assert_array_equal(sequence.sizes, [1, 1])
    np.testing.assert_array_equal(sequence.tokens[-2:], [257, ord("2")])
