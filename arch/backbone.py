"""The backbone that stacks mixers: embedding → blocks → norm → next-token head.

Block (pre-norm): x + mixer(norm(x)), then x + channel_mixer(norm(x)) unless there is none, or the
mixer brings its own.
Letters: B batch, T time, D width, V vocabulary, P supervised positions, L layers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch import options, registry
from arch.channel_mixers import CHANNEL_MIXERS
from arch.interface import AuxiliaryLoss, Context, SequenceMixer, State
from arch.layers import INIT_SCALE, LayerNorm, RMSNorm

NORMS = {"layer": LayerNorm, "rms": RMSNorm}


class Block(nnx.Module):
    """One residual block around a mixer."""

    def __init__(
        self, mixer: SequenceMixer, d_model: int, norm: str, channel_mixer: str, *, rngs: nnx.Rngs
    ):
        self.mixer = mixer
        self.mixer_norm = NORMS[norm](d_model)
        adds = channel_mixer != "none" and not mixer.channel_mixing
        self.channel_mixer = CHANNEL_MIXERS[channel_mixer](d_model, rngs=rngs) if adds else None
        self.channel_norm = NORMS[norm](d_model) if adds else None

    def _mix_channels(self, x: jax.Array) -> jax.Array:
        return x if self.channel_mixer is None else x + self.channel_mixer(self.channel_norm(x))

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        return self._mix_channels(x + self.mixer(self.mixer_norm(x), context))

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        state, y = self.mixer.extend(state, self.mixer_norm(x), context)
        return state, self._mix_channels(x + y)


def segments(layers: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Splits a layer list into runs of a repeated unit, as (start, unit length, repeats).

    Each run is one `lax.scan`, so that compile time follows the number of distinct layers and not
    the depth. Greedy: from each position the shortest unit whose repetitions cover the most layers.
    """
    runs, start = [], 0
    while start < len(layers):
        best = (1, 1)
        for unit in range(1, (len(layers) - start) // 2 + 1):
            repeats = 1
            while (
                layers[start + repeats * unit : start + (repeats + 1) * unit]
                == layers[start : start + unit]
            ):
                repeats += 1
            if repeats > 1 and unit * repeats > best[0] * best[1]:
                best = (unit, repeats)
        runs.append((start, *best))
        start += best[0] * best[1]
    return runs


class Backbone(nnx.Module):
    """Token embedding, L residual blocks, final norm and a head tied to the embedding.

    Args:
      mixer: an architecture's name (or import path), or a sequence of names that is repeated to
        `num_layers`.
      mixer_options: the architecture's options; for a sequence of mixers, options by mixer name.
      d_model: width D.
      num_layers: L.
      vocab_size: V.
      max_length: the longest sequence in tokens.
      channel_mixer: "none", "mlp" or "swiglu".
      norm: "layer" or "rms".
      position_embedding: adds a learned embedding of the absolute position.
      embedding_dropout: rate of dropout on the embeddings; acts where `Context.rng` is given.
      compute_dtype: dtype of activations ("float32" or "bfloat16"); parameters stay float32.
      remat: recompute each block in the backward pass instead of storing its activations.

    Raises:
      ValueError: an impossible value, in one line with what was expected.
    """

    def __init__(
        self,
        mixer: str | Sequence[str],
        d_model: int,
        *,
        num_layers: int,
        vocab_size: int,
        max_length: int,
        mixer_options: Mapping[str, Any] | None = None,
        channel_mixer: str = "none",
        norm: str = "layer",
        position_embedding: bool = False,
        embedding_dropout: float = 0.0,
        compute_dtype: str = "float32",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        options.one_of("channel_mixer", channel_mixer, ("none", *CHANNEL_MIXERS))
        options.one_of("norm", norm, tuple(NORMS))
        options.one_of("compute_dtype", compute_dtype, ("float32", "bfloat16"))
        for name, value in (("d_model", d_model), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        layers = layer_list(mixer, num_layers, mixer_options or {})
        for name, given in layers:
            registry.check_options(name, given)  # also those that are filled in below
        self.embedding = nnx.Param(
            INIT_SCALE * jax.random.normal(rngs.params(), (vocab_size, d_model))
        )
        self.position_embedding = (
            nnx.Param(INIT_SCALE * jax.random.normal(rngs.params(), (max_length, d_model)))
            if position_embedding
            else None
        )
        self.dropout_rate = embedding_dropout
        self.compute_dtype = compute_dtype
        self.remat = remat
        self.final_norm = NORMS[norm](d_model)

        def stacked(layer: tuple[str, dict[str, Any]], repeats: int) -> Block:
            def block(key: jax.Array) -> Block:
                rngs = nnx.Rngs(key)
                lengths = {"max_length": max_length, "num_layers": num_layers}
                mixer = registry.build(layer[0], d_model, rngs=rngs, **lengths | layer[1])
                return Block(mixer, d_model, norm, channel_mixer, rngs=rngs)

            return jax.vmap(block)(jax.random.split(rngs.params(), repeats))

        # One entry a run; within it one entry a layer of the unit, stacked over its repeats.
        self.runs = nnx.List(
            nnx.List(stacked(layer, repeats) for layer in layers[start : start + unit])
            for start, unit, repeats in segments(layers)
        )

    @property
    def causal(self) -> bool:
        """Whether every mixer is causal."""
        return all(block.mixer.causal for run in self.runs for block in run)

    def embed(
        self, tokens: jax.Array, start: jax.Array | int = 0, rng: jax.Array | None = None
    ) -> jax.Array:
        """What enters the first block, [B, T, D], for tokens that begin at position `start`."""
        x = self.embedding[...][tokens]
        if self.position_embedding is not None:
            x = x + jax.lax.dynamic_slice_in_dim(
                self.position_embedding[...], start, tokens.shape[1]
            )
        if self.dropout_rate > 0 and rng is not None:
            keep = jax.random.bernoulli(rng, 1 - self.dropout_rate, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout_rate), 0)
        return x.astype(self.compute_dtype)

    def _head(self, x: jax.Array) -> jax.Array:
        return tied_logits(self.final_norm(x), self.embedding[...])

    def __call__(
        self, tokens: jax.Array, positions: jax.Array | None = None, context: Context | None = None
    ) -> jax.Array:
        """Next-token logits.

        Args:
          tokens: [B, T] int.
          positions: [B, P] int: where logits are wanted; None is everywhere (P = T). The head costs
            P·D·V, so that on a task judged at few positions this alone saves most of the step.
          context: `tokens` is filled in.

        Returns:
          [B, P, V] float32.
        """
        context = _with_tokens(context, tokens)
        x = self.embed(tokens, 0, context.rng)

        def unit_body(x: jax.Array, unit: nnx.List) -> tuple[jax.Array, nnx.State]:
            for block in unit:
                x = block(x, context)
            return x, nnx.state(unit, AuxiliaryLoss)

        losses = []
        for run in self.runs:
            body = jax.checkpoint(unit_body) if self.remat else unit_body
            x, stacked = jax.lax.scan(body, x, run)
            losses += jax.tree.leaves(stacked)
        if losses:
            self.auxiliary_loss = AuxiliaryLoss(sum(map(jnp.sum, losses)))
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], axis=1)
        return self._head(x)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        """The state before the first token: position, and each block's state, stacked."""

        def stacked(block: Block) -> State:
            return jax.vmap(lambda b: b.mixer.initial_state(batch_size, max_length))(block)

        return {
            "position": jnp.zeros((), jnp.int32),
            "runs": [[stacked(block) for block in run] for run in self.runs],
        }

    def extend(
        self, state: State, tokens: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        """Feeds tokens [B, T >= 1]; returns the state and the logits [B, T, V] at each of them."""
        context = _with_tokens(context, tokens)
        x = self.embed(tokens, state["position"], context.rng)

        def unit_body(
            x: jax.Array, unit_and_states: tuple[nnx.List, list[State]]
        ) -> tuple[jax.Array, list[State]]:
            new_states = []
            for block, block_state in zip(*unit_and_states, strict=True):
                block_state, x = block.extend(block_state, x, context)
                new_states.append(block_state)
            return x, new_states

        runs = []
        for run, run_state in zip(self.runs, state["runs"], strict=True):
            x, run_state = jax.lax.scan(unit_body, x, (run, run_state))
            runs.append(run_state)
        new_state = {"position": state["position"] + tokens.shape[1], "runs": runs}
        return new_state, self._head(x)


@jax.custom_vjp
def tied_logits(x: jax.Array, embedding: jax.Array) -> jax.Array:
    """x Eᵀ in float32, as a sum over D in bfloat16 would round what the softmax compares.

    x: [B, P, D]; embedding E: [V, D]. Returns [B, P, V].

    The gradient of E is formed as (xᵀ g)ᵀ, [D, V] before the outer transpose: left to itself, XLA
    transposes g [B·P, V] instead of x, on CPU a third of a whole step of MQAR at V = 8192.
    """
    return jnp.einsum(
        "bpd,vd->bpv", x, embedding.astype(x.dtype), preferred_element_type=jnp.float32
    )


def _tied_logits_fwd(x: jax.Array, embedding: jax.Array) -> tuple[jax.Array, Any]:
    return tied_logits(x, embedding), (x, embedding)


def _tied_logits_bwd(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, embedding = residuals
    g = g.astype(x.dtype)
    dx = jnp.einsum("bpv,vd->bpd", g, embedding.astype(x.dtype))
    transposed = jnp.einsum("bpd,bpv->dv", x, g, preferred_element_type=jnp.float32)
    return dx, jax.lax.optimization_barrier(transposed).T.astype(embedding.dtype)


tied_logits.defvjp(_tied_logits_fwd, _tied_logits_bwd)


def layer_list(
    mixer: str | Sequence[str], num_layers: int, mixer_options: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """The (name, options) of each layer; raises ValueError where pattern and depth do not fit."""
    if isinstance(mixer, str):
        return [(mixer, dict(mixer_options))] * num_layers
    if not mixer or num_layers % len(mixer):
        raise ValueError(
            f"num_layers is {num_layers}, expected a multiple of the {len(mixer)} layers "
            f"of the pattern {list(mixer)}"
        )
    for name in mixer_options:
        if name not in mixer:
            raise ValueError(
                f"mixer options are given for {name!r}, expected one of the pattern {list(mixer)}"
            )
    return [(m, dict(mixer_options.get(m, {}))) for m in mixer] * (num_layers // len(mixer))


def _with_tokens(context: Context | None, tokens: jax.Array) -> Context:
    if context is None:
        return Context(tokens=tokens)
    return dataclasses.replace(context, tokens=tokens)
