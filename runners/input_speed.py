"""`python -m runners.input_speed`: how fast a study's batches come, and what they cost a step.

    python -m runners.input_speed --config icll.py
    python -m runners.input_speed --config icll.py:paper --only mixer=attention --only d_model=64

A batch is drawn inside the training program, or gathered there from a set that is kept on the
device, or read from disk beside it. Here that is done alone, in turns with whole steps of
training in the same process, one trial of each architecture and size. Nothing is written.

Exit codes: 0 all done, 1 there are no data, 2 the request was wrong.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

import tasks
from runners.benchmark import timing
from runners.core import cli
from runners.core.errors import ConfigError
from runners.core.identity import population_key
from runners.core.naming import model_name
from runners.core.reporter import Reporter
from runners.study import data
from runners.study.request import parse
from runners.study.schema import MAX_STEPS
from runners.training.batches import Batches
from runners.training.hyper import stack
from runners.training.mesh import trial_sharding
from runners.training.program import TrainProgram

_STEPS = 20  # of one call, which itself costs little beside them
_ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class _Speed:
    """Medians over rounds.

    Attributes:
      step_seconds: of a training step, its batch included.
      batch_seconds: of the batch alone.
      share: batch / step, the median of the rounds' ratios.
    """

    step_seconds: float
    batch_seconds: float
    share: float


def measure(
    config: Mapping[str, Any], rounds: int = _ROUNDS, stream: bool = False, accumulate: int = 1
) -> _Speed:
    """Times the batches of the first part of a study's training set, and steps on them.

    Args:
      config: a resolved trial, whose data are here.
      rounds: samples of each.
      stream: read stored training rows from disk, even if they fit on the device.
      accumulate: micro-batches per step.

    Raises:
      ValueError: what `TrainProgram` raises.
    """
    program = TrainProgram(config, stream=stream, accumulate=accumulate)
    hyper = stack([config])
    batches = Batches(program, hyper["seed"], trial_sharding(1), start=0, stop=MAX_STEPS - 1)
    count = min(_STEPS, batches.max_steps)
    first = batches.steps(0, count)
    first = dataclasses.replace(first, parts=np.zeros_like(first.parts))
    # The state is donated, and so carried from call to call.
    state = [program.initial(hyper["seed"])]

    def steps() -> Any:
        state[0] = program.advance(state[0], hyper, first)
        return state[0].loss

    @jax.jit
    def made(seed: jax.Array, given: tasks.Given) -> jax.Array:
        def add(step: jax.Array, total: jax.Array) -> jax.Array:
            leaves = jax.tree.leaves(program.train_batch(given, seed, step, 0))
            return total + sum(jnp.sum(x, dtype=jnp.float32) for x in leaves)

        return jax.lax.fori_loop(0, count, add, jnp.float32(0))

    def batch() -> Any:
        if first.given.streamed is not None:
            return batches.steps(0, count).given.streamed
        return made(jnp.uint32(0), first.given)

    samples = timing.alternate({"steps": steps, "batches": batch}, rounds)
    return _Speed(
        timing.median(samples["steps"]) / count,
        timing.median(samples["batches"]) / count,
        timing.ratio(samples["batches"], samples["steps"]),
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    description = "How fast a study's batches come, and what they cost a step."
    request = parse("input_speed", description, argv)
    trials, options = request.trials(), request.options
    console = cli.console()
    for reason in data.prepare(trials, Reporter(console)).values():
        raise tasks.DataMissingError(reason)
    table = Table(box=None, header_style="bold")
    table.add_column("architecture")
    for column in ("width", "batch", "step", "batch alone", "share", "examples/s"):
        table.add_column(column, justify="right")
    for trial in {population_key(trial): trial for trial in trials}.values():
        try:
            speed = measure(trial, stream=options.stream, accumulate=options.accumulate)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        size = trial["train"]["batch_size"]
        table.add_row(
            model_name(trial["model"]),
            str(trial["model"]["d_model"]),
            str(size),
            f"{1e3 * speed.step_seconds:.2f} ms",
            f"{1e3 * speed.batch_seconds:.2f} ms",
            f"{speed.share:.1%}",
            f"{size / speed.batch_seconds:,.0f}",
        )
    console.print(table)
    return 0


if __name__ == "__main__":
    cli.main("input_speed", main, sys.argv[1:])
