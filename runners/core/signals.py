"""Ending on request: a signal is kept until the work so far is safe."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from runners.core.reporter import Reporter


class Interrupted(Exception):  # noqa: N818  (not an error: what was asked for)
    """A signal, number `args[0]`, asked for an end; the work so far stands in a checkpoint."""


@contextlib.contextmanager
def collected(reporter: Reporter) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second one acts as usual."""
    received: list[int] = []
    old = {}

    def handle(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, old[number])
        reporter.line("  stopping after this call; once more to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
