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
from runners.training import accumulation, evaluation, memory, optimizer, position_loss
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
      accumulate: micro-batches that a step's batch is cut into.

    Raises:
      ValueError: an option that the architecture does not take, or a mixer that sees the future on
        a task that needs one that does not; `accumulate` does not divide the batch.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        sharding: NamedSharding | None = None,
        *,
        stream: bool = False,
        accumulate: int = 1,
    ):
        accumulation.check(accumulate, config["train"]["batch_size"])
        self.config, self.accumulate = config, accumulate
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
        self,
        params: Any,
        buffers: Any,
        seed: jax.Array,
        batch: tasks.Batch,
        step: jax.Array,
        piece: accumulation.Piece | None = None,
    ) -> jax.Array:
        """The training loss of one trial on one batch; of a piece, its share in that of the whole.

        It holds the auxiliary losses of the mixers, which the metrics of an evaluation do not.
        """
        model = nnx.merge(self._graphdef, params, buffers)
        rng = jax.random.fold_in(trial_key(seed, "dropout"), step)
        rng = rng if piece is None else jax.random.fold_in(rng, piece.index)
        weight = None if piece is None else piece.weight
        context = arch.Context(segment_ids=batch.segment_ids, rng=rng, training=True)
        arguments = (batch.inputs, batch.loss_positions, context, batch.mask)
        if self.task.head == "token":
            hidden, embedding = model.hidden(*arguments), model.embedding[...]
            loss = position_loss.loss(self._position_loss, hidden, embedding, batch, weight)
        else:
            loss = position_loss.mean(self.task.loss(model(*arguments), batch), weight)
        auxiliary = jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))
        auxiliary = auxiliary if piece is None else [a / piece.count for a in auxiliary]
        return sum(auxiliary, start=loss)

    def _position_loss(self, logits: jax.Array, batch: tasks.Batch) -> tasks.Average:
        """The task's loss, and z times the squared log of the softmax's normalizer.

        The second term keeps logits from drifting (Chowdhery et al. 2022, arXiv 2204.02311, section
        5).
        """
        loss, factor = self.task.loss(logits, batch), self.config["train"].get("z_loss", 0.0)
        if not factor:
            return loss
        normalizer = jax.nn.logsumexp(logits.astype(jnp.float32), -1)
        z_loss = factor * jnp.sum(normalizer**2 * batch.weights)
        return dataclasses.replace(loss, total=loss.total + z_loss)

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
                loss = functools.partial(self.loss, buffers=buffers, seed=seed, step=step)
                return accumulation.value_and_grad(loss, params, batch, self.accumulate)

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
        batch_size = self.config["evaluation"]["batch_size"]

        def of_trial(params: Any, buffers: Any) -> list[dict[str, tasks.Average]]:
            model = nnx.merge(self._graphdef, params, buffers)
            return evaluation.averages(
                model, self.task, self.sources[split], given, split, batch_size
            )

        return jax.vmap(of_trial)(state.params, state.buffers)

    def measure(
        self, state: TrainState, given: tasks.Given, split: tasks.Split
    ) -> dict[str, np.ndarray]:
        """Every metric [R] of a split: over all parts that have it, and per part for several."""
        results = jax.device_get(self.evaluate(state, given, split))
        return evaluation.values(self.task, split, results)

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
