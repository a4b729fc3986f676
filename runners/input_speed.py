"""`python -m runners.input_speed`: how fast a study's batches come, and what they cost a step.

    python -m runners.input_speed --config icll.py
    python -m runners.input_speed --config icll.py:paper --only mixer=attention --only d_model=64

A batch is drawn inside the training program. Here it is drawn alone, in turns with whole steps of
training in the same process, one trial of each architecture and size. Nothing is written.

Exit codes: 0 all done, 2 the request was wrong.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from runners import cli, timing
from runners.config import ConfigError
from runners.identity import population_key
from runners.labels import model_name
from runners.program import Hyper, Program
from runners.sweep import add_only, select

_STEPS = 20  # of one call: a dispatch costs little beside them
_ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Speed:
    """Medians over rounds.

    Attributes:
      step_seconds: of a training step, its batch included.
      batch_seconds: of the batch alone.
      share: batch / step, the median of the rounds' ratios.
    """

    step_seconds: float
    batch_seconds: float
    share: float


def measure(config: Mapping[str, Any], rounds: int = _ROUNDS) -> Speed:
    """Times the batches of the first part of a study's training set, and steps on them.

    Args:
      config: a resolved trial.
      rounds: samples of each.

    Raises:
      ValueError: what `Program` raises.
    """
    program = Program(config)
    task, size = program.task, program.batch_size
    hyper = Hyper(np.zeros(1, np.uint32), np.full(1, 1e-3, np.float32), np.zeros(1, np.float32))
    parts, part_steps = program.parts_of(0, _STEPS)
    # The state is donated, and so carried from call to call.
    state = [program.initial(hyper.seed)]

    def steps() -> Any:
        state[0] = program.advance(state[0], hyper, 0, _STEPS, np.zeros_like(parts), part_steps)
        return state[0].loss

    @jax.jit
    def batches(key: jax.Array) -> jax.Array:
        def add(step: jax.Array, total: jax.Array) -> jax.Array:
            leaves = jax.tree.leaves(task.train_batch(key, step, size, 0))
            return total + sum(jnp.sum(x, dtype=jnp.float32) for x in leaves)

        return jax.lax.fori_loop(0, _STEPS, add, jnp.float32(0))

    key = jax.random.key(0)
    samples = timing.alternate({"steps": steps, "batches": lambda: batches(key)}, rounds)
    return Speed(
        timing.median(samples["steps"]) / _STEPS,
        timing.median(samples["batches"]) / _STEPS,
        timing.ratio(samples["batches"], samples["steps"]),
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    description = "How fast a study's batches come, and what they cost a step."
    request = cli.parse("input_speed", description, argv, add_only)
    trials = select(request.study.trials(), request.options.only)
    table = Table(box=None, header_style="bold")
    table.add_column("architecture")
    for column in ("width", "batch", "step", "batch alone", "share", "examples/s"):
        table.add_column(column, justify="right")
    for trial in {population_key(trial): trial for trial in trials}.values():
        try:
            speed = measure(trial)
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
    cli.console().print(table)
    return 0


if __name__ == "__main__":
    cli.main("input_speed", main, sys.argv[1:])
