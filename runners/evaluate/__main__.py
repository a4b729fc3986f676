"""`python -m runners.evaluate`: recall of trained language models, zero-shot.

    python -m runners.sweep --config lm.py --keep_weights [--rerun]
    python -m runners.evaluate --workdir results/lm
    python -m runners.evaluate --workdir results/lm --trial ID --tasks passkey --lengths 256,1024

Each probe of `tasks/recall` asks for something that stands in the context: the number of a name in
a phone book, a key within test documents, a passage again. The recurrent form reads context, query
and answer, and the answer is scored (`runners/evaluate/scoring.py`): exact match, token accuracy,
and bits per byte. The control is the same answer after a context that has another fact in its
place; the bits saved against it come from the context. They show recall in small models, which
seldom give a whole answer.

A length is that of context, query and answer together, in tokens. By default lengths double up to
8 times the training length, from 64 or a little more. A model that has no state for a length gets
a dash, and a line says why.

One trial of each row of the leaderboard is evaluated, that of the smallest seed whose weights were
kept, or those that are named. The tables, `evaluate.json` and the plots go to the study's folder.
Scores that are in `evaluate.json` are not measured again.

Exit codes: 0 done; 1 the text is not here; 2 the request was wrong, or the folder cannot be
written.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence

from runners.core import cli, files, naming, provenance
from runners.core.errors import ConfigError
from runners.core.store import Record
from runners.evaluate import plot, record, table
from runners.evaluate.cells import Settings, measure
from runners.evaluate.record import Entry
from runners.generate import trial
from tasks import recall

_SHORTEST, _LONGEST = 64, 8  # in tokens; in training lengths


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    probes = _probes(options.tasks)
    lengths = sorted(cli.numbers("lengths", options.lengths, int, 1))
    depths = sorted(cli.numbers("depths", options.depths, float, 0, 1))
    if options.examples < 1:
        raise ConfigError(f"--examples {options.examples}: expected at least 1")
    console = cli.console()
    found: dict[str, dict[str, Entry]] = {probe: {} for probe in probes}
    for trained in trial.chosen(options.workdir, options.trial):
        name = naming.model_name(trained["config"]["model"])
        if name in found[probes[0]]:
            name = f"{name} {trained['id']}"
        console.print(f"{name}, trial {trained['id']}", soft_wrap=True, markup=False)
        for probe, entry in _entries(trained, probes, lengths, depths, options):
            found[probe][name] = entry
    for probe, entries in found.items():
        title = f"\n{probe}: {recall.get(probe).about}"
        console.print(title, soft_wrap=True, markup=False)
        console.print(table.scores(entries))
        for line in table.failures(entries):
            console.print(line, soft_wrap=True, markup=False)
    console.print(f"\nwrote {options.workdir / record.NAME}", soft_wrap=True, markup=False)
    pictures = {
        "plots/evaluate.png": plot.against_length(found),
        "plots/evaluate-depth.png": plot.against_depth(found),
    }
    for path, content in pictures.items():
        if content is not None:
            files.replace(options.workdir / path, content)
            console.print(f"wrote {options.workdir / path}", soft_wrap=True, markup=False)
    return 0


def _entries(
    trained: Record,
    probes: Sequence[str],
    lengths: Sequence[int],
    depths: Sequence[float],
    options: argparse.Namespace,
) -> Iterator[tuple[str, Entry]]:
    """Yields the entry of a trial for each probe, measured or found in the study's folder."""
    task, model = trial.load(options.workdir, trained)
    trial.refuse_symbols(task, trained, "encode", "passage")
    lengths = tuple(lengths or _default_lengths(task.max_length))
    for name in probes:
        probe = recall.get(name)
        own = tuple(depths) if probe.has_depth else (0.0,)
        examples = -(-options.examples // len(own))
        settings = Settings(probe.version, lengths, own, examples, options.seed)
        entry = record.find(options.workdir, trained["id"], name, settings)
        if entry is None:
            source = provenance.provenance()
            cells = measure(model, task, probe, settings)
            entry = Entry(trained["id"], name, dataclasses.asdict(settings), cells, source)
            record.keep(options.workdir, entry)
        yield name, entry


def _default_lengths(trained_length: int) -> list[int]:
    """Lengths by doubling, the last 8 times that of training, in ascending order."""
    lengths = [_LONGEST * trained_length]
    while lengths[0] // 2 >= _SHORTEST:
        lengths.insert(0, lengths[0] // 2)
    return lengths


def _probes(text: str | None) -> list[str]:
    names = recall.names() if text is None else list(dict.fromkeys(text.split(",")))
    for name in names:
        try:
            recall.get(name)
        except ValueError as error:
            raise ConfigError(f"--tasks {text!r}: {error}") from error
    return names


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m runners.evaluate",
        description="Recall of trained language models, zero-shot.",
        allow_abbrev=False,
    )
    trial.add_arguments(parser, "one of each row of the leaderboard")
    parser.add_argument(
        "--tasks", metavar="NAME,NAME", help=f"probes (default: {','.join(recall.names())})"
    )
    parser.add_argument(
        "--lengths",
        metavar="L,L",
        help="tokens of context, query and answer (default: by doubling from 64 to 8 times the "
        "length of training)",
    )
    parser.add_argument(
        "--depths",
        metavar="D,D",
        default="0,0.5,1",
        help="places of the fact in the context, from 0 to 1 (default: 0,0.5,1)",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=30,
        help="for each length, spread over the depths (default: 30)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the examples (default: 0)")
    return parser


if __name__ == "__main__":
    cli.main("evaluate", run, sys.argv[1:])
