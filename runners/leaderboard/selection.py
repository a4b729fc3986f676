"""From trial records to table rows: hyperparameters chosen on validation, reported on test,
failures kept.

An *entry* is all trials that differ only in seed, learning rate and weight decay. Every entry
becomes one row.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging
from scipy import special

import arch
import tasks
from runners.core import naming
from runners.core.errors import ResultsError
from runners.core.identity import population_key
from runners.core.store import Record


@dataclasses.dataclass(frozen=True)
class Row:
    """One entry at its chosen hyperparameters.

    Attributes:
      label: the architecture, with the options that tell it apart from other rows.
      mixer: the architecture alone.
      d_model: width.
      num_layers: depth.
      parameters: number of trained parameters.
      state_bytes: recurrent state of one sequence at the longest length.
      learning_rate: the chosen one; None if no trial of the entry survived.
      weight_decay: likewise.
      scores: (seed, test metric) of every surviving seed, by seed.
      ids: of the surviving trials, by seed.
      mean: of the scores; None if no trial survived.
      half_width: of the 95% interval of the mean; None for fewer than two seeds.
      validation: mean validation metric over the same seeds.
      slices: mean test metric of each slice.
      metrics: means of every test metric, slices included, such as "tv" or "tv/words=3".
      done, diverged, failed: how the trials at the chosen hyperparameters ended; those of the whole
        entry if none survived.
      candidates: how many pairs of learning rate and weight decay were tried.
      error: the first error message of the entry's failed trials.
      steps, train_seconds, examples_per_second: means over the surviving seeds.
      curves: learning curves of the surviving seeds, by seed.
      commits: of the code, "unknown" where no git was there; with "+" where it had uncommitted
        changes.
      devices: kinds of device.
    """

    label: str
    mixer: str
    d_model: int
    num_layers: int
    parameters: int | None
    state_bytes: int | None
    learning_rate: float | None
    weight_decay: float | None
    scores: tuple[tuple[int, float], ...]
    ids: tuple[str, ...]
    mean: float | None
    half_width: float | None
    validation: float | None
    slices: dict[str, float]
    metrics: dict[str, float]
    done: int
    diverged: int
    failed: int
    candidates: int
    error: str | None
    steps: float | None
    train_seconds: float | None
    examples_per_second: float | None
    curves: tuple[dict[str, list], ...]
    commits: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def trials(self) -> int:
        """Seeds at the chosen hyperparameters, whatever became of them."""
        return self.done + self.diverged + self.failed


@dataclasses.dataclass(frozen=True)
class Section:
    """The rows that were measured on the same task and may be compared.

    Attributes:
      setting: the task's name and options, as far as they tell it apart from the study's other
        sections; empty if there is one section.
      task: the task's configuration.
      metric: its primary metric.
      rows: best first, failures last.
      anchors: scores of the trivial and the best possible predictors, by name.
      anchor_metrics: what else the task knows of them, as `Row.metrics`.
    """

    setting: str
    task: dict[str, Any]
    metric: str
    rows: tuple[Row, ...]
    anchors: dict[str, float]
    anchor_metrics: dict[str, dict[str, float]]


def select(records: Iterable[Record]) -> tuple[Section, ...]:
    """Groups records into entries, chooses their hyperparameters, and sorts the rows by task."""
    entries: dict[str, list[Record]] = collections.defaultdict(list)
    for record in sorted(records, key=lambda r: r["id"]):
        entries[population_key(record["config"])].append(record)
    names = naming.of_architectures([entry[0]["config"] for entry in entries.values()])
    by_task: dict[str, list[tuple[str, list[Record]]]] = collections.defaultdict(list)
    for key, entry in sorted(entries.items()):
        config = entry[0]["config"]
        label = names[key] + other_versions(config)
        by_task[naming.to_json(config["task"])].append((label, entry))

    task_configs = [members[0][1][0]["config"]["task"] for members in by_task.values()]
    sections = []
    for task, (place, setting), members in zip(
        task_configs, naming.of_tasks(task_configs), by_task.values(), strict=True
    ):
        metric, *anchors = _judge(task)
        rows = sorted((_row(entry, metric, name) for name, entry in members), key=_rank)
        sections.append((place, Section(setting, task, metric, tuple(rows), *anchors)))
    return tuple(section for _, section in sorted(sections, key=lambda pair: pair[0]))


def other_versions(config: dict[str, Any]) -> str:
    """What a row's name ends with if its mixers are not what they are now: " (mom version 1)".

    A mixer from outside that is not installed here may be anything, and is named too.
    """
    named = []
    for name, version in config["model"].get("version", {}).items():
        try:
            current = arch.get(name).version
        except ValueError:
            current = None
        if version != current:
            named.append(f"{name} version {version}")
    return f" ({', '.join(named)})" if named else ""


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, the same for every order of the values."""
    return math.fsum(values) / len(values)


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95% interval of the mean, t_{0.975, n−1} s / √n (Student); None for n < 2."""
    n = len(values)
    if n < 2:
        return None
    center = mean(values)
    variance = math.fsum((v - center) ** 2 for v in values) / (n - 1)
    return float(special.stdtrit(n - 1, 0.975)) * math.sqrt(variance / n)


def _row(entry: list[Record], metric: str, label: str) -> Row:
    config = entry[0]["config"]
    candidates: dict[tuple[float, float], list[Record]] = collections.defaultdict(list)
    for record in entry:
        optimizer = record["config"]["optimizer"]
        candidates[optimizer["learning_rate"], optimizer["weight_decay"]].append(record)
    (learning_rate, weight_decay), chosen = min(
        candidates.items(), key=lambda item: _preference(item[1], metric, item[0])
    )
    survivors = sorted(
        (r for r in chosen if _survived(r, metric)), key=lambda r: r["config"]["seed"]
    )
    if not survivors:
        learning_rate, weight_decay, chosen = None, None, entry
    test = f"test/{metric}"
    scores = [r["metrics"][test] for r in survivors]
    names = sorted({k for r in survivors for k in r["metrics"] if k.startswith("test/")})
    known = {
        name.removeprefix("test/"): value
        for name in names
        if (value := _mean_metric(survivors, name)) is not None
    }
    status = collections.Counter(
        "diverged" if r["status"] == "done" and not _survived(r, metric) else r["status"]
        for r in chosen
    )
    sources = survivors or entry
    return Row(
        label=label,
        mixer=naming.model_name(config["model"]),
        d_model=config["model"]["d_model"],
        num_layers=config["model"]["num_layers"],
        parameters=_first(sources, "parameters"),
        state_bytes=_first(sources, "state_bytes"),
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        scores=tuple((r["config"]["seed"], s) for r, s in zip(survivors, scores, strict=True)),
        ids=tuple(r["id"] for r in survivors),
        mean=mean(scores) if scores else None,
        half_width=half_width(scores),
        validation=_mean_metric(survivors, f"validation/{metric}"),
        slices={
            name.removeprefix(f"{metric}/"): value
            for name, value in known.items()
            if name.startswith(f"{metric}/")
        },
        metrics=known,
        done=status["done"],
        diverged=status["diverged"],
        failed=status["failed"],
        candidates=len(candidates),
        error=next((r["error"] for r in entry if r["status"] == "failed" and r["error"]), None),
        steps=_mean_field(survivors, "steps"),
        train_seconds=_mean_field(survivors, "train_seconds"),
        examples_per_second=_mean_field(survivors, "examples_per_second"),
        curves=tuple(r["curve"] for r in survivors),
        commits=tuple(sorted({_commit(r) for r in sources})),
        devices=tuple(sorted({str(r["provenance"].get("device_kind")) for r in sources})),
    )


def _commit(record: Record) -> str:
    """Ten digits of the commit behind a record, and "+" for uncommitted changes; or "unknown"."""
    source = record["provenance"]
    return f"{source.get('git_commit') or 'unknown'}"[:10] + "+" * bool(source.get("git_dirty"))


def _preference(records: list[Record], metric: str, hyperparameters: tuple) -> tuple:
    """Smaller is better: fewer trials lost, then validation metric, then validation loss.

    What counts is what was lost, not what is left: where a sweep is unfinished or one pair has more
    seeds, a poor pair with many of them must not win. A pair of which nothing is left comes last.
    """
    survivors = [r for r in records if _survived(r, metric)]
    score = _mean_metric(survivors, f"validation/{metric}")
    loss = _mean_metric(survivors, "validation/loss")
    return (
        not survivors,
        len(records) - len(survivors),
        math.inf if score is None else -score,
        math.inf if loss is None else loss,
        hyperparameters,  # only so that the choice is the same on every machine
    )


def _survived(record: Record, metric: str) -> bool:
    """Whether a trial has a score; one that ended with a metric of NaN counts as diverged."""
    if record["status"] != "done":
        return False
    values = []
    for name in (f"validation/{metric}", f"test/{metric}"):
        if name not in record["metrics"]:
            raise ResultsError(
                f"trial {record['id']} is done but has no metric {name!r}, the one its task "
                f"{record['config']['task']['name']!r} is judged by; move its file away "
                "and run again"
            )
        values.append(record["metrics"][name])
    return None not in values


def _judge(task: dict[str, Any]) -> tuple[str, dict[str, float], dict[str, dict[str, float]]]:
    """The task's primary metric and anchors; no anchors if it can no longer be built."""
    metric = tasks.Task.metric
    try:
        metric = tasks.get(task["name"]).metric
        built = tasks.build(task["name"], **task.get("options", {}))
        return metric, dict(built.anchors()), built.anchor_metrics()
    except (TypeError, ValueError, tasks.DataMissingError) as error:
        logging.warning("no anchors for task %r: %s", task["name"], error)
        return metric, {}, {}


def _rank(row: Row) -> tuple:
    return (row.mean is None, -(row.mean or 0.0), row.label, row.d_model)


def _first(records: list[Record], field: str) -> Any:
    return next((r[field] for r in records if r[field] is not None), None)


def _mean_field(records: list[Record], field: str) -> float | None:
    values = [r[field] for r in records if r[field] is not None]
    return mean(values) if values else None


def _mean_metric(records: list[Record], name: str) -> float | None:
    """The mean over the records; None if one lacks the metric, for such means do not compare."""
    values = [r["metrics"].get(name) for r in records]
    return None if not values or None in values else mean(values)
