"""Rows and sections of a leaderboard."""

import dataclasses
from typing import Any

from runners.leaderboard.judge import Judge
from tasks import Metric, Slice


@dataclasses.dataclass(frozen=True)
class LeaderboardRow:
    """One entry at its chosen hyperparameters.

    Attributes:
      label: the architecture, with the options that tell it apart from other rows.
      mixer: the architecture alone.
      d_model: width.
      num_layers: depth.
      parameters: number of trained parameters.
      state_bytes: recurrent state of one sequence at the longest length.
      tuned: the chosen values of the tuned hyperparameters, by name; empty if no trial of the entry
        survived.
      scores: (seed, test metric) of every surviving seed, by seed.
      ids: of the surviving trials, by seed.
      mean: of the scores; None if no trial survived.
      half_width: of the 95% interval of the mean; None for fewer than two seeds.
      validation: mean validation metric over the same seeds.
      metrics: means of every test metric on the whole test set and on its slices.
      half_widths: of the 95% intervals of `metrics`; empty for fewer than two seeds.
      done, diverged, failed: how the trials at the chosen hyperparameters ended; those of the whole
        entry if none survived.
      candidates: how many combinations of tuned hyperparameters were tried.
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
    tuned: dict[str, float]
    scores: tuple[tuple[int, float], ...]
    ids: tuple[str, ...]
    mean: float | None
    half_width: float | None
    validation: float | None
    metrics: dict[Slice, float]
    half_widths: dict[Slice, float]
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
      judge: the metrics and reference scores of the task.
      rows: best first, failures last.
    """

    setting: str
    task: dict[str, Any]
    judge: Judge
    rows: tuple[LeaderboardRow, ...]

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return self.judge.metric

    def slices(self, row: LeaderboardRow) -> dict[Slice, float]:
        """A row's scores on the slices of the test set."""
        return {
            piece: score
            for piece, score in row.metrics.items()
            if piece.metric == self.metric.name and piece.values
        }
