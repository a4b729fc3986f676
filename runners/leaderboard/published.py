"""Numbers from papers: `results/published/*.json`, to be set beside measured ones.

One file holds one table of scores:

    title, description  what it is, and of which unit the scores are
    metric, scale       a task's primary metric × scale has that unit
    decimals            digits behind the point of what is computed here
    better              "higher" or "lower"
    missing             what null stands for: {"mark", "value"}, the value that averages count
    columns             by name: {"title", "task", "options"}, the latter a list: of the options by
                        which the task is the published one, any will do; a task that Seqbench
                        does not have is null, without options
    beside              optional, tasks whose studies show the table even if they measured none of
                        its columns
    averages            by name the columns that each is over, in the order of the page
    notes               sentences for the reader
    rows                {"name", "mixer", "source", "protocol", "scores"} each; the mixer is that of
                        this repository, or null; a column that the paper does not give is absent
                        from the scores. Where that leaves an average unknown, "printed" may hold it

A measured score stands beside them only where its task is the published one: the column's task with
such options, every other option at its default, of the version that the code has now.
"""

import dataclasses
import inspect
import json
import os
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import arch
import tasks
from runners.core.errors import ResultsError, nearest
from tasks import Metric

FOLDER = Path(__file__).parents[2] / "results" / "published"

_NUMBER = (int, Decimal)  # Decimal keeps the digits of a paper: 60.2 is not 60.20
_TEXT, _OBJECT, _LIST = (str,), (dict,), (list,)
_NULL = type(None)
_FIELDS = {
    "title": _TEXT,
    "description": _TEXT,
    "metric": _TEXT,
    "scale": _NUMBER,
    "decimals": (int,),
    "better": _TEXT,
    "missing": (dict, _NULL),
    "columns": _OBJECT,
    "beside": _LIST,
    "averages": _OBJECT,
    "notes": _LIST,
    "rows": _LIST,
}
_MISSING = {"mark": _TEXT, "value": _NUMBER}
_COLUMN = {"title": _TEXT, "task": (str, _NULL), "options": _LIST}
_ROW = {
    "name": _TEXT,
    "mixer": (str, _NULL),
    "source": _TEXT,
    "protocol": _TEXT,
    "scores": _OBJECT,
    "printed": _OBJECT,
}
_WORDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    Decimal: "a number",
    _NULL: "null",
}


@dataclasses.dataclass(frozen=True)
class PublishedColumn:
    """A task as published: with these options or those, all others at their defaults.

    Without a task (None) it is one that Seqbench does not have.
    """

    title: str
    task: str | None
    options: tuple[dict[str, Any], ...]

    def holds(self, task: Mapping[str, Any]) -> bool:
        """Returns True if the task of a trial's configuration is this one."""
        if self.task is None or task["name"] != self.task:
            return False
        try:
            cls = tasks.get(self.task)
        except ValueError:  # no longer here: its defaults are unknown
            return False
        defaults = {
            p.name: p.default
            for p in inspect.signature(cls).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }
        published = [_as_recorded(defaults | options) for options in self.options]
        return (
            task.get("version") == cls.version
            and _as_recorded(defaults | task["options"]) in published
        )


def _as_recorded(options: Mapping[str, Any]) -> Any:
    """Options as a trial file has them: lists for tuples, numbers as JSON reads them."""
    return json.loads(json.dumps(options, default=dict))  # dict: of a mapping that is read-only


@dataclasses.dataclass(frozen=True)
class _PublishedRow:
    """The scores that a paper reports of one model.

    Attributes:
      name: of the model, as the paper has it.
      mixer: the architecture's name here, None where Seqbench does not have it.
      source: paper and arXiv id.
      protocol: how it was trained, and what sets it apart.
      scores: by column; None stands for `PublishedTable.mark`; absent where the paper does not say.
      printed: averages as printed, where the scores behind them are not given.
    """

    name: str
    mixer: str | None
    source: str
    protocol: str
    scores: dict[str, Decimal | None]
    printed: dict[str, Decimal]


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """A table from papers: the fields of its file.

    `metric` has the file's decimals and direction; `mark` and `value` stand for "missing".
    """

    title: str
    description: str
    metric: Metric
    scale: Decimal
    mark: str
    value: Decimal | None
    columns: dict[str, PublishedColumn]
    beside: tuple[str, ...]
    averages: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    rows: tuple[_PublishedRow, ...]

    def average(self, row: _PublishedRow, name: str) -> Decimal | None:
        """The mean over the average's columns to the metric's digits, halves away from zero.

        Where the row lacks a column: as printed, or None.
        """
        columns = self.averages[name]
        if not all(column in row.scores for column in columns):
            return row.printed.get(name)
        values = [row.scores[column] for column in columns]
        total = sum((self.value if v is None else v for v in values), Decimal(0))
        return (total / len(columns)).quantize(
            Decimal(1).scaleb(-self.metric.digits), ROUND_HALF_UP
        )


