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
from runners import cost, optimizer

MODEL_OPTIONS = (
    "d_model",
    "num_layers",
    "mixer_options",
    "channel_mixer",
    "norm",
    "position_embedding",
    "embedding_dropout",
    "compute_dtype",
    "remat",
)
MAX_STEPS_PER_DISPATCH = 256


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
    """The backbone of a trial, as long and with as many words as its task needs.

    Raises:
      ValueError: an option that the architecture does not take or cannot honour.
    """
    model = config["model"]
    return arch.Backbone(
        model["mixer"],
        vocab_size=task.vocab_size,
        max_length=task.max_length,
        rngs=rngs,
        **{option: model[option] for option in MODEL_OPTIONS},
    )


def part_schedule(parts: tuple[tasks.Part, ...], batch_size: int, epoch: int) -> np.ndarray:
    """The part each step of an epoch draws from: every batch once, in the epoch's own order."""
    counts = [1 if p.num_examples is None else -(-p.num_examples // batch_size) for p in parts]
    order = np.repeat(np.arange(len(parts)), counts)
    return np.random.default_rng(epoch).permutation(order).astype(np.int32)


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
        model = build_model(self.config, self.task, nnx.Rngs(_key(seed, "init")))
        params, buffers = nnx.state(model, nnx.Param, ...)
        adamw = optimizer.adamw(self.config["optimizer"], 0.0, 0.0, 0.0)
        return TrainState(params, buffers, adamw.init(params), jnp.zeros(()))

    def loss(
        self, params: Any, buffers: Any, seed: jax.Array, part: int, step: Any, part_step: Any
    ) -> jax.Array:
        """The training loss of one trial at one step, its batch drawn here.

        It holds the auxiliary losses of the mixers, which the metrics of an evaluation do not.
        """
        model = nnx.merge(self._graphdef, params, buffers)
        batch = self.task.train_batch(_key(seed, "data"), part_step, self.batch_size, part)
        context = arch.Context(rng=jax.random.fold_in(_key(seed, "dropout"), step), training=True)
        logits = model(batch.inputs, batch.positions, context)
        auxiliary = jax.tree.leaves(nnx.state(model, arch.AuxiliaryLoss))
        return sum(auxiliary, start=self.task.loss(logits, batch).value)

    def _step(self, state: TrainState, hyper: Hyper, step: Any, part: Any, part_step: Any) -> Any:
        def gradients(part: int) -> tuple[jax.Array, Any]:
            def one(params: Any, buffers: Any, seed: jax.Array) -> tuple[jax.Array, Any]:
                return jax.value_and_grad(self.loss)(params, buffers, seed, part, step, part_step)

            return jax.vmap(one)(state.params, state.buffers, hyper.seed)

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
        self, state: TrainState, hyper: Hyper, start: Any, stop: Any, parts: Any, part_steps: Any
    ) -> TrainState:
        """Runs steps start … stop − 1 (traced, at most MAX_STEPS_PER_DISPATCH) in one dispatch.

        parts, part_steps: [MAX_STEPS_PER_DISPATCH]: the part of each step and how often it has been
          drawn from.
        """

        def body(step: jax.Array, state: TrainState) -> TrainState:
            i = step - start
            return self._step(state, hyper, step, parts[i], part_steps[i])

        return jax.lax.fori_loop(start, stop, body, state)

    def _evaluate(self, state: TrainState, split: tasks.Split) -> list[dict[str, tasks.Average]]:
        """Sums and counts of each metric over each part of a split, per trial [R]."""
        batch_size = self.config["evaluation"]["batch_size"]

        def one(params: Any, buffers: Any) -> list[dict[str, tasks.Average]]:
            model = nnx.merge(self._graphdef, params, buffers)

            def measure(step: jax.Array, part: int) -> dict[str, tasks.Average]:
                batch = self.task.eval_batch(step, batch_size, split, part)
                return self.task.metrics(model(batch.inputs, batch.positions), batch)

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

        def step(state: TrainState, part: int) -> Any:
            return jax.value_and_grad(self.loss)(
                state.params, state.buffers, seed, part, zero, zero
            )

        steps = [cost.flops(lambda s, i=i: step(s, i), state) for i in range(len(counts))]
        return round(np.average(steps, weights=counts)) + cost.flops(update, state)

    @property
    def num_parameters(self) -> int:
        """Trained numbers of one trial."""
        params = nnx.state(self.abstract_model, nnx.Param)
        return sum(x.size for x in jax.tree.leaves(params))

    def parts_of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Each step's part and how often that was drawn from before, for start … stop − 1."""
        parts = np.zeros((2, MAX_STEPS_PER_DISPATCH), np.int32)
        if len(self.train_parts) == 1:
            parts[1, : stop - start] = np.arange(start, stop)
            return parts[0], parts[1]
        for epoch in range(start // self.steps_per_epoch, (stop - 1) // self.steps_per_epoch + 1):
            order = part_schedule(self.train_parts, self.batch_size, epoch)
            counts = np.bincount(order, minlength=len(self.train_parts))
            one_hot = order[:, None] == np.arange(len(self.train_parts))
            seen = epoch * counts[order] + (np.cumsum(one_hot, 0) - 1)[np.arange(len(order)), order]
            first = epoch * self.steps_per_epoch
            low, high = max(start, first), min(stop, first + len(order))
            parts[0, low - start : high - start] = order[low - first : high - first]
            parts[1, low - start : high - start] = seen[low - first : high - first]
        return parts[0], parts[1]


def _key(seed: jax.Array, purpose: str) -> jax.Array:
    """Independent keys for a trial's initial parameters, data and dropout."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "data", "dropout").index(purpose))


def trial_sharding(num_trials: int) -> NamedSharding:
    """Splits the trial axis over as many local devices as divide it."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_trials % n == 0)
    mesh = jax.make_mesh((count,), ("trial",), (AxisType.Auto,), devices=devices[:count])
    return NamedSharding(mesh, PartitionSpec("trial"))
