"""Passkey: a random key within other text, asked for at the end (Mohtashami & Jaggi 2023, Landmark
Attention, arXiv 2305.16300); a needle in a haystack.

    … text …
    The pass key is 71432.
    … text …
    The pass key is |71432

The sentence stands at the depth asked for. The control has another key in its place. Differences
from the paper: the other text is of the kind that the model was trained on, the key is given once,
and the query is the beginning of the same sentence.
"""

import random

from tasks.recall.probe import Example, Passage, Probe, digits, register, too_short

_DIGITS = 5
_NEEDLE, _QUERY = b"\nThe pass key is %b.\n", b"\nThe pass key is "


@register("passkey")
class Passkey(Probe):
    """The key that the context names."""

    about = "the key in a sentence within other text"
    alphabet = b"0123456789"

    def example(self, rng: random.Random, size: int, depth: float, passage: Passage) -> Example:
        fixed = len(_NEEDLE % bytes(_DIGITS)) + len(_QUERY) + _DIGITS
        if size <= fixed:
            raise too_short(size, fixed + 1)
        filler = passage(rng.random(), size - fixed)
        key, other = _absent(rng, filler), _absent(rng, filler)
        while other == key:
            other = _absent(rng, filler)
        cut = _character_start(filler, int(depth * len(filler)))
        before, after = filler[:cut], filler[cut:]
        return Example(
            context=before + _NEEDLE % key + after,
            query=_QUERY,
            answer=key,
            control=before + _NEEDLE % other + after,
            candidates=(key,),
        )


def _absent(rng: random.Random, text: bytes) -> bytes:
    """A key that the text does not hold."""
    while (key := digits(rng, _DIGITS)) in text:
        pass
    return key


def _character_start(text: bytes, position: int) -> int:
    """The beginning of the UTF-8 character that `position` is in."""
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position -= 1
    return position
