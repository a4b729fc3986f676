"""Command line of every program: errors in one line, exit codes, the console."""

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from rich.console import Console

import tasks
from runners.core import allocator
from runners.core.errors import ConfigError, ResultsError
from runners.core.signals import Interrupted


class Parser(argparse.ArgumentParser):
    """Turns a wrong argument into one line of error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def main(program: str, function: Callable[[Sequence[str]], int], argv: Sequence[str]) -> NoReturn:
    """Runs a command and exits: 0 all done, 1 something failed, 2 the request was wrong."""
    _quiet()
    allocator.keep_memory()
    try:
        code = function(argv)
    except Interrupted as error:
        sys.stderr.write(
            f"{program}: interrupted; nothing is lost: run the same command to go on\n"
        )
        code = 128 + error.args[0]
    except (ConfigError, ResultsError) as error:
        sys.stderr.write(f"{program}: {error}\n")
        code = 2
    except tasks.DataMissingError as error:
        sys.stderr.write(f"{program}: {error}; then run the same command again\n")
        code = 1
    except OSError as error:
        sys.stderr.write(
            f"{program}: {error}; what was written is safe: mend it, then run the same command\n"
        )
        code = 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: stopped at once; run the same command to go on\n")
        code = 130
    sys.exit(code)


def _quiet() -> None:
    """Keeps the libraries' own log lines out of what a person reads."""
    for name in ("absl", "orbax", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)


def console() -> Console:
    """Standard output: live at a terminal; in a log file lines of at most 100 columns."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else 100, highlight=False)


def numbers(
    option: str,
    text: str | None,
    kind: type[int] | type[float],
    low: float,
    high: float = math.inf,
) -> tuple[float, ...]:
    """The numbers of an option, "16,64", without repetitions; none if it is not given.

    Raises:
      ConfigError: one of them is no such number, or not from `low` to `high`.
    """
    try:
        found = [kind(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        found = None
    if found is None or not all(low <= number <= high for number in found):
        what = "whole numbers" if kind is int else "numbers"
        end = f"of at least {low}" if high == math.inf else f"from {low} to {high:g}"
        raise ConfigError(f"--{option} {text!r}: expected {what} {end}, with commas between them")
    return tuple(dict.fromkeys(found))
