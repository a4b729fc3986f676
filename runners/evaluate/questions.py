"""Examples of a probe as tokens of a task.

Letters: L length, n tokens of one sequence, m of its answer.
"""

import dataclasses
import functools

import numpy as np

import tasks
from tasks.recall import Example, Probe


@dataclasses.dataclass(frozen=True)
class Question:
    """A sequence that ends with an answer.

    Attributes:
      tokens: [n] int32 of context, query and answer, after the task's `end_token`.
      sizes: [m] bytes of the answer in each of its tokens, the last m of the sequence. The first
        may begin with bytes of the query.
    """

    tokens: np.ndarray
    sizes: np.ndarray


class Asker:
    """Makes questions in the tokens of a task over text."""

    def __init__(self, task: tasks.Task):
        self._task = task
        self._passage = functools.partial(task.passage, "test")
        ids = np.arange(task.vocab_size, dtype=np.int32)[:, None]
        self._bytes_of = np.array([len(task.decode(token)) for token in ids])

    def example(self, probe: Probe, length: int, depth: float, seed: int, number: int) -> Example:
        """An example of at most L tokens, and not many fewer; arguments as of `Probe.draw`.

        Raises:
          ValueError: as `Probe.draw`.
        """

        def draw(size: int) -> tuple[Example, int]:
            found = probe.draw(seed, number, size, depth, self._passage)
            contexts = (found.context, found.control)
            return found, max(len(self.question(found, c).tokens) - 1 for c in contexts)

        found, tokens = draw(length)  # a token is at least a byte
        size = length * length // tokens
        while size > length:
            larger, tokens = draw(size)
            if tokens <= length:
                return larger
            size -= max(1, (tokens - length) * size // tokens)
        return found

    def question(self, example: Example, context: bytes) -> Question:
        """The tokens of an example with one of its contexts."""
        before = context + example.query
        tokens = self._task.encode(before + example.answer)
        ends = np.cumsum(self._bytes_of[tokens]) - len(before)
        return Question(tokens, np.diff(ends[ends > 0], prepend=0))
