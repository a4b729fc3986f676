"""Progress of long work for people: a live line at a terminal, plain lines in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL = 10.0  # seconds between the lines of a log


class Reporter:
    """Shows the progress of one piece of work after another.

    Args:
      console: where to write; live if it is a terminal.
    """

    def __init__(self, console: Console):
        self.console = console
        self._live: Progress | None = None
        self._last_line = 0.0

    @contextmanager
    def work(self, name: str, total: int, done: int, unit: str, status: str) -> Iterator[None]:
        """Frames work of `total` units that starts, or goes on, where `done` are done."""
        self._name, self._total, self._first, self._unit = name, total, done, unit
        self._start = self._last_line = time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as live:
            self._live = live
            self._task = live.add_task(name, total=total, completed=done, status=status)
            try:
                yield
            finally:
                self._live = None

    def update(self, done: int, status: str) -> None:
        """Reports that `done` units are done; `status` is a few words on what was reached."""
        if self._live is not None:
            self._live.update(self._task, completed=done, status=status)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL:
            self._last_line = now
            rate = (now - self._start) / max(1, done - self._first)
            eta = rate * (self._total - done)
            words = [f"{self._unit} {done}/{self._total}", status, f"at most {eta:.0f} s left"]
            self.line(f"{self._name}: {', '.join(filter(None, words))}")

    def line(self, text: str, style: str | None = None) -> None:
        """Writes a line that stays."""
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
