"""`python -m runners.train`: the base trial of a study alone, without its sweep.

python -m runners.train --config mqar.py --config.model.mixer=gla
--config.optimizer.learning_rate=3e-3
"""

import argparse
import sys
from collections.abc import Sequence

from runners import cli, sweep
from runners.config import trial_id


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    request = cli.parse("train", "Trains the base trial of a study.", argv, _add_options)
    config = request.study.base_trial()
    return sweep.run(request, [(trial_id(config), config)])


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rerun", action="store_true", help="run the trial again if it is done")
    parser.add_argument("--dry_run", action="store_true", help="show what would run")


if __name__ == "__main__":
    cli.main("train", main, sys.argv[1:])
