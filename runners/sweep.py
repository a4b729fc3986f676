"""`python -m runners.sweep`: every trial of a study, as populations, ending in its leaderboard.

    python -m runners.sweep --config mqar.py
    python -m runners.sweep --config mqar.py:figure2 --only mixer=gla,mamba --dry_run
    python -m runners.sweep --config mqar.py --config.model.d_model=128 --workdir results/wide

Exit codes: 0 all done, 1 something failed, 2 the request was wrong. A sweep that was killed goes on
where it stood when the same command is given again (a rerun, when it is given without --rerun);
several sweeps may share one work directory.
"""

import sys
from collections.abc import Sequence

from runners.core import cli
from runners.leaderboard import build
from runners.study.request import parse
from runners.study.run import run, summarize


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    request = parse("sweep", "Runs every trial of a study.", argv)
    trials, console = request.trials(), cli.console()
    unrun = run(request, trials, console)
    if not request.options.dry_run:
        build.publish(request.workdir, console)
    return summarize(request, trials, unrun, console)


if __name__ == "__main__":
    cli.main("sweep", main, sys.argv[1:])
