"""`python -m runners.train`: the base trial of a study alone, without its sweep.

python -m runners.train --config mqar.py --config.model.mixer=gla --config.seed=1
"""

import sys
from collections.abc import Sequence

from runners.core import cli
from runners.leaderboard import build
from runners.study.request import parse
from runners.study.run import run, summarize


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    request = parse("train", "Trains the base trial of a study.", argv, only=False)
    trials, console = [request.study.base_trial()], cli.console()
    unrun = run(request, trials, console)
    if not request.options.dry_run:
        build.publish(request.workdir, console)
    return summarize(request, trials, unrun, console)


if __name__ == "__main__":
    cli.main("train", main, sys.argv[1:])
