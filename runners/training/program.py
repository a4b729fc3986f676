"""The compiled program of a population: R trials that differ only in numbers train as one.

Parameters, optimizer state and traced hyperparameters carry a leading trial axis R under `vmap`;
batches are made inside the program; one call runs any number of steps. No value of one trial ever
meets a value of another.

Letters: R trials, K steps of one call, B batch.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

import arch
import tasks
from runners.core import flops
from runners.training import memory, optimizer
from runners.training.hyper import Hyper, constant
from runners.training.keys import data_key, trial_key
from runners.training.mixture import batches_per_epoch
from runners.training.model import build_model

MAX_STEPS = 256  # of one call
_RESIDENT_SHARE = 0.25  # of the device's memory, for training rows that stay on it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes; every leaf has a leading axis [R].

    Attributes:
      params: the parameters, an `nnx.State`.
      buffers: other variables of the model, which training leaves alone.
      opt_state: Adam's moments.
      loss: sum of the training loss since the last evaluation.
    """

    params: Any
    buffers: Any
    opt_state: Any
    loss: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """Input of one call of the training program: which steps it runs, and on which data.

    Attributes:
      start: first step.
      stop: step after the last one.
      parts: the part that each step draws its batch from, [MAX_STEPS].
      part_steps: how often that part has been drawn from before, [MAX_STEPS].
      given: arrays of the training source; streamed ones [R, K, B, …].
    """

    start: Any
    stop: Any
    parts: Any
    part_steps: Any
    given: tasks.Given


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
    """The compiled form of `TrainProgram.advance` for one shape of its inputs.

    Attributes:
      call: (state, hyper, steps) → state; the state that it is given is donated.
      seconds: time of compilation.
      peak_memory_bytes: device memory of the program, all trials together; None if unknown.
    """

    call: Callable[[TrainState, Hyper, Steps], TrainState]
    seconds: float
    peak_memory_bytes: int | None


