"""Text appears as soon as it is certain, and not before."""

import numpy as np
import pytest
from text_study import Sentence

from runners.generate.text import Text

TASK = Sentence()


def fed(data, sizes, stop=None):
    """The pieces of text that come out when bytes go in by `sizes`, and the Text."""
    text, pieces, start = Text(TASK, stop), [], 0
    for size in sizes:
        text.feed(np.array([*data[start : start + size]], np.int32))
        pieces.append(text.take())
        start += size
    return pieces, text


def test_a_character_over_two_tokens_waits_for_the_second():
    pieces, _ = fed("aäb".encode(), [1, 1, 1, 1])
    assert pieces == ["a", "", "ä", "b"]
    pieces, _ = fed("—".encode(), [1, 1, 1])
    assert pieces == ["", "", "—"]


def test_bytes_that_are_no_text_are_marked():
    pieces, text = fed(b"a\xffb\xe2\x80", [5])
    assert pieces == ["a�b"]
    text.finish()
    assert text.take() == "�"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
def test_the_stop_text_is_found_over_a_border(size):
    data = b"eins, zwei; drei"
    pieces, text = fed(data, [size] * (len(data) // size + 1), stop="ei; d")
    assert "".join(pieces) == "eins, zw"
    assert text.done


def test_a_beginning_of_the_stop_text_that_is_none_comes_out():
    pieces, text = fed(b"abaabaab", [4, 4], stop="aabab")
    assert pieces == ["ab", "aab"]  # "aa" and "aab" are held back
    assert not text.done
    text.finish()
    assert text.take() == "aab"


def test_a_stop_text_of_several_bytes_a_character():
    pieces, text = fed("über—alles".encode(), [1] * 13, stop="—")
    assert "".join(pieces) == "über"
    assert text.done


def test_the_end_token_ends_it():
    text = Text(TASK)
    text.feed(np.array([*b"ab", TASK.end_token, *b"cd"], np.int32))
    assert (text.take(), text.done) == ("ab", True)
    text.feed(np.array([*b"ef"], np.int32))
    assert text.take() == ""


def test_a_task_without_end_token_goes_on(monkeypatch):
    monkeypatch.setattr(Sentence, "end_token", None)
    pieces, text = fed(b"abc", [3])
    assert (pieces, text.done) == (["abc"], False)


def test_nothing_is_printed_after_the_stop_text():
    text = Text(TASK, "x")
    text.feed(np.array([*"äx".encode()], np.int32))
    text.feed(np.array([*b"more"], np.int32))
    assert (text.take(), text.take()) == ("ä", "")
