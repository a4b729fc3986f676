"""`python -m runners.train`: the base trial of a study alone, without its sweep.

python -m runners.train --config mqar.py --config.model.mixer=gla --config.seed=1
"""

import sys
from collections.abc import Sequence

from runners import sweep
from runners.core import cli
from runners.core.identity import trial_id


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    request = cli.parse("train", "Trains the base trial of a study.", argv)
    config = request.study.base_trial()
    return sweep.run(request, [(trial_id(config), config)])


if __name__ == "__main__":
    cli.main("train", main, sys.argv[1:])
