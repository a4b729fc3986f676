"""Training one population, from its start or an interruption to the records of its trials."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from runners.core import flops
from runners.core.errors import ConfigError
from runners.core.naming import model_name
from runners.core.progress import Reporter
from runners.core.signals import Interrupted, collected
from runners.training import weights
from runners.training.batches import Source
from runners.training.checkpoint import Checkpoints
from runners.training.epochs import MAX_STEPS_PER_DISPATCH
from runners.training.metrics_file import MetricsFile
from runners.training.program import Hyper, Program, TrainState, trial_sharding

DISPATCH_SECONDS = 1.0  # the host hears from the device about this often
DIVERGED_FACTOR = 10.0  # a training loss this many times that of the untrained model has diverged


@dataclasses.dataclass
class Progress:
    """The host's record of a population, stored beside the device state in every checkpoint.

    Attributes:
      step: steps done.
      seconds: wall time of training so far, without compilation.
      status: per trial "active", "solved" (stopped early) or "diverged".
      stopped: per trial the step at which it stopped being active.
      share: per trial its share of the wall time, in seconds; the active trials share equally.
      curve: learning curves: "step" and, per metric, a list over evaluations of lists over trials.
      compile_seconds: of the training program, when it was last compiled.
      peak_memory_bytes: device memory of that program, all trials together.
    """

    step: int
    seconds: float
    status: list[str]
    stopped: list[int]
    share: list[float]
    curve: dict[str, list[Any]]
    compile_seconds: float = 0.0
    peak_memory_bytes: int | None = None


class Population:
    """R trials with one shared configuration, on this host's devices.

    Args:
      trials: the resolved configurations, in a fixed order.
      ids: their ids.
      folder: `runs/<population>` of the work directory: checkpoints and metrics.jsonl.
      reporter: where progress is shown.
      checkpoint_seconds: wall time between two checkpoints.
      weights_of: the work directory that keeps the trained weights; None keeps none.
      stream: read stored training rows while training, even if they fit on the device.
    """

    def __init__(
        self,
        trials: Sequence[Mapping[str, Any]],
        ids: Sequence[str],
        folder: Path,
        reporter: Reporter,
        checkpoint_seconds: float,
        weights_of: Path | None = None,
        stream: bool = False,
    ):
        self.trials, self.ids, self.folder = trials, list(ids), folder
        self.reporter = reporter
        self.checkpoint_seconds, self.weights_of = checkpoint_seconds, weights_of
        self._stream = stream
        self._metrics_file = MetricsFile(folder, self.ids)
        self._sharding = trial_sharding(len(trials))
        self.program = Program(trials[0], self._sharding)
        self.interrupted_by: int | None = None

    def run(self) -> list[dict[str, Any]]:
        """Trains to the end; returns, per trial, the measured part of its record.

        Raises:
          Interrupted: after a checkpoint, when SIGINT or SIGTERM asked for an end.
          ConfigError: a damaged checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            collected(self.reporter) as self._signal,
            contextlib.closing(Checkpoints(self.folder / "checkpoints")) as self._checkpoints,
        ):
            state, progress = self._start()
            self._source = self._open(progress.step)
            self._metrics_file.write(progress.curve)
            total, done = self.program.total_steps, progress.step
            with self.reporter.work(self.name, total, done, "step", "compiling"):
                self._saved = time.monotonic()
                while not self._finished(progress):
                    if self._evaluation_due(progress):
                        state = self._validate(state, progress)
                    else:
                        state = self._dispatch(state, progress)
                    self._checkpoint_if_due(state, progress)
                test = self._measure(state, "test")
                if self.weights_of is not None:
                    weights.save(self.weights_of, self.ids, state.params, state.buffers)
            self.interrupted_by = self._signal[0] if self._signal else None
        return [self._record(r, progress, test) for r in range(len(self.trials))]

    @property
    def name(self) -> str:
        """A few words for a person."""
        model = self.trials[0]["model"]
        return f"{model_name(model)} d{model['d_model']} × {len(self.trials)} trials"

    def _hyper(self, progress: Progress) -> Hyper:
        # A trial that has stopped goes on with a learning rate of zero: its parameters keep their
        #   bits, the others theirs.
        rate = [
            t["optimizer"]["learning_rate"] if status == "active" else 0.0
            for t, status in zip(self.trials, progress.status, strict=True)
        ]
        hyper = Hyper(
            np.array([t["seed"] for t in self.trials], np.uint32),
            np.array(rate, np.float32),
            np.array([t["optimizer"]["weight_decay"] for t in self.trials], np.float32),
        )
        return jax.device_put(hyper, self._sharding)

    def _start(self) -> tuple[TrainState, Progress]:
        count = len(self.trials)
        progress = Progress(0, 0.0, ["active"] * count, [0] * count, [0.0] * count, {"step": []})
        self._device_hyper = self._hyper(progress)
        abstract = jax.eval_shape(self.program.initial, self._device_hyper.seed)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._sharding), abstract
        )
        restored = self._checkpoints.restore(abstract)
        if restored is None:
            return self.program.initial(self._device_hyper.seed), progress
        state, record = restored
        try:
            progress = Progress(**record)
        except TypeError as error:
            raise ConfigError(
                f"{self.folder / 'checkpoints'} is of another version of Seqbench: move it "
                "away and run again; training starts from the beginning"
            ) from error
        self._device_hyper = self._hyper(progress)
        self.reporter.line(f"  {self.name}: resumed at step {progress.step}")
        return state, progress

    def _open(self, step: int) -> Source:
        return Source(
            self.trials[0],
            self.program.task,
            np.array([t["seed"] for t in self.trials], np.uint32),
            self._sharding,
            start=step,
            total_steps=self.program.total_steps,
            stream=self._stream,
        )

    def _finished(self, progress: Progress) -> bool:
        over = progress.step >= self.program.total_steps or "active" not in progress.status
        return over and not self._evaluation_due(progress)

    def _evaluation_due(self, progress: Progress) -> bool:
        evaluated = progress.curve["step"]
        if evaluated and evaluated[-1] == progress.step:
            return False
        every = self.program.eval_every
        return progress.step % every == 0 or progress.step >= self.program.total_steps

    def _dispatch(self, state: TrainState, progress: Progress) -> TrainState:
        every, start = self.program.eval_every, progress.step
        rate = progress.seconds / start if start else math.inf
        wanted = int(DISPATCH_SECONDS / rate) if rate > 0 else MAX_STEPS_PER_DISPATCH
        boundary = min(self.program.total_steps, (start // every + 1) * every)
        stop = min(boundary, start + min(self._source.max_steps, max(1, wanted)))
        began = time.monotonic()
        rows = self._source.dispatch(stop - start)
        reading = time.monotonic() - began
        args = (state, self._device_hyper, rows, np.int32(start), np.int32(stop))
        args = (*args, *self.program.parts_of(start, stop))
        if isinstance(self.program.advance, jax.stages.Wrapped):
            self.program.advance = self._compile(self.program.advance.lower(*args), progress)
        began = time.monotonic()
        state = jax.block_until_ready(self.program.advance(*args))
        progress.seconds += (seconds := reading + time.monotonic() - began)
        progress.step = stop
        active = [r for r, status in enumerate(progress.status) if status == "active"]
        for r in active:
            progress.share[r] += seconds / len(active)
            progress.stopped[r] = stop
        losses = np.asarray(state.loss)[active] / (stop - start // every * every)
        self.reporter.update(stop, self._status(losses, progress))
        return state

    def _compile(self, lowered: jax.stages.Lowered, progress: Progress) -> Any:
        began = time.monotonic()
        compiled = lowered.compile()
        progress.compile_seconds = time.monotonic() - began
        progress.peak_memory_bytes = flops.peak_memory_bytes(compiled)
        return compiled

    def _measure(self, state: TrainState, split: str) -> dict[str, np.ndarray]:
        """Every metric [R] of a split: over all its parts, and per part where there are several."""
        parts = self.program.task.parts(split)
        results = jax.device_get(self.program.evaluate(state, self._source.kept, split))
        metrics = {}
        for name in results[0]:
            pieces = [r[name] for r in results]
            metrics[f"{split}/{name}"] = sum(pieces[1:], pieces[0]).value
            if len(parts) > 1:
                for part, piece in zip(parts, pieces, strict=True):
                    metrics[f"{split}/{name}/{part.name}"] = piece.value
        return {name: np.asarray(value) for name, value in metrics.items()}

    def _validate(self, state: TrainState, progress: Progress) -> TrainState:
        metrics = self._measure(state, "validation")
        curve, task = progress.curve, self.program.task
        since = progress.step - (curve["step"][-1] if curve["step"] else 0)
        metrics["train/loss"] = np.asarray(state.loss) / max(1, since)
        if not since:  # before the first step the loss is the untrained model's
            metrics["train/loss"] = metrics["validation/loss"]
        untrained = curve["train/loss"][0] if curve["step"] else metrics["train/loss"]
        stop_above = self.trials[0]["train"]["stop_above"]
        was_active = [status == "active" for status in progress.status]
        for r in np.flatnonzero(was_active):
            loss, score = metrics["train/loss"][r], metrics[f"validation/{task.metric.name}"][r]
            finite = math.isfinite(loss) and math.isfinite(metrics["validation/loss"][r])
            if not (finite and loss <= DIVERGED_FACTOR * untrained[r]):
                progress.status[r] = "diverged"
            elif stop_above is not None and score >= stop_above:
                progress.status[r] = "solved"
        curve["step"].append(progress.step)
        for name, values in metrics.items():
            row = [_number(v) if on else None for v, on in zip(values, was_active, strict=True)]
            curve.setdefault(name, []).append(row)
        self._metrics_file.append(curve)
        self._device_hyper = self._hyper(progress)
        zeros = jax.device_put(np.zeros(len(self.trials), np.float32), self._sharding)
        return dataclasses.replace(state, loss=zeros)

    def _status(self, losses: np.ndarray, progress: Progress) -> str:
        metric = self.program.task.metric.name
        rows = progress.curve.get(f"validation/{metric}", [])
        best = max((v for row in rows for v in row if v is not None), default=math.nan)
        solved, diverged = (progress.status.count(s) for s in ("solved", "diverged"))
        words = [f"loss {losses.min():.3f}", f"best {metric} {best:.3f}"]
        words += [f"{solved} solved"] * bool(solved) + [f"{diverged} diverged"] * bool(diverged)
        return ", ".join(words)

    def _checkpoint_if_due(self, state: TrainState, progress: Progress) -> None:
        signalled = bool(self._signal)
        if signalled or time.monotonic() - self._saved >= self.checkpoint_seconds:
            self._checkpoints.save(progress.step, state, dataclasses.asdict(progress))
            self._saved = time.monotonic()
        if signalled:
            raise Interrupted(self._signal[0])

    def _record(self, r: int, progress: Progress, test: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The measured part of trial r's record."""
        program, steps = self.program, progress.stopped[r]
        diverged = progress.status[r] == "diverged"
        curve = {
            k: [row if k == "step" else row[r] for row in v] for k, v in progress.curve.items()
        }
        kept = [
            i for i, loss in enumerate(curve["train/loss"]) if progress.curve["step"][i] <= steps
        ]
        curve = {k: [v[i] for i in kept] for k, v in curve.items()}
        metrics = {k: v[-1] for k, v in curve.items() if k.startswith("validation/")}
        metrics |= {k: _number(v[r]) for k, v in test.items()}
        return {
            "status": "diverged" if diverged else "done",
            "error": f"training loss diverged by step {steps}" if diverged else None,
            "metrics": metrics,
            "curve": curve,
            "parameters": program.num_parameters,
            "state_bytes": program.state_bytes,
            "flops_per_step": program.flops_per_step,
            "steps": steps,
            "population_size": len(self.trials),
            "examples_per_second": steps * program.batch_size / max(progress.share[r], 1e-9),
            "compile_seconds": progress.compile_seconds,
            "train_seconds": progress.share[r],
            "peak_memory_bytes": progress.peak_memory_bytes,
        }


def _number(value: Any) -> float | None:
    """A float that JSON can hold; None where it is not finite."""
    return float(value) if math.isfinite(value) else None
