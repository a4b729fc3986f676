"""Judges: the metrics of a task, and the scores of reference predictors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import logging

import tasks
from runners.core import naming
from tasks import Metric, Slice


@dataclasses.dataclass(frozen=True)
class Judge:
    """The measures of a task: its metrics, and the reference scores that rows are compared with.

    Attributes:
      metric: the primary one.
      secondary: others that have a direction or a unit.
      reference_scores: scores of the trivial and the best possible predictors, by name.
      reference_notes: a phrase about each of them, by name.
      reference_metrics: their other metrics and slices, by name, as `LeaderboardRow.metrics`.
      slice_notes: a phrase about slices that are words, by their properties.
      knows_optimum: the best of the reference scores may be the best possible score.
    """

    metric: Metric
    secondary: tuple[Metric, ...] = ()
    reference_scores: dict[str, float] = dataclasses.field(default_factory=dict)
    reference_notes: dict[str, str] = dataclasses.field(default_factory=dict)
    reference_metrics: dict[str, dict[Slice, float]] = dataclasses.field(default_factory=dict)
    slice_notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    knows_optimum: bool = True

    def axis(self, name: str) -> str:
        """The label of a metric of this name: with unit and direction where they are known."""
        known = {metric.name: metric for metric in (self.metric, *self.secondary)}
        return known[name].axis if name in known else name


def judge(task: Mapping[str, Any], kept: Mapping[str, Mapping[str, Any]] | None = None) -> Judge:
    """The judge of a task's configuration; without reference scores if it can not be built now.

    kept: reference scores that were kept beside the trials, as `references.read` has them.
    """
    found = Judge(tasks.Task.metric)
    try:
        cls = tasks.get(task["name"])
        found = Judge(
            cls.metric,
            cls.secondary_metrics,
            slice_notes=cls.slice_notes,
            knows_optimum=cls.knows_optimum,
        )
        own = (kept or {}).get(naming.to_json(task))
        if own is None:
            built = tasks.build(task["name"], **task.get("options", {}))
            own = {
                "scores": built.reference_scores(),
                "notes": built.reference_notes(),
                "metrics": built.reference_metrics(),
            }
        return dataclasses.replace(
            found,
            reference_scores=dict(own["scores"]),
            reference_notes=dict(own["notes"]),
            reference_metrics={
                name: {Slice.parse(piece): value for piece, value in metrics.items()}
                for name, metrics in own["metrics"].items()
            },
        )
    except (TypeError, ValueError, tasks.DataMissingError) as error:
        logging.warning("no reference scores for task %r: %s", task["name"], error)
        return found
