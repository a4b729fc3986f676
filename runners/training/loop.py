"""The training loop: one population, from its start or an interruption to its trials' records."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from runners.core.errors import ConfigError
from runners.core.naming import model_name
from runners.core.reporter import Reporter
from runners.core.run_options import RunOptions
from runners.core.signals import Interrupted, collected
from runners.training import weights
from runners.training.batches import Batches
from runners.training.checkpoint import Checkpoints
from runners.training.hyper import Hyper, stack
from runners.training.mesh import trial_sharding
from runners.training.metrics_file import MetricsFile
from runners.training.program import CompiledSteps, TrainProgram, TrainState
from runners.training.progress import Progress, Schedule


@dataclasses.dataclass(frozen=True)
class Outcome:
    """End of a population.

    Attributes:
      records: per trial the measured part of its record.
      interrupted_by: the signal that came after the last checkpoint, if one did.
    """

    records: list[dict[str, Any]]
    interrupted_by: int | None = None


def train(
    trials: Mapping[str, Mapping[str, Any]],
    workdir: Path,
    folder: Path,
    reporter: Reporter,
    options: RunOptions,
) -> Outcome:
    """Trains R trials with one shared configuration on this host's devices, to the end.

    Args:
      trials: resolved configurations by trial id, in a fixed order.
      workdir: of the study; keeps the trained weights, where they are asked for.
      folder: of the population, `<workdir>/runs/<name>`: checkpoints and metrics.jsonl.
      reporter: shows the progress.
      options: of the run.

    Raises:
      Interrupted: after a checkpoint, when SIGINT or SIGTERM asked for an end.
      ConfigError: a damaged checkpoint.
    """
    configs, ids, name = list(trials.values()), list(trials), _name(list(trials.values()))
    sharding = trial_sharding(len(configs))
    program = TrainProgram(
        configs[0], sharding, stream=options.stream, accumulate=options.accumulate
    )
    folder.mkdir(parents=True, exist_ok=True)
    metrics_file = MetricsFile(folder, ids)
    with (
        collected(reporter) as signals,
        contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints,
    ):
        # Start, or restore the newest checkpoint.
        state, progress = _start(configs, program, sharding, checkpoints)
        if progress.step:
            reporter.line(f"  {name}: resumed at step {progress.step}")
        hyper = _hyper(configs, progress, sharding)
        seeds = stack(configs)["seed"]
        batches = Batches(program, seeds, sharding, progress.step, program.total_steps)
        metrics_file.write(progress.curve)
        advance: CompiledSteps | None = None
        saved = time.monotonic()

        with reporter.work(name, program.total_steps, progress.step, "step", "compiling"):
            while not progress.finished:
                if progress.evaluation_due:
                    # Evaluate; trials that diverged or are solved stop.
                    given = batches.evaluation["validation"]
                    metrics = program.measure(state, given, "validation")
                    progress.evaluated(metrics, np.asarray(state.loss))
                    metrics_file.append(progress.curve)
                    hyper = _hyper(configs, progress, sharding)
                    zeros = np.zeros(len(configs), np.float32)
                    state = dataclasses.replace(state, loss=jax.device_put(zeros, sharding))
                else:
                    # Advance by as many steps as take about a second.
                    stop = progress.next_stop(batches.max_steps)
                    began = time.monotonic()
                    steps = batches.steps(progress.step, stop)
                    reading = time.monotonic() - began
                    if advance is None:
                        advance = program.compile(state, hyper, steps)
                        progress.compile_seconds = advance.seconds
                        progress.peak_memory_bytes = advance.peak_memory_bytes
                    began = time.monotonic()
                    state = jax.block_until_ready(advance.call(state, hyper, steps))
                    progress.advanced(stop, reading + time.monotonic() - began)
                    reporter.update(stop, progress.words(np.asarray(state.loss)))
                # Checkpoint, and stop if a signal asked for it.
                interrupted = bool(signals)
                if interrupted or time.monotonic() - saved >= options.checkpoint_seconds:
                    checkpoints.save(progress.step, state, progress.record())
                    saved = time.monotonic()
                if interrupted:
                    raise Interrupted(signals[0])
            test = program.measure(state, batches.evaluation["test"], "test")
            if options.keep_weights:
                weights.save(workdir, ids, state.params, state.buffers)
    records = [_record(program, progress, r, test) for r in range(len(configs))]
    return Outcome(records, signals[0] if signals else None)


def _name(configs: Sequence[Mapping[str, Any]]) -> str:
    """A population in a few words."""
    model = configs[0]["model"]
    return f"{model_name(model)} d{model['d_model']} × {len(configs)} trials"


def _start(
    configs: Sequence[Mapping[str, Any]],
    program: TrainProgram,
    sharding: NamedSharding,
    checkpoints: Checkpoints,
) -> tuple[TrainState, Progress]:
    """The newest checkpoint, or the untrained models."""
    task, train = program.task, configs[0]["train"]
    schedule = Schedule(program.total_steps, program.eval_every, task.metric, train["stop_at"])
    progress = Progress.start(schedule, len(configs))
    seed = _hyper(configs, progress, sharding)["seed"]
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(program.initial, seed),
    )
    restored = checkpoints.restore(abstract)
    if restored is None:
        return program.initial(seed), progress
    state, record = restored
    try:
        return state, Progress.restore(schedule, record)
    except TypeError as error:
        raise ConfigError(
            f"{checkpoints.folder} is of another version of Seqbench: move it away and run again; "
            "training starts from the beginning"
        ) from error


def _hyper(
    configs: Sequence[Mapping[str, Any]], progress: Progress, sharding: NamedSharding
) -> Hyper:
    """The traced hyperparameters [R].

    A trial that has stopped goes on with a learning rate of zero: its parameters keep their bits,
    and so do the others.
    """
    hyper = stack(configs)
    is_active = np.array([status == "active" for status in progress.status])
    hyper["learning_rate"] = np.where(is_active, hyper["learning_rate"], np.float32(0))
    return jax.device_put(hyper, sharding)


def _record(
    program: TrainProgram, progress: Progress, r: int, test: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The measured part of trial r's record."""
    outcome = progress.outcome(r, test)
    examples = outcome["steps"] * program.batch_size
    return outcome | {
        "accumulate": program.accumulate,  # when it ended: an earlier run may have had another
        "parameters": program.num_parameters,
        "state_bytes": program.state_bytes,
        "flops_per_step": program.flops_per_step,
        "examples_per_second": examples / max(outcome["train_seconds"], 1e-9),
    }
