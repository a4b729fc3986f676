"""Phone book: the number of a name, after a list of names and numbers (Jelassi et al. 2024, "Repeat
After Me", arXiv 2402.01032, section 5).

    Kolapi: 5081173
    Tamiko: 9926402
    …
    Tamiko: |9926402

The entry stands at the depth asked for, and the book has as many entries as fit. The control has
another number in that entry. Differences from the paper: names are random syllables, all of one
length, instead of names of people, and there are no solved queries before this one.
"""

import random
from collections.abc import Callable

from tasks.recall.probe import Example, Passage, Probe, below, digits, register, too_short

_CONSONANTS, _VOWELS = b"bdfgklmnprstvz", b"aeiou"
_SYLLABLES, _DIGITS = 3, 7


@register("phone_book")
class PhoneBook(Probe):
    """The number of one of the names."""

    about = "the number of a name, after a list of names and numbers"
    alphabet = b"0123456789"

    def example(self, rng: random.Random, size: int, depth: float, passage: Passage) -> Example:
        del passage
        name_bytes = 2 * _SYLLABLES
        query_bytes = name_bytes + len(": ")
        entry_bytes = query_bytes + _DIGITS + len("\n")
        count = (size - query_bytes - _DIGITS) // entry_bytes
        if count < 2:
            raise too_short(size, 2 * entry_bytes + query_bytes + _DIGITS)
        names = _distinct(count, lambda: _name(rng))
        *numbers, other = _distinct(count + 1, lambda: digits(rng, _DIGITS))
        asked = round(depth * (count - 1))
        changed = [*numbers[:asked], other, *numbers[asked + 1 :]]
        return Example(
            context=_book(names, numbers),
            query=names[asked] + b": ",
            answer=numbers[asked],
            control=_book(names, changed),
            candidates=tuple(numbers),
        )


def _distinct(count: int, draw: Callable[[], bytes]) -> list[bytes]:
    """So many different draws, in the order of their first appearance."""
    found: dict[bytes, None] = {}
    while len(found) < count:
        found[draw()] = None
    return list(found)


def _name(rng: random.Random) -> bytes:
    letters = [kind[below(rng, len(kind))] for kind in (_CONSONANTS, _VOWELS) * _SYLLABLES]
    return bytes(letters).capitalize()


def _book(names: list[bytes], numbers: list[bytes]) -> bytes:
    return b"".join(b"%b: %b\n" % entry for entry in zip(names, numbers, strict=True))
