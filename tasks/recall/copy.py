"""Copy: a passage once more, after itself and a separator (Jelassi et al. 2024, "Repeat After Me",
arXiv 2402.01032, sections 4 and 5).

    passage
    ---
    |passage

The whole second copy is the answer, with its first bytes, although nothing but the form of the
example announces it. The control has a passage from elsewhere in the place of the first copy; bits
are saved by copying, and to a lesser degree by words and letters that are frequent in the passage.
"""

import random

from tasks.recall.probe import Example, Passage, Probe, register, too_short

_SEPARATOR = b"\n---\n"
_TRIES = 100


@register("copy")
class Copy(Probe):
    """The passage that the context is."""

    about = "a passage again, after itself and a separator"
    alphabet = bytes(range(256))
    has_depth = False

    def example(self, rng: random.Random, size: int, depth: float, passage: Passage) -> Example:
        del depth
        length = (size - len(_SEPARATOR)) // 2
        if length < 1:
            raise too_short(size, len(_SEPARATOR) + 2)
        for _ in range(_TRIES):
            place = rng.random()
            own, other = passage(place, length), passage((place + 0.5) % 1, length)
            if own and own not in other:  # as license headers of two files may be
                return Example(own, _SEPARATOR, own, other, (own,))
        raise ValueError(f"the text says the same everywhere: {_TRIES} passages had no counterpart")
