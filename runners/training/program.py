"""The compiled program of a population: R trials that differ only in numbers train as one.

Parameters, optimizer state and hyperparameters carry a leading trial axis R under `vmap`; batches
are drawn inside the program; a dispatch runs any number of steps. No value of one trial ever meets
a value of another.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import arch
import tasks
from runners.core import flops
from runners.training import batches, epochs, optimizer
from runners.training.batches import Supply, data_key, trial_key
from runners.training.epochs import part_schedule

MODEL_OPTIONS = (
    "d_model",
    "num_layers",
    "mixer_options",
    "channel_mixer",
    "norm",
    "position_embedding",
    "embedding_dropout",
    "dropout",
    "compute_dtype",
    "remat",
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyper:
    """The numbers that distinguish the trials of a population; each [R]."""

    seed: jax.Array
    learning_rate: jax.Array
    weight_decay: jax.Array


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


def build_model(config: Mapping[str, Any], task: tasks.Task, rngs: nnx.Rngs) -> arch.Backbone:
    """The backbone of a trial, with the inputs and the head that its task needs.

    Raises:
      ValueError: an option that the architecture does not take or cannot honour.
    """
    model = config["model"]
    return arch.Backbone(
        model["mixer"],
        vocab_size=task.vocab_size,
        num_features=task.num_features,
        head=task.head,
        num_classes=task.num_classes,
        max_length=task.max_length,
        rngs=rngs,
        **{option: model[option] for option in MODEL_OPTIONS if option in model},
    )


class Program:
    """The jitted functions of a population with one shared configuration.

    Args:
      config: the resolved configuration of any of its trials.
      sharding: how the trial axis is divided over devices; None leaves it on one.

    Raises:
      ValueError: an option that the architecture does not take, or a mixer that sees the future on
        a task that needs one that does not.
    """

    def __init__(self, config: Mapping[str, Any], sharding: NamedSharding | None = None):
        self.config = config
        self.task = tasks.build(config["task"]["name"], **config["task"]["options"])
        self.batch_size = config["train"]["batch_size"]
        self.train_parts = self.task.parts("train")
        self.steps_per_epoch = len(part_schedule(self.train_parts, self.batch_size, 0))
        self.total_steps = config["train"]["steps"] or math.ceil(
            config["train"]["epochs"] * self.steps_per_epoch
        )
        self.eval_every = config["train"]["eval_every"] or self.steps_per_epoch
        self._schedule = optimizer.schedule(
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

    def _initial(self, seed: jax.Array) -> TrainState:
        model = build_model(self.config, self.task, nnx.Rngs(trial_key(seed, "init")))
        params, buffers = nnx.state(model, nnx.Param, ...)
        adamw = optimizer.adamw(self.config["optimizer"], 0.0, 0.0, 0.0)
        return TrainState(params, buffers, adamw.init(params), jnp.zeros(()))

    def train_batch(
        self, seed: jax.Array, part: int, part_step: Any, kept: Any, streamed: Any
    ) -> tasks.Batch:
        """One trial's batch: drawn, gathered from the split on the device, or as it was handed in.

        streamed: its rows [B, …], or None.
        """
        key = data_key(seed)
        if streamed is not None:
            return self.task.batch(streamed)
        if not isinstance(self.task, tasks.StoredTask):
            return self.task.train_batch(key, part_step, self.batch_size, part)
        index = self.task.train_indices(key, part_step, self.batch_size)
        return self.task.batch({name: rows[index] for name, rows in kept["train"].items()})

    def loss(
        self, params: Any, buffers: Any, seed: jax.Array, batch: tasks.Batch, step: Any
    ) -> jax.Array:
        """The training loss of one trial on one batch.

        It holds the auxiliary losses of the mixers, which the metrics of an evaluation do not.
        """
        model = nnx.merge(self._graphdef, params, buffers)
        context = arch.Context(
            rng=jax.random.fold_in(trial_key(seed, "dropout"), step), training=True
        )
        logits = model(batch.inputs, batch.positions, context, batch.mask)
        auxiliary = jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))
        return sum(auxiliary, start=self.task.loss(logits, batch).value)

    def _step(
        self, state: TrainState, hyper: Hyper, given: Supply, step: Any, part: Any, part_step: Any
    ) -> TrainState:
        """One step of all trials; `given.streamed` holds its rows alone, [R, B, …]."""

        def gradients(part: int) -> tuple[jax.Array, Any]:
            def one(params: Any, buffers: Any, seed: Any, rows: Any) -> tuple[jax.Array, Any]:
                batch = self.train_batch(seed, part, part_step, given.kept, rows)
                return jax.value_and_grad(self.loss)(params, buffers, seed, batch, step)

            return jax.vmap(one)(state.params, state.buffers, hyper.seed, given.streamed)

        branches = [lambda i=i: gradients(i) for i in range(len(self.train_parts))]
        loss, grads = branches[0]() if len(branches) == 1 else jax.lax.switch(part, branches)

        def update(grads: Any, opt_state: Any, params: Any, rate: Any, decay: Any) -> Any:
            adamw = optimizer.adamw(self.config["optimizer"], rate, decay, self._schedule(step))
            updates, opt_state = adamw.update(grads, opt_state, params)
            return jax.tree.map(jnp.add, params, updates), opt_state

        params, opt_state = jax.vmap(update)(
            grads, state.opt_state, state.params, hyper.learning_rate, hyper.weight_decay
        )
        return TrainState(params, state.buffers, opt_state, state.loss + loss)

    def _advance(
        self,
        state: TrainState,
        hyper: Hyper,
        given: Supply,
        start: Any,
        stop: Any,
        parts: Any,
        part_steps: Any,
    ) -> TrainState:
        """Runs steps start … stop − 1 (traced, at most MAX_STEPS_PER_DISPATCH) in one dispatch.

        parts, part_steps: [MAX_STEPS_PER_DISPATCH]: the part of each step and how often it has been
          drawn from.
        """

        def body(step: jax.Array, state: TrainState) -> TrainState:
            i = step - start
            rows = jax.tree.map(lambda a: a[:, i], given.streamed)
            of_step = dataclasses.replace(given, streamed=rows)
            return self._step(state, hyper, of_step, step, parts[i], part_steps[i])

        return jax.lax.fori_loop(start, stop, body, state)

    def _evaluate(
        self, state: TrainState, given: Supply, split: tasks.Split
    ) -> list[dict[str, tasks.Average]]:
        """Sums and counts of each metric over each part of a split, per trial [R]."""
        batch_size = self.config["evaluation"]["batch_size"]

        def one(params: Any, buffers: Any) -> list[dict[str, tasks.Average]]:
            model = nnx.merge(self._graphdef, params, buffers)

            def measure(step: jax.Array, part: int) -> dict[str, tasks.Average]:
                if isinstance(self.task, tasks.StoredTask):
                    batch = self.task.eval_rows(given.kept[split], step, batch_size)
                else:
                    batch = self.task.eval_batch(step, batch_size, split, part)
                logits = model(batch.inputs, batch.positions, mask=batch.mask)
                return self.task.metrics(logits, batch)

            results = []
            for index, part in enumerate(self.task.parts(split)):
                zero = jax.tree.map(
                    lambda s: jnp.zeros(s.shape, s.dtype),
                    jax.eval_shape(lambda i=index: measure(jnp.int32(0), i)),
                )
                steps = -(-part.num_examples // batch_size)

                def add(step: Any, total: Any, i: int = index) -> Any:
                    return jax.tree.map(jnp.add, total, measure(step, i))

                results.append(jax.lax.fori_loop(0, steps, add, zero))
            return results

        return jax.vmap(one)(state.params, state.buffers)

    @functools.cached_property
    def flops_per_step(self) -> int:
        """Operations of one trial's average step: batch, loss, gradients and update."""
        seed, zero = jnp.uint32(0), jnp.int32(0)
        state = jax.eval_shape(self._initial, seed)
        order = part_schedule(self.train_parts, self.batch_size, 0)
        counts = np.bincount(order, minlength=len(self.train_parts))

        def update(state: TrainState) -> Any:
            adamw = optimizer.adamw(self.config["optimizer"], 1.0, 1.0, 1.0)
            return adamw.update(state.params, state.opt_state, state.params)

        def step(state: TrainState, kept: Any, part: int) -> Any:
            batch = self.train_batch(seed, part, zero, kept, None)
            return jax.value_and_grad(self.loss)(state.params, state.buffers, seed, batch, zero)

        kept = batches.abstract(self.task).kept
        steps = [
            flops.flops(lambda s, k, i=i: step(s, k, i), state, kept) for i in range(len(counts))
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

    def parts_of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The part and its step, for steps start … stop − 1; see `epochs.parts_of`."""
        return epochs.parts_of(self.train_parts, self.batch_size, start, stop)


def trial_sharding(num_trials: int) -> NamedSharding:
    """Splits the trial axis over as many local devices as divide it."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_trials % n == 0)
    mesh = jax.make_mesh((count,), ("trial",), (AxisType.Auto,), devices=devices[:count])
    return NamedSharding(mesh, PartitionSpec("trial"))
