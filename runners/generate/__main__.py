"""`python -m runners.generate`: text from a trained model, and its speed.

    python -m runners.sweep --config STUDY.py --keep_weights [--rerun]
    python -m runners.generate --workdir results/STUDY --prompt "def "
    python -m runners.generate --workdir results/STUDY --prompt - < FILE
    python -m runners.generate --workdir results/STUDY --benchmark

A text ends at the task's end-of-document token, at the stop text, or after `--num_tokens`. Its
draws depend on the seed and its number among the samples of its prompt, not on what else is asked
for. Texts are printed in order: the first as its tokens come, the others when those before are
complete.

`--benchmark` measures tokens a second of prefill, and of decoding at batch 1 and 32, against the
number of tokens before; the table, `generate.json` and a plot go to the study's folder. It needs no
text: any task whose model says tokens will do.

Exit codes: 0 done; 2 the request was wrong, or the folder cannot be written.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from rich.table import Table

import arch
import tasks
from arch.model.decoding import Sampling
from runners.benchmark import machine
from runners.core import cli, files, naming, provenance
from runners.core.errors import ConfigError
from runners.core.format import to_number
from runners.generate import plot, speed, trial
from runners.generate.stream import stream
from runners.generate.text import Text


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.benchmark:
        return _benchmark(options)
    if not options.prompt:
        raise ConfigError("expected --prompt TEXT, --prompt - for standard input, or --benchmark")
    for name in ("num_tokens", "batch"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least 1")
    if len(options.trial) > 1:
        raise ConfigError(f"--trial {' --trial '.join(options.trial)}: expected one for a text")
    try:
        sampling = Sampling(options.temperature, options.top_k, options.top_p)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    prompts = [_prompt(text) for text in options.prompt]
    record = trial.chosen(options.workdir, options.trial)[0]
    task, model = trial.load(options.workdir, record)
    trial.refuse_symbols(task, record, "encode")
    _generate(task, model, prompts, sampling, options)
    return 0


def _generate(
    task: tasks.Task,
    model: arch.Backbone,
    prompts: Sequence[bytes],
    sampling: Sampling,
    options: argparse.Namespace,
) -> None:
    """Prints the texts, as they come."""
    tokens = [task.encode(prompt) for prompt in prompts]
    texts = [Text(task, options.stop) for _ in prompts for _ in range(options.batch)]
    shown = _Shown(texts, prompts, options.batch)
    try:
        coming = stream(
            model,
            tokens,
            options.batch,
            options.num_tokens,
            sampling,
            options.seed,
            lambda row: texts[row].done,
        )
        for row, new in coming:
            texts[row].feed(new)
            shown.update()
    except ValueError as error:  # longer than the model can be
        raise ConfigError(str(error)) from error
    for text in texts:
        text.finish()
    shown.update()


class _Shown:
    """Prints texts in order: each from its beginning to its end."""

    def __init__(self, texts: Sequence[Text], prompts: Sequence[bytes], samples: int):
        self._texts, self._prompts, self._samples = texts, prompts, samples
        self._row = 0
        self._begin()

    def update(self) -> None:
        """Prints what can be printed now."""
        while self._row < len(self._texts):
            text = self._texts[self._row]
            sys.stdout.write(text.take())
            if not text.done:
                break
            sys.stdout.write("\n")
            self._row += 1
            self._begin()
        sys.stdout.flush()

    def _begin(self) -> None:
        """The prompt of a row, with its number if there are several."""
        if self._row == len(self._texts):
            return
        prompt, sample = divmod(self._row, self._samples)
        numbers = [f"prompt {prompt + 1}"] * (len(self._prompts) > 1)
        numbers += [f"sample {sample + 1}"] * (self._samples > 1)
        if numbers:
            sys.stdout.write(f"── {', '.join(numbers)}\n")
        sys.stdout.write(self._prompts[prompt].decode(errors="replace"))


def _prompt(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else text.encode(errors="surrogateescape")


def _benchmark(options: argparse.Namespace) -> int:
    """Measures the trials and shows, writes and draws their speed."""
    console = cli.console()
    contexts = cli.numbers("contexts", options.contexts, int, 1) or speed.CONTEXTS
    rows: list[speed.Speed] = []
    for record in trial.chosen(options.workdir, options.trial):
        _, model = trial.load(options.workdir, record)
        name = naming.model_name(record["config"]["model"])
        if name in {row.model for row in rows}:
            name = f"{name} {record['id']}"
        console.print(f"{name}, trial {record['id']}", soft_wrap=True, markup=False)
        rows += speed.measure(model, name, record["id"], contexts)
    console.print(_table(rows))
    for row in rows:
        if row.failure is not None:
            console.print(f"{row.model} at {row.context}: {row.failure}", soft_wrap=True)
    record = {
        "device": machine.name(),
        "provenance": provenance.provenance(),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    contents = {"generate.json": json.dumps(record, indent=1).encode()}
    if any(row.failure is None for row in rows):
        contents["plots/generate.png"] = plot.speeds(rows)
    for path, content in contents.items():
        files.replace(options.workdir / path, content)
        console.print(f"wrote {options.workdir / path}", soft_wrap=True, markup=False)
    return 0


def _table(rows: Sequence[speed.Speed]) -> Table:
    table = Table("model", box=None)
    headers = ["context", "prefill,\ntokens/s"]
    headers += [f"batch {b},\n{unit}" for b in speed.BATCHES for unit in ("tokens/s", "ms/token")]
    for header in headers:
        table.add_column(header, justify="right")
    for row in rows:
        cells = [f"{row.context:,}", "–" if row.prefill is None else f"{row.prefill:,.0f}"]
        for batch in speed.BATCHES:
            seconds = row.token_seconds.get(batch)
            cells += (
                ["–", "–"]
                if seconds is None
                else [f"{batch / seconds:,.0f}", to_number(1e3 * seconds)]
            )
        table.add_row(row.model, *cells)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m runners.generate",
        description="Text from a trained model, and its speed.",
        allow_abbrev=False,
    )
    trial.add_arguments(
        parser,
        "the best that has weights; for --benchmark, which alone takes several, one of each row of "
        "the leaderboard",
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="beginning of the text, - for standard input; may be repeated",
    )
    parser.add_argument("--num_tokens", type=int, default=256, help="at most (default: 256)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (default: 1)")
    parser.add_argument("--top_k", type=int, help="draw from the k likeliest tokens")
    parser.add_argument("--top_p", type=float, help="draw from those that have probability p")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--batch", type=int, default=1, help="samples of each prompt (default: 1)")
    parser.add_argument("--stop", metavar="TEXT", help="end before this text")
    parser.add_argument("--benchmark", action="store_true", help="measure speed, make no text")
    parser.add_argument(
        "--contexts",
        metavar="T,T",
        help=f"tokens before, for --benchmark (default: {','.join(map(str, speed.CONTEXTS))})",
    )
    return parser


if __name__ == "__main__":
    cli.main("generate", run, sys.argv[1:])
