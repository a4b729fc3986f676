"""Command line of every program: errors in one line, exit codes, the console."""

import argparse
import logging
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
