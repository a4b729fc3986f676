"""AdamW whose learning rate and weight decay follow the types of the parameters.

Learning rate and weight decay are traced numbers, so that trials differing in them share one
compiled program.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import arch

SCHEDULES = ("constant", "cosine", "cosine_per_epoch")


def schedule(
    kind: str, total_steps: int, steps_per_epoch: int, warmup_fraction: float
) -> Callable[[jax.Array], jax.Array]:
    """The factor of the learning rate at a step.

    "cosine" falls from 1 to 0 over training after a linear warm-up; "cosine_per_epoch" takes the
    same curve but moves only between epochs (as `CosineAnnealingLR` stepped once an epoch does, the
    published MQAR protocol).
    """
    warmup = max(1, round(warmup_fraction * total_steps)) if warmup_fraction > 0 else 0

    def factor(step: jax.Array) -> jax.Array:
        if kind == "constant":
            decay = jnp.ones(())
        else:
            if kind == "cosine_per_epoch":
                epochs = max(1, total_steps // steps_per_epoch)
                progress = (step // steps_per_epoch) / epochs
            else:
                progress = (step - warmup) / max(1, total_steps - warmup)
            decay = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
        return jnp.where(step < warmup, (step + 1) / max(1, warmup), decay)

    return factor


def _by_type(params: Any, rule: Callable[[type], Any]) -> Any:
    """A tree like `params` with `rule(type of the nnx.Param)` in place of every array."""
    return jax.tree.map(
        lambda variable: jax.tree.map(lambda _: rule(type(variable)), variable),
        params,
        is_leaf=lambda node: isinstance(node, nnx.Variable),
    )


def adamw(
    config: Mapping[str, Any],
    hyper: Mapping[str, jax.Array | float],
    factor: jax.Array | float,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) for one step.

    Args:
      config: the `optimizer` section: b1, b2, epsilon, clip_norm (None: no clipping),
        ssm_learning_rate.
      hyper: traced hyperparameters by name. learning_rate: the peak; parameters of type
        `arch.SSMParam` take at most `ssm_learning_rate`. weight_decay: decoupled; parameters of
        type `arch.Undecayed` take none.
      factor: the schedule's factor at this step.
    """
    learning_rate, weight_decay = hyper["learning_rate"], hyper["weight_decay"]

    def decay(updates: Any, params: Any) -> Any:
        rates = _by_type(params, lambda t: 0.0 if issubclass(t, arch.Undecayed) else 1.0)
        return jax.tree.map(
            lambda u, p, on: u + weight_decay * on * p if on else u, updates, params, rates
        )

    def step(updates: Any, params: Any) -> Any:
        ssm_rate = jnp.minimum(learning_rate, config["ssm_learning_rate"])
        is_ssm = _by_type(params, lambda t: issubclass(t, arch.SSMParam))
        return jax.tree.map(
            lambda u, ssm: -factor * (ssm_rate if ssm else learning_rate) * u, updates, is_ssm
        )

    clip = config["clip_norm"]
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        optax.scale_by_adam(config["b1"], config["b2"], config["epsilon"]),
        optax.stateless(decay),
        optax.stateless(step),
    )
