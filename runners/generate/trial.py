"""The trials whose models are asked for."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import arch
import tasks
from runners.core import naming, store
from runners.core.errors import ConfigError, ResultsError, nearest
from runners.core.store import Record
from runners.leaderboard.selection import representatives
from runners.training import weights


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Gives a parser --workdir and --trial; `default` are the trials taken without the latter."""
    parser.add_argument("--workdir", type=Path, required=True, help="a study, with its weights")
    parser.add_argument(
        "--trial",
        action="append",
        default=[],
        metavar="ID",
        help=f"a trial's id or its beginning (default: {default}); may be repeated",
    )


def chosen(workdir: Path, prefixes: Sequence[str]) -> list[Record]:
    """The trials with these ids or beginnings of ids; without any, `best`.

    Raises:
      ResultsError: as `find` and `best`.
    """
    return [find(workdir, prefix) for prefix in prefixes] if prefixes else best(workdir)


def load(workdir: Path, record: Record) -> tuple[tasks.Task, arch.Backbone]:
    """The task and the model of a trial, if it can decode.

    Raises:
      ConfigError: it cannot.
      ResultsError: it has no weights.
    """
    task, model = weights.load(workdir, record)
    name = record["config"]["task"]["name"]
    if task.head != "token":
        raise ConfigError(
            f"trial {record['id']} of task {name!r} says a {task.head}, expected a trial whose "
            "model says tokens"
        )
    if not model.causal:
        raise ConfigError(
            f"trial {record['id']} has a model that sees the future "
            f"({naming.model_name(record['config']['model'])}), expected a causal one"
        )
    return task, model


def refuse_symbols(task: tasks.Task, record: Record, *methods: str) -> None:
    """Raises ConfigError if the task of a trial is not over text, and so lacks these methods."""
    if any(getattr(type(task), name) is getattr(tasks.Task, name) for name in methods):
        raise ConfigError(
            f"trial {record['id']}: the task {type(task).__name__} has no text, only symbols: "
            "expected a trial of a task over text"
        )


def find(workdir: Path, prefix: str) -> Record:
    """The trial of a workdir with this id, or with an id that begins so.

    Raises:
      ResultsError: there is none, or more than one.
    """
    records = {record["id"]: record for record in store.read_all(workdir)}
    if prefix in records:
        return records[prefix]
    found = [trial for trial in records if prefix and trial.startswith(prefix)]
    if len(found) == 1:
        return records[found[0]]
    if found:
        shown = ", ".join(found[:5]) + ", …" * (len(found) > 5)
        raise ResultsError(
            f"--trial {prefix!r} begins the ids of {len(found)} trials: {shown}; give more digits"
        )
    if not records:
        raise ResultsError(f"no trials in {str(workdir)!r}: name a study's folder with --workdir")
    hint = nearest(prefix, records) if len(records) <= 20 else f"{len(records)} others are there"
    raise ResultsError(f"--trial {prefix!r}: no such trial in {str(workdir)!r}; {hint}")


def best(workdir: Path) -> list[Record]:
    """One trial with weights of each row of the leaderboard, best first; at least one.

    Raises:
      ResultsError: there is none.
    """
    records = store.read_all(workdir)
    done = (record["id"] for record in records if record["status"] == "done")
    found = representatives(records, weights.kept(workdir, done))
    if not found:
        raise ResultsError(
            f"no trial with weights in {str(workdir)!r} has a score: name one with --trial"
        )
    return [record for _, record in found]