class TrainProgram:
    """The jitted functions of a population with one shared configuration.

    Args:
      config: the resolved configuration of any of its trials.
      sharding: how the trial axis is divided over devices; None leaves it on one.
      stream: never keep the training rows on the device, even if they fit.

    Raises:
      ValueError: an option that the architecture does not take, or a mixer that sees the future on
        a task that needs one that does not.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        sharding: NamedSharding | None = None,
        *,
        stream: bool = False,
    ):
        self.config = config
        self.task = tasks.build(config["task"]["name"], **config["task"]["options"])
        limit = 0 if stream else _RESIDENT_SHARE * memory.device_bytes()
        self.sources = {split: self.task.source(split, limit) for split in tasks.SPLITS}
        self.batch_size = config["train"]["batch_size"]
        self.train_parts = self.task.parts("train")
        self.steps_per_epoch = sum(batches_per_epoch(self.train_parts, self.batch_size))
        self.total_steps = config["train"]["steps"] or math.ceil(
            config["train"]["epochs"] * self.steps_per_epoch
        )
        self.eval_every = config["train"]["eval_every"] or self.steps_per_epoch
        self._learning_rate_factor = optimizer.schedule(
            config["optimizer"]["schedule"],
            self.total_steps,
            self.steps_per_epoch,
            config["optimizer"]["warmup_fraction"],
        )
        self.abstract_model = nnx.eval_shape(lambda: build_model(config, self.task, nnx.Rngs(0)))
        self._graphdef = nnx.graphdef(self.abstract_model)
        if self.task.needs_causal and not self.abstract_model.causal:
            raise ValueError(
                f"the task {config['task']['name']!r} needs a causal architecture, and with these "
                "options it is not one"
            )
        self.initial = jax.jit(jax.vmap(self._initial), out_shardings=sharding)
        self.advance = jax.jit(self._advance, donate_argnums=0, out_shardings=sharding)
        self.evaluate = jax.jit(self._evaluate, static_argnames="split")

    def compile(self, state: TrainState, hyper: Hyper, steps: Steps) -> CompiledSteps:
        """Compiles `advance` for inputs of these shapes."""
        lowered = self.advance.lower(state, hyper, steps)
        began = time.monotonic()
        compiled = lowered.compile()
        seconds = time.monotonic() - began
        return CompiledSteps(compiled, seconds, flops.peak_memory_bytes(compiled))

    def _initial(self, seed: jax.Array) -> TrainState:
        model = build_model(self.config, self.task, nnx.Rngs(trial_key(seed, "init")))
        params, buffers = nnx.state(model, nnx.Param, ...)
        adamw = optimizer.adamw(self.config["optimizer"], constant(0.0), 0.0)
        return TrainState(params, buffers, adamw.init(params), jnp.zeros(()))

    def train_batch(
        self, given: tasks.Given, seed: jax.Array, part_step: jax.Array, part: int
    ) -> tasks.Batch:
        """One trial's batch of one step; `given` holds the streamed arrays of these alone."""
        source = self.sources["train"]
        return source.train_batch(given, data_key(seed), part_step, self.batch_size, part)

    def loss(
        self, params: Any, buffers: Any, seed: jax.Array, batch: tasks.Batch, step: jax.Array
    ) -> jax.Array:
        """The training loss of one trial on one batch.

        It holds the auxiliary losses of the mixers, which the metrics of an evaluation do not.
        """
        model = nnx.merge(self._graphdef, params, buffers)
        rng = jax.random.fold_in(trial_key(seed, "dropout"), step)
        context = arch.Context(segment_ids=batch.segment_ids, rng=rng, training=True)
        logits = model(batch.inputs, batch.loss_positions, context, batch.mask)
        auxiliary = jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))
        return sum(auxiliary, start=self.task.loss(logits, batch).value)

    def _advance(self, state: TrainState, hyper: Hyper, steps: Steps) -> TrainState:
        """Runs steps start … stop − 1 (traced, at most MAX_STEPS) in one call."""

        def body(step: jax.Array, state: TrainState) -> TrainState:
            return self._step(state, hyper, steps, step)

        return jax.lax.fori_loop(steps.start, steps.stop, body, state)

    def _step(self, state: TrainState, hyper: Hyper, steps: Steps, step: jax.Array) -> TrainState:
        """One step of all trials."""
        i = step - steps.start
        part, part_step = steps.parts[i], steps.part_steps[i]
        streamed = jax.tree.map(lambda a: a[:, i], steps.given.streamed)

        def gradients(part: int) -> tuple[jax.Array, Any]:
            def of_trial(params: Any, buffers: Any, seed: jax.Array, streamed: Any) -> Any:
                given = dataclasses.replace(steps.given, streamed=streamed)
                batch = self.train_batch(given, seed, part_step, part)
                return jax.value_and_grad(self.loss)(params, buffers, seed, batch, step)

            return jax.vmap(of_trial)(state.params, state.buffers, hyper["seed"], streamed)

        branches = [functools.partial(gradients, i) for i in range(len(self.train_parts))]
        if len(branches) == 1:
            loss, grads = branches[0]()
        else:
            loss, grads = jax.lax.switch(part, branches)

        def update(grads: Any, opt_state: Any, params: Any, hyper: Hyper) -> tuple[Any, Any]:
            factor = self._learning_rate_factor(step)
            adamw = optimizer.adamw(self.config["optimizer"], hyper, factor)
            updates, opt_state = adamw.update(grads, opt_state, params)
            return jax.tree.map(jnp.add, params, updates), opt_state

        params, opt_state = jax.vmap(update)(grads, state.opt_state, state.params, hyper)
        return TrainState(params, state.buffers, opt_state, state.loss + loss)

    def _evaluate(
        self, state: TrainState, given: tasks.Given, split: tasks.Split
    ) -> list[dict[str, tasks.Average]]:
        """Sums and counts of each metric over each part of a split, per trial [R]."""

        def of_trial(params: Any, buffers: Any) -> list[dict[str, tasks.Average]]:
            model = nnx.merge(self._graphdef, params, buffers)
            parts = range(len(self.task.parts(split)))
            return [self._average(model, given, split, part) for part in parts]

        return jax.vmap(of_trial)(state.params, state.buffers)

    def _average(
        self, model: arch.Backbone, given: tasks.Given, split: tasks.Split, part: int
    ) -> dict[str, tasks.Average]:
        """Sums and counts of each metric of one trial over one part of a split."""
        batch_size = self.config["evaluation"]["batch_size"]
        num_steps = -(-self.task.parts(split)[part].num_examples // batch_size)

        def measure(step: jax.Array) -> dict[str, tasks.Average]:
            batch = self.sources[split].eval_batch(given, step, batch_size, part)
            context = arch.Context(segment_ids=batch.segment_ids)
            logits = model(batch.inputs, batch.loss_positions, context, batch.mask)
            return self.task.metrics(logits, batch)

        def add(step: jax.Array, total: Any) -> Any:
            return jax.tree.map(jnp.add, total, measure(step))

        shapes = jax.eval_shape(measure, jnp.int32(0))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, num_steps, add, zero)

    def measure(
        self, state: TrainState, given: tasks.Given, split: tasks.Split
    ) -> dict[str, np.ndarray]:
        """Every metric [R] of a split: over all its parts, and per part where there are several."""
        parts = self.task.parts(split)
        results = jax.device_get(self.evaluate(state, given, split))
        metrics = {}
        for name in results[0]:
            pieces = [r[name] for r in results]
            metrics[f"{split}/{name}"] = sum(pieces[1:], pieces[0]).value
            if len(parts) > 1:
                for part, piece in zip(parts, pieces, strict=True):
                    metrics[f"{split}/{part.slice_of(name).name}"] = piece.value
        return {name: np.asarray(value) for name, value in metrics.items()}

    @functools.cached_property
    def flops_per_step(self) -> int:
        """Operations of one trial's average step: batch, loss, gradients and update.

        Counted with resident rows, so that the number does not depend on the machine's memory.
        """
        seed, zero = jnp.uint32(0), jnp.int32(0)
        state = jax.eval_shape(self._initial, seed)
        source = self.task.source("train")

        def update(state: TrainState) -> Any:
            adamw = optimizer.adamw(self.config["optimizer"], constant(1.0), 1.0)
            return adamw.update(state.params, state.opt_state, state.params)

        def step(part: int, state: TrainState, given: tasks.Given) -> Any:
            batch = source.train_batch(given, data_key(seed), zero, self.batch_size, part)
            return jax.value_and_grad(self.loss)(state.params, state.buffers, seed, batch, zero)

        given = source.abstract(self.batch_size)
        counts = batches_per_epoch(self.train_parts, self.batch_size)
        steps = [
            flops.flops(functools.partial(step, part), state, given) for part in range(len(counts))
        ]
        return round(np.average(steps, weights=counts)) + flops.flops(update, state)

    @property
    def num_parameters(self) -> int:
        """Trained numbers of one trial."""
        params = nnx.state(self.abstract_model, nnx.Param)
        return sum(x.size for x in jax.tree.leaves(params))

    @property
    def state_bytes(self) -> int | None:
        """One sequence's recurrent state at its longest; None where nothing is fed part by part."""
        if self.task.head != "token" or not self.abstract_model.causal:
            return None
        return arch.state_bytes(self.abstract_model, self.task.max_length)
