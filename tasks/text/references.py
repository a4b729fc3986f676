"""Reference scores of a text: predictors that count, on the rows that models are tested on.

Letters: N rows, T time, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.text.compressor import xz_bits_per_byte
from tasks.text.kneser_ney import KneserNey
from tasks.text.store import Tokens
from tasks.text.tokenizer import Tokenizer

_ORDERS = (1, 2, 3, 4, 5)
_MOST_TOKENS = 2**25  # of the training split that are counted

NOTES = {
    "uniform": "gives every token the same probability",
    **{f"{n}-gram": f"Kneser–Ney over {n} tokens, fitted on the training text" for n in _ORDERS},
    "xz": "compresses the test rows after the training text",
}


@dataclasses.dataclass(frozen=True)
class EvalRows:
    """Rows of one length that are tested on.

    Attributes:
      tokens: [N, T + 1].
      weights: [N, T], 0 where nothing is predicted.
      slices: weights by the name of a slice, each [N, T] or [T]; "" is the whole.
    """

    tokens: np.ndarray
    weights: np.ndarray
    slices: Mapping[str, Any]


def bits_per_byte(
    train: Tokens, parts: Sequence[EvalRows], tokenizer: Tokenizer
) -> dict[str, dict[str, float]]:
    """Bits per byte of every predictor on every slice, by predictor and name of the slice."""
    counted = train.ids[: _MOST_TOKENS + 1]
    model = KneserNey(
        counted[1:], end=tokenizer.end, vocab_size=tokenizer.vocab_size, max_order=max(_ORDERS)
    )
    found: dict[str, dict[str, float]] = {"uniform": {}, **{f"{n}-gram": {} for n in _ORDERS}}
    for rows in parts:
        uniform = np.full(rows.weights.shape, math.log(tokenizer.vocab_size))
        nats = {"uniform": uniform}
        nats |= {f"{n}-gram": model.nats(rows.tokens, n) for n in _ORDERS}
        sizes = tokenizer.bytes_of[rows.tokens[:, 1:]]
        for slice_name, own in rows.slices.items():
            weights = rows.weights * own
            for name, values in nats.items():
                bits = np.sum(values * weights) / math.log(2)
                found[name][slice_name] = float(bits / max(np.sum(sizes * weights), 1))
    first = parts[0]
    tested = first.tokens[:, 1:][first.weights > 0]
    text, history = tokenizer.decode(tested), tokenizer.decode(counted)
    found["xz"] = {"": xz_bits_per_byte(history, text)}
    return found
