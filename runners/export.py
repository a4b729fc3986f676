"""`python -m runners.export`: a trial's model as files, to be read with `arch` alone.

    python -m runners.sweep --config STUDY.py --keep_weights [--rerun]
    python -m runners.export --workdir results/STUDY [--trial ID] [--output FOLDER]

It writes a new folder with `model.safetensors` and `config.json`, whole or not at all;
`arch.load(FOLDER)` builds the model, whose logits are the same to the bit.

Exit codes: 0 done; 1 the folder cannot be written; 2 the request was wrong.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import arch
from runners.core import cli
from runners.core.errors import ConfigError
from runners.generate import trial
from runners.training import weights
from runners.training.model import backbone_arguments

_FOLDER = "models"


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m runners.export",
        description="A trial's model as safetensors and JSON.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a study, with its weights")
    parser.add_argument(
        "--trial",
        metavar="ID",
        help="a trial's id or its beginning (default: the best that has weights)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"a new folder (default: {_FOLDER}/ID in the workdir)",
    )
    options = parser.parse_args(argv)
    if options.trial is None:
        record = trial.best(options.workdir)[0]
    else:
        record = trial.find(options.workdir, options.trial)
    task, model = weights.load(options.workdir, record)
    output = options.output or options.workdir / _FOLDER / record["id"]
    about = {
        "trial": record["id"],
        "study": record["study"],
        "task": record["config"]["task"],
        "metrics": record["metrics"],
        "provenance": record["provenance"],
    }
    try:
        arch.save(output, model, backbone_arguments(record["config"], task), about)
    except ValueError as error:
        raise ConfigError(f"{error} (--output)") from error
    cli.console().print(f"wrote {output}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    cli.main("export", main, sys.argv[1:])
