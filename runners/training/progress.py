"""Progress of a population: what is done, what comes next, and how each trial stands.

A plain object of numbers: it knows nothing of devices and is stored in every checkpoint.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tasks

CALL_SECONDS = 1.0  # a call of the training program takes about this long
DIVERGED_FACTOR = 10.0  # a training loss this many times that of the untrained model has diverged


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps at which a population is evaluated, and conditions under which it ends.

    Attributes:
      total_steps: the step at which training ends.
      eval_every: steps between two evaluations.
      metric: the task's primary metric.
      stop_at: a trial ends early when its validation metric reaches this; None never.
    """

    total_steps: int
    eval_every: int
    metric: tasks.Metric
    stop_at: float | None = None


@dataclasses.dataclass
class Progress:
    """The host's record of a population.

    Attributes:
      schedule: not part of the stored record.
      step: steps done.
      seconds: wall time of training so far, without compilation.
      status: per trial "active", "solved" (stopped early) or "diverged".
      stopped: per trial the step at which it stopped being active.
      share: per trial its share of the wall time, in seconds; the active trials share equally.
      curve: learning curves: "step" and, per metric, a list over evaluations of lists over trials.
      compile_seconds: of the training program, when it was last compiled.
      peak_memory_bytes: device memory of that program, all trials together.
    """

    schedule: Schedule
    step: int
    seconds: float
    status: list[str]
    stopped: list[int]
    share: list[float]
    curve: dict[str, list[Any]]
    compile_seconds: float = 0.0
    peak_memory_bytes: int | None = None

    @classmethod
    def start(cls, schedule: Schedule, num_trials: int) -> "Progress":
        """No step done."""
        zeros = [0] * num_trials
        status = ["active"] * num_trials
        return cls(schedule, 0, 0.0, status, zeros, [0.0] * num_trials, {"step": []})

    @classmethod
    def restore(cls, schedule: Schedule, record: Mapping[str, Any]) -> "Progress":
        """The progress of a record; raises TypeError if it is of another version of Seqbench."""
        return cls(schedule, **record)

    def record(self) -> dict[str, Any]:
        """The progress as JSON can hold it."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "schedule"
        }

    @property
    def active(self) -> list[int]:
        """The trials that are still training."""
        return [r for r, status in enumerate(self.status) if status == "active"]

    @property
    def evaluation_due(self) -> bool:
        """Before the first step, every `eval_every` steps, and at the end."""
        evaluated = self.curve["step"]
        if evaluated and evaluated[-1] == self.step:
            return False
        is_last = self.step >= self.schedule.total_steps
        return self.step % self.schedule.eval_every == 0 or is_last

    @property
    def finished(self) -> bool:
        """All steps are done or no trial is active, and the last step is evaluated."""
        is_over = self.step >= self.schedule.total_steps or not self.active
        return is_over and not self.evaluation_due

    def next_stop(self, max_steps: int) -> int:
        """The step at which the next call ends: after about CALL_SECONDS, and to be evaluated."""
        every = self.schedule.eval_every
        rate = self.seconds / self.step if self.step else math.inf
        wanted = int(CALL_SECONDS / rate) if rate > 0 else max_steps
        boundary = min(self.schedule.total_steps, (self.step // every + 1) * every)
        return min(boundary, self.step + min(max_steps, max(1, wanted)))

    def advanced(self, stop: int, seconds: float) -> None:
        """Records that a call reached step `stop` in so many seconds."""
        self.step, self.seconds = stop, self.seconds + seconds
        active = self.active
        for r in active:
            self.share[r] += seconds / len(active)
            self.stopped[r] = stop

    def evaluated(self, metrics: Mapping[str, np.ndarray], loss_sums: np.ndarray) -> None:
        """Records an evaluation, and which trials diverged or are solved.

        Args:
          metrics: "validation/…" by name, each [R].
          loss_sums: sums of the training loss since the last evaluation, [R].
        """
        since = self.step - (self.curve["step"][-1] if self.curve["step"] else 0)
        # Before the first step the training loss is the untrained model's.
        train_loss = loss_sums / since if since else metrics["validation/loss"]
        metrics = {**metrics, "train/loss": train_loss}
        untrained = self.curve["train/loss"][0] if self.curve["step"] else train_loss
        active, stop_at = self.active, self.schedule.stop_at
        metric = self.schedule.metric
        for r in active:
            loss, score = train_loss[r], metrics[f"validation/{metric.name}"][r]
            finite = math.isfinite(loss) and math.isfinite(metrics["validation/loss"][r])
            if not (finite and loss <= DIVERGED_FACTOR * untrained[r]):
                self.status[r] = "diverged"
            elif stop_at is not None and metric.reached(score, stop_at):
                self.status[r] = "solved"
        self.curve["step"].append(self.step)
        for name, values in metrics.items():
            row = [_number(v) if r in active else None for r, v in enumerate(values)]
            self.curve.setdefault(name, []).append(row)

    def words(self, loss_sums: Sequence[float]) -> str:
        """State of training for a person: the least training loss, and the best score so far."""
        metric = self.schedule.metric
        since = self.step - self.curve["step"][-1]
        rows = self.curve[f"validation/{metric.name}"]
        scores = [score for row in rows for score in row if score is not None]
        best = metric.format(min(scores, key=metric.rank)) if scores else "–"
        loss = min(loss_sums[r] for r in self.active) / since
        counts = ((self.status.count(status), status) for status in ("solved", "diverged"))
        others = [f"{count} {status}" for count, status in counts if count]
        return ", ".join([f"loss {loss:.3f}", f"best {metric.name} {best}", *others])

    def curve_of(self, r: int) -> dict[str, list[Any]]:
        """The learning curves of trial r, up to the step at which it stopped being active."""
        curve = {k: [row if k == "step" else row[r] for row in v] for k, v in self.curve.items()}
        kept = [i for i, step in enumerate(curve["step"]) if step <= self.stopped[r]]
        return {name: [values[i] for i in kept] for name, values in curve.items()}

    def outcome(self, r: int, test: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """End of trial r: the fields of its record that are known without its program.

        test: "test/…" by name, each [R].
        """
        curve, steps = self.curve_of(r), self.stopped[r]
        diverged = self.status[r] == "diverged"
        metrics = {k: v[-1] for k, v in curve.items() if k.startswith("validation/")}
        return {
            "status": "diverged" if diverged else "done",
            "error": f"training loss diverged by step {steps}" if diverged else None,
            "metrics": metrics | {name: _number(values[r]) for name, values in test.items()},
            "curve": curve,
            "steps": steps,
            "population_size": len(self.status),
            "compile_seconds": self.compile_seconds,
            "train_seconds": self.share[r],
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def _number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if math.isfinite(value) else None
