"""Interface of every architecture.

A mixer is a causal map with a state: `__call__` is its parallel (training) form, `extend` its
recurrent form, and feeding any partition of a sequence through `extend` gives the same result as
`__call__`. These laws are tested for every registered mixer in tests/arch/test_laws.py.

Letters used throughout `arch`: B batch, T time, D model width, H heads, K key width, V value width,
N state size.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

State = Any  # A pytree of arrays; every leaf that depends on the batch has it as leading axis.


class Undecayed(nnx.Param):
    """A parameter without weight decay: norm gains, biases, decay rates."""


class SSMParam(Undecayed):
    """A, Δ (and B) of a state-space model: no weight decay, and their own learning rate.

    This follows S4 (Gu et al. 2021, arXiv 2111.00396, app. D).
    The optimizer takes `min(learning rate, ssm_learning_rate)` for this type.
    """


class AuxiliaryLoss(nnx.Variable):
    """A scalar that a mixer adds to the training loss, times its own coefficient.

    A mixer sets it as an attribute during a `__call__` with `Context.training`, and only then.
    Before that it is not part of the mixer: it is neither trained nor saved, and a call without
    `training` changes nothing. The backbone keeps the sum over its layers in the same way; after
    the call, `nnx.state(model, AuxiliaryLoss)` holds it.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """Side inputs of a mixer; None means absent.

    Attributes:
      tokens: [B, T] int, the ids behind x (n-gram heads).
      segment_ids: [B, T] int. 0 is padding; a document begins where the id changes, and no state,
        score or filter tap crosses that border.
      padded: the segment ids are those of one document a row, followed by padding.
      rng: a key for dropout and subsampled attention.
      training: the mixers set their `AuxiliaryLoss`. This mutates the model, so it must be built
        inside the same jax transform or passed to it as an argument, not closed over.
    """

    tokens: jax.Array | None = None
    segment_ids: jax.Array | None = None
    rng: jax.Array | None = None
    padded: bool = dataclasses.field(default=False, metadata={"static": True})
    training: bool = dataclasses.field(default=False, metadata={"static": True})


class SequenceMixer(nnx.Module):
    """Base class of every architecture: a map [B, T, D] -> [B, T, D] along time.

    A subclass takes `(d_model, *, rngs, **options)` with a default for every option, and defines
    `__call__`, `initial_state` and `extend`. The backbone fills in two options where a mixer has
    them: `max_length`, the longest sequence, and `num_layers`, the depth of the model. A mixer
    casts its parameters to the dtype of x, so that one set of float32 parameters serves every
    compute dtype.

    Class attributes (properties if an option decides):
      causal: y[:t] does not depend on x[t:]. A mixer with `causal = False` has no recurrent form:
        `initial_state` and `extend` raise. Even if it does not pack, its rows may be padded: the
        segment ids are then those of one document, followed by 0.
      packs: keeps the documents of `Context.segment_ids` apart; otherwise packed input raises. An
        `extend` whose state holds no segment id may refuse it all the same.
      needs_tokens: requires `Context.tokens`.
      channel_mixing: the mixer has its own channel mixing (Mamba), so that a block adds none.
      uses_fft: causality holds up to rounding, not bit by bit.
      paper: its name and, in brackets, authors and year: "GLA (Yang et al. 2023)".
      reference: its address.
      version: part of every trial's configuration; bump it when a change alters what the numbers
        mean.
    """

    causal: ClassVar[bool] = True
    packs: ClassVar[bool] = False
    needs_tokens: ClassVar[bool] = False
    channel_mixing: ClassVar[bool] = False
    uses_fft: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @classmethod
    def components(cls, options: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
        """Return (name, options) of each architecture that a mixer with these options contains.

        Their versions are part of a trial's configuration, too.
        """
        del options
        return []

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        """Apply the parallel form. x and the result: [B, T, D]."""
        raise TypeError(f"{type(self).__name__} must define __call__(x, context)")

    def initial_state(self, batch_size: int, max_length: int) -> State:
        """Return the state before the first token.

        `max_length` (tokens) bounds states that grow with the sequence. States are float32 (or
        complex64) for every dtype of x: the recurrence then rounds like the parallel form, and
        state sizes of different mixers are comparable.
        """
        raise TypeError(f"{type(self).__name__} must define initial_state(batch_size, max_length)")

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        """Apply the recurrent form to a prompt, a chunk or one token.

        x: [B, T >= 1, D]; returns (state, y [B, T, D]).
        """
        raise TypeError(f"{type(self).__name__} must define extend(state, x, context)")

    def require_causal(self) -> None:
        """Raise ValueError if this mixer sees the future, and so has no recurrent form."""
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__} sees the future with these options and so has no "
                "recurrent form: build it with the default ones"
            )

    def refuse_packed(self, context: Context | None, *, in_parts: bool = False) -> None:
        """Raise ValueError if the context has segment ids that this mixer would ignore.

        `in_parts` is for the `extend` of a mixer whose state holds no segment id.
        """
        if context is None or context.segment_ids is None:
            return
        if not self.packs:
            raise ValueError(
                f"{type(self).__name__} cannot keep packed documents apart: give one document per "
                "row, without segment_ids, or choose a mixer with packs = True"
            )
        if in_parts:
            raise ValueError(
                f"{type(self).__name__} cannot keep packed documents apart in extend, because its "
                "state holds no segment id: give one document per row, without segment_ids, or "
                "the whole row to __call__"
            )

    def required_tokens(self, context: Context | None) -> jax.Array:
        """Return the token ids [B, T] behind x; raises ValueError if the context has none."""
        if context is None or context.tokens is None:
            raise ValueError(
                f"{type(self).__name__} compares token ids: give context=arch.Context(tokens=ids), "
                "ids [batch, length] int, or choose a mixer that needs none"
            )
        return context.tokens


def state_bytes(mixer: Any, length: int) -> int:
    """Bytes of one sequence's recurrent state after `length` tokens, from its actual arrays."""
    state = jax.eval_shape(lambda mixer: mixer.initial_state(1, length), mixer)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