def read_all(folder: Path | None = None) -> tuple[PublishedTable, ...]:
    """Every table of a folder, `results/published/` unless told, by the names of the files.

    Raises:
      ResultsError: a file is not what the schema says.
    """
    return tuple(_read(path) for path in sorted((folder or FOLDER).glob("*.json")))


def _read(path: Path) -> PublishedTable:
    """One table.

    Raises:
      ResultsError: the file is not what the schema says; the message is one line.
    """
    try:
        return _published(json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal))
    except OSError as error:
        raise ResultsError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or not the schema
        flaw = " ".join(str(error).split())
        raise ResultsError(
            f"{os.fspath(path)}: {flaw}; correct it as the docstring of "
            "runners/leaderboard/published.py says"
        ) from error


def _published(data: Any) -> PublishedTable:
    data = _object("the file", {"beside": [], **data} if isinstance(data, dict) else data, _FIELDS)
    if data["better"] not in ("higher", "lower"):
        raise ValueError(f"better is {data['better']!r}, expected 'higher' or 'lower'")
    if data["scale"] <= 0:
        raise ValueError(f"scale is {data['scale']}, expected a number above 0")
    if data["decimals"] < 0:
        raise ValueError(f"decimals is {data['decimals']}, expected a number of at least 0")
    missing = data["missing"]
    if missing is not None:
        _object("missing", missing, _MISSING)
    columns = {name: _column(f"columns.{name}", value) for name, value in data["columns"].items()}
    averages = {}
    for name, members in data["averages"].items():
        if not isinstance(members, list) or not members:
            raise ValueError(f"averages.{name} is {members!r}, expected a list of columns")
        for i, member in enumerate(members):
            _check(f"averages.{name}[{i}]", member, _TEXT)
        _known(f"averages.{name}", members, columns)
        averages[name] = tuple(members)
    for field in ("beside", "notes"):
        for i, text in enumerate(data[field]):
            _check(f"{field}[{i}]", text, _TEXT)
    return PublishedTable(
        title=data["title"],
        description=data["description"],
        metric=Metric(data["metric"], data["better"] == "higher", digits=data["decimals"]),
        scale=Decimal(data["scale"]),
        mark=missing["mark"] if missing else "",
        value=Decimal(missing["value"]) if missing else None,
        columns=columns,
        beside=tuple(data["beside"]),
        averages=averages,
        notes=tuple(data["notes"]),
        rows=tuple(
            _row(f"rows[{i}]", value, columns, averages, missing is not None)
            for i, value in enumerate(data["rows"])
        ),
    )


def _column(where: str, value: Any) -> PublishedColumn:
    data = _object(where, value, _COLUMN)
    if data["task"] is None and data["options"]:
        raise ValueError(f"{where}.options are of no task, expected [] where task is null")
    if data["task"] is not None and not data["options"]:
        raise ValueError(f"{where}.options is empty, expected at least one object, such as {{}}")
    for i, options in enumerate(data["options"]):
        _check(f"{where}.options[{i}]", options, _OBJECT)
    # Floats, as records have them: only a paper's numbers keep their digits.
    options = json.loads(json.dumps(data["options"], default=float))
    return PublishedColumn(data["title"], data["task"], tuple(options))


def _row(where: str, value: Any, columns: Any, averages: Any, may_miss: bool) -> _PublishedRow:
    data = _object(where, {"printed": {}, **value} if isinstance(value, dict) else value, _ROW)
    where = f"{where} ({data['name']})"
    if data["mixer"] is not None:
        arch.get(data["mixer"])  # raises ValueError with the nearest name
    numbers = {}
    for field, known in (("scores", columns), ("printed", averages)):
        _known(f"{where}: {field}", data[field], known)
        types = (*_NUMBER, _NULL) if field == "scores" and may_miss else _NUMBER
        for name, number in data[field].items():
            _check(f"{where}: {field}.{name}", number, types)
        numbers[field] = {n: None if v is None else Decimal(v) for n, v in data[field].items()}
    for name in numbers["printed"]:
        if numbers["scores"].keys() >= set(averages[name]):
            raise ValueError(
                f"{where}: printed.{name} can be computed from the scores, expected it only where "
                "they are not given"
            )
    return _PublishedRow(**{**data, **numbers})


def _object(where: str, value: Any, fields: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The value, if it is an object of exactly these fields."""
    _check(where, value, _OBJECT)
    _known(where, value, fields)
    for field, types in fields.items():
        if field not in value:
            raise ValueError(f"{where} lacks the field {field!r}")
        _check(field if where == "the file" else f"{where}.{field}", value[field], types)
    return value


def _known(where: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names {name!r}: {nearest(str(name), known)}")


def _check(where: str, value: Any, types: tuple[type, ...]) -> None:
    if not isinstance(value, types) or isinstance(value, bool):
        words = " or ".join(dict.fromkeys(_WORDS[t] for t in types))
        raise ValueError(f"{where} is {str(value)[:40]!r}, expected {words}")
