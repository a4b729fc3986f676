"""Backbone: embedding or linear features → blocks → norm → head.

Letters: B batch, T time, D width, V vocabulary, F features, C classes, P positions, L layers.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch import registry
from arch.interface import AuxiliaryLoss, Context, State
from arch.model.block import NORMS, Block
from arch.model.heads import HEADS, tied_logits
from arch.model.layer_pattern import layer_list, segments
from arch.model.validation import (
    check_choices,
    check_ends,
    check_inputs,
    check_rates,
    check_sizes,
)
from arch.nn.layers import INIT_SCALE, Linear
from arch.nn.layers import dropout as drop


class Backbone(nnx.Module):
    """Token embedding or linear map of features, L residual blocks, final norm, and head.

    Args:
      mixer: name or import path of an architecture, or a sequence of them that is repeated up to
        `num_layers`.
      mixer_options: options of the architecture; for a sequence of mixers, options by mixer name.
      d_model: width D.
      num_layers: L.
      vocab_size: V, if the inputs are ids.
      num_features: F, if they are features; exactly one of the two must be given.
      max_length: the longest sequence in tokens.
      head: "token", logits of the next token, tied to the embedding; "class", logits for a whole
        sequence; "pair", logits for two sequences (see `arch/model/heads.py`).
      num_classes: C, for the heads "class" and "pair".
      channel_mixer: "none", "mlp" or "swiglu".
      norm: "layer" or "rms".
      position_embedding: add a learned embedding of the absolute position.
      embedding_dropout: dropout rate on the embeddings; only used if `Context.rng` is given.
      dropout: dropout rate on the outputs of mixers and channel mixers, likewise.
      compute_dtype: dtype of activations ("float32" or "bfloat16"); parameters stay float32.
      remat: recompute each block in the backward pass instead of storing its activations.

    Raises:
      ValueError: an impossible value.
    """

    def __init__(
        self,
        mixer: str | Sequence[str],
        d_model: int,
        *,
        num_layers: int,
        vocab_size: int | None = None,
        num_features: int | None = None,
        max_length: int,
        head: str = "token",
        num_classes: int | None = None,
        mixer_options: Mapping[str, Any] | None = None,
        channel_mixer: str = "none",
        norm: str = "layer",
        position_embedding: bool = False,
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
        compute_dtype: str = "float32",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        check_sizes(d_model=d_model, num_layers=num_layers)
        check_rates(embedding_dropout=embedding_dropout, dropout=dropout)
        check_choices(channel_mixer, norm, compute_dtype)
        check_ends(vocab_size, num_features, head, num_classes)
        layers = layer_list(mixer, num_layers, mixer_options or {})
        for name, given in layers:
            registry.check_options(name, given)  # also those that are filled in below
        self.num_layers, self.num_features, self.pairs = num_layers, num_features, head == "pair"
        self.embedding_dropout_rate, self.dropout_rate = embedding_dropout, dropout
        self.compute_dtype, self.remat = compute_dtype, remat

        # The order of the draws from `rngs` must not change: it determines the weights of a seed.
        self.embedding = _embedding(vocab_size, d_model, rngs) if num_features is None else None
        self.features = (
            Linear(num_features, d_model, rngs=rngs, use_bias=True) if vocab_size is None else None
        )
        self.position_embedding = (
            _embedding(max_length, d_model, rngs) if position_embedding else None
        )
        self.final_norm = NORMS[norm](d_model)

        def block(layer: tuple[str, dict[str, Any]], key: jax.Array) -> Block:
            name, given = layer
            rngs = nnx.Rngs(key)
            lengths = {"max_length": max_length, "num_layers": num_layers}
            mixer = registry.build(name, d_model, rngs=rngs, **lengths | given)
            return Block(mixer, d_model, norm, channel_mixer, dropout, rngs=rngs)

        def stacked(layer: tuple[str, dict[str, Any]], repeats: int) -> Block:
            keys = jax.random.split(rngs.params(), repeats)
            return jax.vmap(functools.partial(block, layer))(keys)

        # One entry a run; within it one entry a layer of the unit, stacked over its repeats.
        self.runs = nnx.List(
            nnx.List(stacked(layer, repeats) for layer in layers[start : start + unit])
            for start, unit, repeats in segments(layers)
        )
        self.head = None if head == "token" else HEADS[head](d_model, num_classes, rngs=rngs)

    @property
    def causal(self) -> bool:
        """True if every mixer is causal."""
        return all(block.mixer.causal for run in self.runs for block in run)

    def embed(
        self, inputs: jax.Array, start: jax.Array | int = 0, rng: jax.Array | None = None
    ) -> jax.Array:
        """Return the input of the first block, [B, T, D]; `start` is the inputs' first position."""
        if self.features is None:
            x = self.embedding[...][inputs]
        else:
            x = self.features(inputs.astype(jnp.float32))
        if self.position_embedding is not None:
            x = x + jax.lax.dynamic_slice_in_dim(self.position_embedding[...], start, x.shape[1])
        if self.embedding_dropout_rate > 0 and rng is not None:
            x = drop(x, self.embedding_dropout_rate, rng)
        return x.astype(self.compute_dtype)

    def _dropout_keys(self, rng: jax.Array | None) -> list[jax.Array | None]:
        """Return for each run the keys of its layers, [repeats, unit]; None without dropout."""
        if rng is None or self.dropout_rate == 0:
            return [None] * len(self.runs)
        # Not from `rng` itself, which the embeddings and the mixers use.
        keys = jax.random.split(jax.random.fold_in(rng, 2), self.num_layers)
        by_run, start = [], 0
        for run in self.runs:
            stop = start + len(run) * jax.tree.leaves(run)[0].shape[0]
            by_run.append(keys[start:stop].reshape(-1, len(run)))
            start = stop
        return by_run

    def __call__(
        self,
        inputs: jax.Array,
        positions: jax.Array | None = None,
        context: Context | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Return the logits of the next token or of the classes.

        Args:
          inputs: [B, T] int ids or [B, T, F] features; pairs have an axis of size 2 before T and
            are encoded as 2B sequences.
          positions: [B, P] int, the positions at which to compute logits of the next token; None is
            all (P = T). The token head costs P·D·V, which dominates the step of a task with a loss
            at few positions. The other heads ignore this argument.
          context: `tokens` is filled in if the inputs are ids.
          mask: [B, T] bool ([B, 2, T] for pairs), False at padding, which must be at the end of a
            row. Inputs at padding change no class logits and no logits at tokens.

        Returns:
          [B, P, V] float32, or [B, 1, C] for classes.
        """
        check_inputs(inputs, mask, context, self.num_features, self.pairs)
        if self.pairs:
            inputs = inputs.reshape(-1, *inputs.shape[2:])
            mask = None if mask is None else mask.reshape(-1, mask.shape[-1])
        context = self._with_tokens(context, inputs)
        x = self.embed(inputs, 0, context.rng)
        padding = None if mask is None or self.causal else mask.astype(jnp.int32)

        def unit_body(x: jax.Array, layers: Any) -> tuple[jax.Array, nnx.State]:
            unit, keys = layers
            for i, block in enumerate(unit):
                x = block(x, context, rng=None if keys is None else keys[i], padding=padding)
            return x, nnx.state(unit, AuxiliaryLoss)

        losses = []
        for layers in zip(self.runs, self._dropout_keys(context.rng), strict=True):
            body = jax.checkpoint(unit_body) if self.remat else unit_body
            x, stacked = jax.lax.scan(body, x, layers)
            losses += jax.tree.leaves(stacked)
        if losses:
            self.auxiliary_loss = AuxiliaryLoss(sum(map(jnp.sum, losses)))
        if self.head is not None:
            return self.head(self.final_norm(x), mask)
        return self._next_token(x, positions)

    def _next_token(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        """Return the logits of the token after those of x [B, T, D], all or at the positions."""
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], axis=1)
        return tied_logits(self.final_norm(x), self.embedding[...])

    def _require_token_head(self) -> None:
        if self.head is not None:
            raise ValueError(
                f"head is {'pair' if self.pairs else 'class'!r}, which judges whole sequences, "
                "expected 'token' for a model that is fed part by part"
            )

    def initial_state(self, batch_size: int, max_length: int) -> State:
        """Return the state before the first token: position, and states of the blocks, stacked."""
        self._require_token_head()

        def stacked(block: Block) -> State:
            return jax.vmap(lambda b: b.mixer.initial_state(batch_size, max_length))(block)

        return {
            "position": jnp.zeros((), jnp.int32),
            "runs": [[stacked(block) for block in run] for run in self.runs],
        }

    def extend(
        self,
        state: State,
        tokens: jax.Array,
        context: Context | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[State, jax.Array]:
        """Feed tokens [B, T >= 1].

        Args:
          state: from `initial_state` or this method.
          tokens: int.
          context: passed to the mixers.
          positions: [B, P] int, those of the T tokens at which to compute logits, as in `__call__`.

        Returns:
          (state, logits [B, P, V]).
        """
        self._require_token_head()
        check_inputs(tokens, None, context, self.num_features, self.pairs)
        context = self._with_tokens(context, tokens)
        x = self.embed(tokens, state["position"], context.rng)

        # States are carried, not scanned over: a layer's part is replaced in place, where a scan
        # stacks all of them anew. For a cache of keys that would be most of the time of one token.
        def unit_body(carry: tuple[jax.Array, list[State]], layers: Any) -> tuple[Any, None]:
            (x, states), (unit, keys, layer) = carry, layers
            for i, block in enumerate(unit):
                rng = None if keys is None else keys[i]
                own = jax.tree.map(lambda leaf: _at(leaf, layer), states[i])
                own, x = block.extend(own, x, context, rng=rng)
                states[i] = jax.tree.map(
                    lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, layer, 0),
                    states[i],
                    own,
                )
            return (x, states), None

        runs = []
        keys = self._dropout_keys(context.rng)
        for run, run_keys, states in zip(self.runs, keys, state["runs"], strict=True):
            layers = jnp.arange(jax.tree.leaves(run)[0].shape[0])
            (x, states), _ = jax.lax.scan(unit_body, (x, list(states)), (run, run_keys, layers))
            runs.append(states)
        new_state = {"position": state["position"] + tokens.shape[1], "runs": runs}
        return new_state, self._next_token(x, positions)

    def _with_tokens(self, context: Context | None, inputs: jax.Array) -> Context:
        context = Context() if context is None else context
        return context if self.embedding is None else dataclasses.replace(context, tokens=inputs)


def _embedding(rows: int, d_model: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(INIT_SCALE * jax.random.normal(rngs.params(), (rows, d_model)))


def _at(leaf: jax.Array, layer: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False)
