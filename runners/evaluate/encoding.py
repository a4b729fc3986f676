"""Examples of a probe as tokens of a task.

Letters: L length, n tokens of one sequence, m of its answer.
"""

import dataclasses
import functools

import numpy as np

import tasks
from tasks.recall import Example, Probe


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Example with one of its contexts.

    Attributes:
      tokens: [n] int32 of context, query and answer, after the task's `end_token`.
      sizes: [m] bytes of the answer in each of its tokens, the last m of the sequence. The first
        may begin with bytes of the query.
    """

    tokens: np.ndarray
    sizes: np.ndarray


class Encoder:
    """Encoder of examples for a task over text."""

    def __init__(self, task: tasks.Task):
        self._task = task
        self._passage = functools.partial(task.passage, "test")
        ids = np.arange(task.vocab_size, dtype=np.int32)[:, None]
        self._bytes_of = np.array([len(task.decode(token)) for token in ids])

    def encode(self, example: Example, context: bytes) -> Encoded:
        """The tokens of an example with one of its contexts."""
        before = context + example.query
        # As one text, so that tokens are those that a model has seen; see `Encoded.sizes`.
        tokens = self._task.encode(before + example.answer)
        ends = np.cumsum(self._bytes_of[tokens]) - len(before)
        return Encoded(tokens, np.diff(ends[ends > 0], prepend=0))

    def draw(self, probe: Probe, length: int, depth: float, seed: int, number: int) -> Example:
        """An example that fills L tokens, or nearly; other arguments as in `Probe.draw`.

        Raises:
          ValueError: as `Probe.draw`.
        """

        def attempt(size: int) -> tuple[Example, int]:
            found = probe.draw(seed, number, size, depth, self._passage)
            contexts = (found.context, found.control)
            return found, max(len(self.encode(found, c).tokens) - 1 for c in contexts)

        found, tokens = attempt(length)  # a token has at least a byte
        size = length * length // tokens
        while size > length:
            larger, tokens = attempt(size)
            if tokens <= length:
                return larger
            size -= max(1, (tokens - length) * size // tokens)
        return found
