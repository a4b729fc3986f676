"""Every probe keeps its contract, and each has the form that its paper gives it."""

import re

import pytest

from tasks import recall

TEXT = "".join(f"def gämma_{i}(δ):\n    return δ + {i * 7919}\n" for i in range(600)).encode()
DEPTHS = (0.0, 0.3, 0.5, 1.0)
SIZES = (64, 101, 333, 1000)


def passage(place, num_bytes):
    if len(TEXT) < 4 * num_bytes:
        raise ValueError("too little text")
    start = int(place * (len(TEXT) - 2 * num_bytes))
    return TEXT[start : start + num_bytes].decode(errors="ignore").encode()


def examples(name, size, depth, seed=0, count=20):
    return [recall.get(name).draw(seed, number, size, depth, passage) for number in range(count)]


@pytest.mark.parametrize("name", recall.names())
class TestEveryProbe:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("depth", DEPTHS)
    def test_the_answer_stands_in_the_context_once_and_not_in_the_control(self, name, size, depth):
        for example in examples(name, size, depth):
            assert example.context.count(example.answer) == 1
            assert example.control.count(example.answer) == 0
            assert example.answer not in example.query
            assert example.answer in example.candidates
            assert all(example.context.count(other) == 1 for other in example.candidates)
            assert set(example.answer) <= set(recall.get(name).alphabet)
            for text in (example.context, example.control, example.answer):
                text.decode()  # whole characters

    @pytest.mark.parametrize("size", SIZES)
    def test_it_fills_its_size(self, name, size):
        spare = {"phone_book": 16, "passkey": 4, "copy": 8}[name]  # less than an entry, a character
        for example in examples(name, size, 0.5):
            for context in (example.context, example.control):
                own = len(context + example.query + example.answer)
                assert size - spare < own <= size

    def test_it_is_the_same_again_and_other_for_others(self, name):
        assert examples(name, 200, 0.5) == examples(name, 200, 0.5)
        found = examples(name, 200, 0.5) + examples(name, 200, 0.5, seed=1)
        assert len({example.answer for example in found}) == len(found)

    def test_too_short_is_one_line(self, name):
        for size in range(1, 64):
            try:
                made = recall.get(name).draw(0, 0, size, 0.5, passage)
            except ValueError as error:
                message = str(error)
                assert message.startswith(f"{size} bytes are too few")
                shortest = int(message.rpartition(" ")[2])
            else:
                assert len(made.context + made.query + made.answer) <= size
                assert size >= shortest
        recall.get(name).draw(0, 0, shortest, 0.5, passage)


def test_the_examples_do_not_change():
    """Draws are those of every machine; whoever changes one bumps the probe's version."""
    book = recall.get("phone_book").draw(0, 0, 64, 0.0, passage)
    assert book.context == b"Kuvame: 5824794\nFotavo: 1193731\nTukalo: 1405269\n"
    assert (recall.get("phone_book").version, recall.get("passkey").version) == (1, 1)
    assert recall.get("passkey").draw(0, 0, 64, 0.0, passage).answer == b"89143"


class TestPhoneBook:
    @pytest.mark.parametrize("depth", DEPTHS)
    def test_the_entry_stands_at_the_depth(self, depth):
        for example in examples("phone_book", 500, depth):
            entries = re.findall(rb"([A-Z][a-z]{5}): (\d{7})\n", example.context)
            assert b"".join(b"%b: %b\n" % entry for entry in entries) == example.context
            assert len({name for name, _ in entries}) == len(entries) == 30
            place = entries.index((example.query.removesuffix(b": "), example.answer))
            assert place == round(depth * 29)
            assert example.candidates == tuple(number for _, number in entries)

    def test_the_control_differs_in_that_number_alone(self):
        for example in examples("phone_book", 500, 0.5):
            lines = zip(example.context.split(), example.control.split(), strict=True)
            ((own, other),) = [pair for pair in lines if pair[0] != pair[1]]
            assert own == example.answer
            assert re.fullmatch(rb"\d{7}", other)


class TestPasskey:
    @pytest.mark.parametrize("depth", DEPTHS)
    def test_the_sentence_stands_at_the_depth(self, depth):
        for example in examples("passkey", 400, depth):
            sentence = b"\nThe pass key is %b.\n" % example.answer
            before, _, after = example.context.partition(sentence)
            assert before + after in TEXT
            assert abs(len(before) - depth * len(before + after)) <= 2  # within a character
            assert sentence.startswith(example.query)

    def test_the_control_names_another_key(self):
        for example in examples("passkey", 400, 0.5):
            other = re.search(rb"The pass key is (\d{5})\.", example.control)[1]
            assert example.control.replace(other, example.answer) == example.context


class TestCopy:
    def test_it_is_a_passage_and_the_control_another(self):
        for example in examples("copy", 400, 0.0):
            assert example.context == example.answer
            assert example.answer in TEXT
            assert example.control in TEXT
            assert abs(TEXT.index(example.answer) - TEXT.index(example.control)) > 400

    def test_text_that_says_the_same_everywhere(self):
        with pytest.raises(ValueError, match="the text says the same everywhere"):
            recall.get("copy").draw(0, 0, 64, 0.0, lambda place, num_bytes: b"a" * num_bytes)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="unknown probe 'passkeys': did you mean 'passkey'"):
        recall.get("passkeys")
