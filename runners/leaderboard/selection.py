"""From trial records to table rows: hyperparameters chosen on validation, reported on test,
failures kept.

An *entry* is all trials that differ only in seed and tuned hyperparameters. Every entry becomes one
row.
"""

import collections
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from scipy import special

import arch
from runners.core import hyperparameters, naming
from runners.core.errors import ResultsError
from runners.core.identity import population_key
from runners.core.store import Record
from runners.leaderboard.judge import judge
from runners.leaderboard.rows import LeaderboardRow, Section
from tasks import Metric, Slice
from tasks.metrics import LOSS


def select(
    records: Iterable[Record], references: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Section, ...]:
    """Groups records into entries, chooses their hyperparameters, and sorts the rows by task.

    references: scores that the study keeps beside its trials, as `references.read` has them.
    """
    entries: dict[str, list[Record]] = collections.defaultdict(list)
    for record in sorted(records, key=lambda r: r["id"]):
        entries[population_key(record["config"])].append(record)
    names = naming.of_architectures([entry[0]["config"] for entry in entries.values()])
    by_task: dict[str, list[tuple[str, list[Record]]]] = collections.defaultdict(list)
    for key, entry in sorted(entries.items()):
        config = entry[0]["config"]
        label = names[key] + _other_versions(config)
        by_task[naming.to_json(config["task"])].append((label, entry))

    task_configs = [members[0][1][0]["config"]["task"] for members in by_task.values()]
    sections = []
    for task, (place, setting), members in zip(
        task_configs, naming.of_tasks(task_configs), by_task.values(), strict=True
    ):
        judged = judge(task, references)
        rows = sorted(
            (_row(entry, judged.metric, name) for name, entry in members),
            key=lambda row: (judged.metric.rank(row.mean), row.label, row.d_model),
        )
        sections.append((place, Section(setting, task, judged, tuple(rows))))
    return tuple(section for _, section in sorted(sections, key=lambda pair: pair[0]))


def representatives(records: Sequence[Record], kept: Collection[str]) -> list[tuple[str, Record]]:
    """For each row its label and one trial among those `kept`, by id: that of the smallest seed.

    Best first; rows of which no trial is kept are left out.
    """
    by_id = {record["id"]: record for record in records}
    found = []
    for row in (row for section in select(records) for row in section.rows):
        own = [i for i in row.ids if i in kept]
        found += [(row.label, by_id[own[0]])] if own else []
    return found


def _other_versions(config: dict[str, Any]) -> str:
    """The end of a row's name if its mixers are not what they are now: " (mom version 1)".

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


def gap_half_width(first: tuple[float, int], second: tuple[float, int]) -> float:
    """Half the 95% interval of the difference of two means (Welch 1947), of unequal variances.

    first, second: half-width of the mean, and the number of values behind it, at least 2 each.
    """
    squares = [(width / special.stdtrit(n - 1, 0.975)) ** 2 for width, n in (first, second)]
    total = sum(squares)
    if not total:
        return 0.0
    degrees = total**2 / sum(
        square**2 / (n - 1) for square, (_, n) in zip(squares, (first, second), strict=True)
    )
    return float(special.stdtrit(degrees, 0.975)) * math.sqrt(total)


def _row(entry: list[Record], metric: Metric, label: str) -> LeaderboardRow:
    config = entry[0]["config"]
    candidates: dict[tuple[float, ...], list[Record]] = collections.defaultdict(list)
    for record in entry:
        candidates[tuple(h.of(record["config"]) for h in hyperparameters.TUNED)].append(record)
    values, chosen = min(candidates.items(), key=lambda item: _preference(item[1], metric, item[0]))
    tuned = {h.name: value for h, value in zip(hyperparameters.TUNED, values, strict=True)}
    survivors = sorted(
        (r for r in chosen if _survived(r, metric)), key=lambda r: r["config"]["seed"]
    )
    if not survivors:
        tuned, chosen = {}, entry
    scores = [r["metrics"][f"test/{metric.name}"] for r in survivors]
    status = collections.Counter(final_status(r, metric) for r in chosen)
    sources, measured = survivors or entry, _test_metrics(survivors)
    return LeaderboardRow(
        label=label,
        mixer=naming.model_name(config["model"]),
        d_model=config["model"]["d_model"],
        num_layers=config["model"]["num_layers"],
        parameters=_first(sources, "parameters"),
        state_bytes=_first(sources, "state_bytes"),
        tuned=tuned,
        scores=tuple((r["config"]["seed"], s) for r, s in zip(survivors, scores, strict=True)),
        ids=tuple(r["id"] for r in survivors),
        mean=mean(scores) if scores else None,
        half_width=half_width(scores),
        validation=_mean_metric(survivors, f"validation/{metric.name}"),
        metrics={piece: mean(values) for piece, values in measured.items()},
        half_widths={
            piece: width
            for piece, values in measured.items()
            if (width := half_width(values)) is not None
        },
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


def _preference(records: list[Record], metric: Metric, values: tuple[float, ...]) -> tuple:
    """Smaller is better: fewer trials lost, then validation metric, then validation loss.

    What counts is what was lost, not what is left: where a sweep is unfinished or one combination
    of hyperparameters has more seeds, a poor one with many of them must not win. One of which
    nothing is left comes last.
    """
    survivors = [r for r in records if _survived(r, metric)]
    score = _mean_metric(survivors, f"validation/{metric.name}")
    loss = _mean_metric(survivors, f"validation/{LOSS.name}")
    return (
        not survivors,
        len(records) - len(survivors),
        metric.rank(score),
        LOSS.rank(loss),
        values,  # only so that the choice is the same on every machine
    )


def final_status(record: Record, metric: Metric) -> str:
    """The status of a trial in tables; one that ended with a score of NaN counts as diverged."""
    lost = record["status"] == "done" and not _survived(record, metric)
    return "diverged" if lost else record["status"]


def _survived(record: Record, metric: Metric) -> bool:
    """Returns True if a trial is done and has a score that is a number."""
    if record["status"] != "done":
        return False
    values = []
    for name in (f"validation/{metric.name}", f"test/{metric.name}"):
        if name not in record["metrics"]:
            raise ResultsError(
                f"trial {record['id']} is done but has no metric {name!r}, the one its task "
                f"{record['config']['task']['name']!r} is judged by; move its file away "
                "and run again"
            )
        values.append(record["metrics"][name])
    return None not in values


def _first(records: list[Record], field: str) -> Any:
    return next((r[field] for r in records if r[field] is not None), None)


def _mean_field(records: list[Record], field: str) -> float | None:
    values = [r[field] for r in records if r[field] is not None]
    return mean(values) if values else None


def _test_metrics(records: list[Record]) -> dict[Slice, list[float]]:
    """The values of all metrics and slices of the test set that every record has."""
    names = sorted({k for r in records for k in r["metrics"] if k.startswith("test/")})
    found = {name: [r["metrics"].get(name) for r in records] for name in names}
    return {
        Slice.parse(name.removeprefix("test/")): values
        for name, values in found.items()
        if None not in values
    }


def _mean_metric(records: list[Record], name: str) -> float | None:
    """The mean over the records; None if one lacks the metric, for such means do not compare."""
    values = [r["metrics"].get(name) for r in records]
    return None if not values or None in values else mean(values)
