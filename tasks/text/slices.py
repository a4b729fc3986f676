"""Slices of evaluated rows: associative recall hits, lengths and positions.

Letters: N rows, T time.
"""

from typing import Any

import numpy as np

from tasks.metrics import properties

NOTES = {
    "ar_hits": "tokens that complete an n-gram already seen in their row (associative recall hits)",
    "other": "all other tokens",
}
_FIRST_POSITIONS = 16  # the first group of positions; the next ones end at 32, 64, …


def recall_hits(tokens: np.ndarray, length: np.ndarray, context: int) -> np.ndarray:
    """Predicted tokens that complete an n-gram already seen in their row.

    Zoology (Arora et al. 2023, arXiv 2312.04927, section 3.1) calls them associative recall (AR)
    hits, with n = 2: the token before has stood in the context, followed by the same token.

    Args:
      tokens: [N, T + 1].
      length: tokens that are predicted, [N].
      context: tokens before the predicted one that must be the same, n − 1.

    Returns:
      [N, T] bool.
    """
    found = np.zeros((tokens.shape[0], tokens.shape[1] - 1), bool)
    for i, (row, count) in enumerate(zip(tokens.tolist(), length.tolist(), strict=True)):
        seen = set()
        for t in range(context - 1, count):
            ngram = tuple(row[t + 1 - context : t + 2])
            found[i, t] = ngram in seen
            seen.add(ngram)
    return found


def of_recall(hits: Any) -> dict[str, Any]:
    """Weights of all tokens (""), of the recall hits [N, T], and of the others."""
    return {"": 1 - 0 * hits, "ar_hits": 1 * hits, "other": 1 - hits}


def of_positions(length: int, unit: int) -> dict[str, Any]:
    """Weights [1, T] of long rows: their first `unit`, 2 `unit`, … tokens, and groups of positions.

    The groups end at position 16, 32, …; the first begins at 1.
    """
    position = np.arange(1, length + 1)[None]
    found, end = {}, unit
    while end <= length:
        found[properties(length=end)] = 1 * (position <= end)
        end *= 2
    begin, end = 0, _FIRST_POSITIONS
    while begin < length:
        found[properties(position=min(end, length))] = 1 * ((begin < position) & (position <= end))
        begin, end = end, 2 * end
    return found
