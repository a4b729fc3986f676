"""The command line shared by the programs of `runners`."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

import tasks
from runners.core import allocator
from runners.core.errors import ConfigError, ResultsError, nearest
from runners.core.signals import Interrupted
from runners.study.config import Study


@dataclasses.dataclass(frozen=True)
class Request:
    """What a person asked for."""

    study: Study
    workdir: Path
    options: argparse.Namespace


class Parser(argparse.ArgumentParser):
    """Turns a wrong argument into one line of error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(
    program: str,
    description: str,
    argv: Sequence[str],
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> Request:
    """Reads the command line; raises ConfigError with one line if it cannot be right."""
    parser = Parser(
        prog=f"python -m runners.{program}",
        description=description,
        epilog="--config.KEY=VALUE overrides any key, also where the study sweeps over it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:PRESET]",
        help="a study; looked for here, then in configs/",
    )
    parser.add_argument("--workdir", type=Path, help="where results go (default: results/<study>)")
    parser.add_argument(
        "--checkpoint_seconds",
        type=float,
        default=60.0,
        help="seconds of work that a kill may cost (default: 60)",
    )
    parser.add_argument(
        "--population_size",
        type=int,
        help="most trials that train as one program, where memory is short (default: no limit)",
    )
    parser.add_argument(
        "--rerun", action="store_true", help="run trials that are done; records stay"
    )
    parser.add_argument(
        "--keep_weights", action="store_true", help="keep what the trials learn, in weights/"
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="read stored training data while training, even where they fit on the device",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="show what would run and how long it may take; write nothing",
    )
    add_options(parser)
    options, rest = parser.parse_known_args(argv)
    overrides, known = {}, [o for a in parser._actions for o in a.option_strings]
    remaining = iter(rest)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not name.startswith("--config."):
            raise ConfigError(f"unknown argument {name!r}: {nearest(name, known)}")
        if not equals:
            value = next(remaining, None)
            if value is None:
                raise ConfigError(f"{name} has no value, expected {name}=VALUE")
        overrides[name.removeprefix("--config.")] = value
    if options.population_size is not None and options.population_size < 1:
        raise ConfigError(f"--population_size {options.population_size}: expected at least 1")
    study = Study(options.config, overrides)
    return Request(study, options.workdir or Path("results") / study.name, options)


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
    """Where a person reads: live at a terminal; in a log file lines of at most 100 columns."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else 100, highlight=False)
