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
from arch.model import stack
from arch.model.block import NORMS, Block
from arch.model.heads import HEADS, tied_logits
from arch.model.layer_pattern import layer_list, segments
from arch.model.validation import (
    check_choices,
    check_ends,
    check_inputs,
    check_one_document,
    check_positions,
    check_rates,
    check_sizes,
    check_token_head,
)
from arch.nn.documents import document_starts, positions_in_document
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
      position_embedding: add a learned embedding of the absolute position; with
        `Context.segment_ids`, of the position in the document.
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
        self,
        inputs: jax.Array,
        start: jax.Array | int = 0,
        context: Context | None = None,
    ) -> jax.Array:
        """Return the input of the first block, [B, T, D].

        Args:
          inputs: as in `__call__`, pairs as 2B sequences.
          start: first position of the inputs; 0 with segment ids.
          context: of the inputs; its `rng` draws the dropout of the embeddings.

        Raises:
          ValueError: more positions than the learned ones.
        """
        if self.features is None:
            x = self.embedding[...][inputs]
        else:
            x = self.features(inputs.astype(jnp.float32))
        if self.position_embedding is not None:
            x = x + self._positions(x.shape[1], start, document_starts(context))
        rng = None if context is None else context.rng
        if self.embedding_dropout_rate > 0 and rng is not None:
            x = drop(x, self.embedding_dropout_rate, rng)
        return x.astype(self.compute_dtype)

    def _positions(
        self, length: int, start: jax.Array | int, starts: jax.Array | None
    ) -> jax.Array:
        """Return the learned embeddings of the positions, [T, D], or [B, T, D] with `starts`."""
        table = self.position_embedding[...]
        traced = isinstance(start, jax.core.Tracer)
        check_positions("the sequence's length", length + (0 if traced else start), len(table))
        if starts is not None:
            return table[positions_in_document(starts)]
        rows = jax.lax.dynamic_slice_in_dim(table, start, length)
        # As in a full cache: NaN shows up in the output, while a clipped slice would go unnoticed.
        return jnp.where(start + length <= len(table), rows, jnp.nan) if traced else rows

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
        x = self.hidden(inputs, positions, context, mask)
        if self.head is None:
            return tied_logits(x, self.embedding[...])
        if self.pairs and mask is not None:
            mask = mask.reshape(-1, mask.shape[-1])
        return self.head(x, mask)

    def hidden(
        self,
        inputs: jax.Array,
        positions: jax.Array | None = None,
        context: Context | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Return the input of the head, for arguments as in `__call__`.

        Returns:
          [B, P, D] in the dtype of activations; [B or 2B, T, D] for the heads of classes.
        """
        check_inputs(inputs, mask, context, self.num_features, self.pairs)
        if self.pairs:
            inputs = inputs.reshape(-1, *inputs.shape[2:])
            mask = None if mask is None else mask.reshape(-1, mask.shape[-1])
        context = self._with_tokens(context, inputs)
        x = self.embed(inputs, 0, context)
        padding = None if mask is None or self.causal else mask.astype(jnp.int32)

        keys = self._dropout_keys(context.rng)
        x, losses = stack.apply(self.runs, keys, x, context, padding, remat=self.remat)
        if losses:
            self.auxiliary_loss = AuxiliaryLoss(sum(map(jnp.sum, losses)))
        return self._normed(x, positions if self.head is None else None)

    def _normed(self, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], axis=1)
        return self.final_norm(x)

    def initial_state(self, batch_size: int, max_length: int) -> State:
        """Return the state before the first token: position, and states of the blocks, stacked.

        Raises:
          ValueError: `max_length` (tokens) is more than the learned positions.
        """
        check_token_head(self.head, self.pairs)
        if self.position_embedding is not None:
            check_positions("max_length", max_length, len(self.position_embedding[...]))

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

        Raises:
          ValueError: more tokens than learned positions, or segment ids with learned positions:
            the state does not know how long ago a document began.
        """
        check_token_head(self.head, self.pairs)
        check_inputs(tokens, None, context, self.num_features, self.pairs)
        context = self._with_tokens(context, tokens)
        if self.position_embedding is not None:
            check_one_document(context)
        x = self.embed(tokens, state["position"], context)

        keys = self._dropout_keys(context.rng)
        runs, x = stack.extend(self.runs, keys, state["runs"], x, context)
        new_state = {"position": state["position"] + tokens.shape[1], "runs": runs}
        return new_state, tied_logits(self._normed(x, positions), self.embedding[...])

    def _with_tokens(self, context: Context | None, inputs: jax.Array) -> Context:
        context = Context() if context is None else context
        return context if self.embedding is None else dataclasses.replace(context, tokens=inputs)


def _embedding(rows: int, d_model: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(INIT_SCALE * jax.random.normal(rngs.params(), (rows, d_model)))
