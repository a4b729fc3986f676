"""Cost estimate of a sweep: operations, memory and time of every population.

A sweep bounds the time from below, by the operations and the speed of matrix products here. A dry
run takes the time to compile and run a step: one of each task, on rows of zeros where they would be
read; the other populations of the task are put in proportion to their operations.
"""

import collections
import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from runners.core import naming
from runners.core.format import duration, to_bytes
from runners.training.batches import zeros
from runners.training.hyper import stack
from runners.training.memory import device_bytes
from runners.training.program import TrainProgram

_MEMORY_SHARE = 0.8  # of the device's memory, that a step may take to be tried


@dataclasses.dataclass(frozen=True)
class _Forecast:
    """One population before it runs.

    Attributes:
      program: its program.
      trials: how many trials it trains.
      flops: operations of one trial's step; None if the model cannot be traced, which its trials
        will report.
    """

    program: TrainProgram
    trials: int
    flops: int | None

    @property
    def task(self) -> str:
        """Its task's configuration, as JSON."""
        return naming.to_json(self.program.config["task"])

    @property
    def total(self) -> int:
        """Operations of all steps of all trials."""
        return (self.flops or 0) * self.program.total_steps * self.trials


def of(program: TrainProgram, trials: int) -> _Forecast:
    """The forecast of a population."""
    try:
        return _Forecast(program, trials, program.flops_per_step)
    except Exception:  # a mixer from outside may raise anything
        return _Forecast(program, trials, None)


def show(console: Console, forecasts: Sequence[_Forecast], *, measured: bool) -> None:
    """Prints the table and the time; `measured` runs a step of every task."""
    several = len({forecast.task for forecast in forecasts}) > 1
    table = Table(*["task"] * several, "architecture", box=None)
    for column in ("width", "trials", "examples", "steps", "parameters", "state", "step"):
        table.add_column(column, justify="right")
    for forecast in forecasts:
        program = forecast.program
        state, flops = program.state_bytes, forecast.flops
        table.add_row(
            *[program.config["task"]["name"]] * several,
            naming.model_name(program.config["model"]),
            str(program.config["model"]["d_model"]),
            str(forecast.trials),
            _examples(program),
            f"{program.total_steps:,}",
            f"{program.num_parameters:,}",
            to_bytes(state),
            "?" if flops is None else f"{flops / 1e9:.3g} GFLOP",
        )
    console.print(table)
    total = sum(forecast.total for forecast in forecasts)
    if measured:
        _show_measured(console, forecasts)
        return
    rate = _matmul_rate()
    console.print(
        f"{total / 1e12:.3g} TFLOP in all: at least {duration(total / rate)} at the "
        f"{rate / 1e9:.0f} GFLOP/s of matrix products here, and usually a few times that"
    )


def _examples(program: TrainProgram) -> str:
    sizes = [part.num_examples for part in program.train_parts]
    return "endless" if None in sizes else f"{sum(sizes):,}"


def _show_measured(console: Console, forecasts: Sequence[_Forecast]) -> None:
    by_task: dict[str, list[_Forecast]] = collections.defaultdict(list)
    for forecast in forecasts:
        by_task[forecast.task].append(forecast)
    whole, rate = 0.0, None
    for members in by_task.values():
        first = members[0]
        config = first.program.config
        name = f"{config['task']['name']}, {naming.model_name(config['model'])}"
        try:
            seconds, peak = step_cost(first.program)
        except Exception as error:  # as above, and a device may lack the memory
            reason = " ".join(str(error).split())[:200]
            console.print(f"{name}: no step can be run: {reason}", markup=False)
            seconds, peak = None, None
        memory = f"{to_bytes(peak)} of memory"
        if seconds is None and peak is None:
            pass
        elif seconds is None:
            console.print(
                f"{name}: a step needs {memory}, more than this device has; --accumulate runs it "
                "in micro-batches"
            )
        else:
            rate = (first.flops or 0) / seconds
            took = f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
            console.print(f"{name}: a step of one trial took {took} and {memory}")
            if first.trials > 1:
                console.print(
                    f"  {first.trials} trials train together, in as many times the memory; "
                    "--population_size divides them"
                )
        total = sum(forecast.total for forecast in members)
        if not rate:
            console.print("  no estimate of the time: no step could be measured")
            continue
        whole += total / rate
        by = "measured" if seconds is not None else "at the speed of the task before"
        console.print(
            f"  {sum(m.trials for m in members)} trials, {total / 1e12:.3g} TFLOP: "
            f"about {duration(total / rate)} here ({by})"
        )
    console.print(f"about {duration(whole)} in all, compilation and evaluation aside")


def step_cost(program: TrainProgram) -> tuple[float | None, int | None]:
    """Seconds of one step of one trial, and bytes of memory by the compiler's count.

    On rows of zeros, where rows would be read. No seconds where the step does not fit.
    """
    program = TrainProgram(program.config, stream=True, accumulate=program.accumulate)
    hyper, steps = stack([program.config]), zeros(program)
    abstract = jax.eval_shape(program.initial, hyper["seed"])
    step = program.compile(abstract, hyper, steps)
    peak = step.peak_memory_bytes
    if peak is not None and peak > _MEMORY_SHARE * device_bytes():
        return None, peak
    state = jax.block_until_ready(step.call(program.initial(hyper["seed"]), hyper, steps))
    began = time.monotonic()
    jax.block_until_ready(step.call(state, hyper, steps))
    return time.monotonic() - began, peak


def _matmul_rate() -> float:
    """Floating-point operations a second of a float32 matrix product on the default device."""
    a = jnp.ones((1024, 1024))
    product = jax.jit(jnp.dot)
    product(a, a).block_until_ready()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < 0.1:
        product(a, a).block_until_ready()
        count += 1
    return 2 * 1024**3 * count / (time.monotonic() - began)
