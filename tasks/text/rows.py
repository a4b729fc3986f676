"""Rows of tokens: windows of a split, within documents or across them.

A row is T + 1 tokens: each of the last T is predicted from those before it in the row. The windows
of a split overlap by one token, so that every token of the split is predicted once. The first
token of a document is predicted from `end`, and so is the end of it predicted.

Letters: T time, N rows.
"""

import abc
from typing import Any

import numpy as np

from tasks.text.store import Tokens


class Rows(abc.ABC):
    """Rows by number.

    Args:
      tokens: of the split.
      length: T.
    """

    def __init__(self, tokens: Tokens, length: int):
        self._tokens, self._length = tokens, length

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """N."""

    @abc.abstractmethod
    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions at which rows begin, and the number of tokens each predicts, both [n]."""

    def read(self, indices: np.ndarray) -> dict[str, Any]:
        """The rows with these numbers [n].

        Returns:
          "tokens" [n, T + 1], filled up with `end`; "length" [n] int32, the tokens that are
          predicted.
        """
        first, count = self.place(np.asarray(indices))
        offset = np.arange(self._length + 1)
        ids = self._tokens.ids
        tokens = np.asarray(ids[np.minimum(first[:, None] + offset, len(ids) - 1)])
        tokens[offset > count[:, None]] = ids[0]
        return {"tokens": tokens, "length": count.astype(np.int32)}


class DocumentRows(Rows):
    """Rows that stay within their document; the last of a document is shorter.

    whole: leaves the shorter ones out.
    """

    def __init__(self, tokens: Tokens, length: int, *, whole: bool = False):
        super().__init__(tokens, length)
        targets = tokens.lengths + 1
        self._counts = targets // length if whole else -(-targets // length)
        self._ends = np.cumsum(self._counts)

    @property
    def size(self) -> int:
        return int(self._ends[-1])

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        document = np.searchsorted(self._ends, indices, "right")
        within = indices - (self._ends - self._counts)[document]
        first = self._tokens.starts[document] - 1 + within * self._length
        left = self._tokens.lengths[document] + 1 - within * self._length
        return first, np.minimum(left, self._length)


class PackedRows(Rows):
    """Rows that go on into the next document."""

    @property
    def size(self) -> int:
        return -(-(len(self._tokens.ids) - 1) // self._length)

    def place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = indices * self._length
        return first, np.minimum(len(self._tokens.ids) - 1 - first, self._length)


def spread(size: int, count: int) -> np.ndarray:
    """`count` of `size` row numbers, evenly spread, [count]."""
    return np.arange(count) * size // count
