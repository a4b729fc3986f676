"""Command line of the programs that run a study."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runners.core import cli
from runners.core.errors import ConfigError, nearest
from runners.core.run_options import RunOptions
from runners.study import filter as trial_filter
from runners.study.config import Study


@dataclasses.dataclass(frozen=True)
class Request:
    """A study to run.

    Attributes:
      study: the configuration file with its overrides.
      workdir: the folder of its results.
      only: conditions that its trials must meet.
      options: of the run.
    """

    study: Study
    workdir: Path
    only: tuple[str, ...]
    options: RunOptions

    def trials(self) -> list[dict[str, Any]]:
        """The study's trials that meet all conditions; raises ConfigError if one cannot be met."""
        return trial_filter.select(self.study.trials(), self.only)


def parse(program: str, description: str, argv: Sequence[str], *, only: bool = True) -> Request:
    """Reads the command line of a program that runs a study.

    Args:
      program: its name, below `runners`.
      description: for --help.
      argv: the arguments.
      only: whether it takes --only.

    Raises:
      ConfigError: one line, if the request cannot be right.
    """
    parser = cli.Parser(
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
    RunOptions.add_to(parser)
    if only:
        trial_filter.add_only(parser)
    parsed, rest = parser.parse_known_args(argv)
    overrides = _overrides(rest, [o for a in parser._actions for o in a.option_strings])
    try:
        options = RunOptions.of(parsed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    study = Study(parsed.config, overrides)
    conditions = tuple(parsed.only) if only else ()
    return Request(study, parsed.workdir or Path("results") / study.name, conditions, options)


def _overrides(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The values of `--config.KEY=VALUE` or `--config.KEY VALUE`, by dotted key."""
    overrides = {}
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not name.startswith("--config."):
            raise ConfigError(f"unknown argument {name!r}: {nearest(name, known)}")
        if not equals:
            value = next(remaining, None)
            if value is None:
                raise ConfigError(f"{name} has no value, expected {name}=VALUE")
        overrides[name.removeprefix("--config.")] = value
    return overrides
