"""The text of one sample, as its tokens come."""

import codecs

import numpy as np

import tasks


class Text:
    """Collects tokens, and gives out text as soon as it is certain.

    It ends at the task's end token or before the stop text. Held back until more is known: bytes of
    a character that is not complete, and what may be the beginning of the stop text. Bytes that are
    no UTF-8 become U+FFFD.

    Attributes:
      done: the text has ended.
    """

    def __init__(self, task: tasks.Task, stop: str | None = None):
        self.done = False
        self._task, self._stop = task, (stop or "").encode()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held, self._ready = b"", ""

    def feed(self, tokens: np.ndarray) -> None:
        """Adds the next tokens; what comes after the end is ignored."""
        if self.done:
            return
        ends = np.flatnonzero(tokens == self._task.end_token) if self._has_end else ()
        own = tokens[: ends[0]] if len(ends) else tokens
        self._held += self._task.decode(own)
        place = self._held.find(self._stop) if self._stop else -1
        if place >= 0:
            self._held = self._held[:place]
        if place >= 0 or len(ends):
            self.finish()
            return
        certain = len(self._held) - self._beginning_of_stop()
        self._ready += self._decoder.decode(self._held[:certain])
        self._held = self._held[certain:]

    @property
    def _has_end(self) -> bool:
        return self._task.end_token is not None

    def finish(self) -> None:
        """Ends the text here, with all that was held back."""
        self._ready += self._decoder.decode(self._held, final=True)
        self._held, self.done = b"", True

    def take(self) -> str:
        """The text that has become certain since the last call."""
        ready, self._ready = self._ready, ""
        return ready

    def _beginning_of_stop(self) -> int:
        """Length of the longest end of what is held that the stop text begins with."""
        longest = min(len(self._stop) - 1, len(self._held))
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if self._held.endswith(self._stop[:n])), 0)
