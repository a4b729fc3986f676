"""The one interface behind which every architecture stands.

A mixer is a causal map with a state: `__call__` is its parallel (training) form, `extend` its
recurrent form, and feeding any partition of a sequence through `extend` gives what `__call__`
gives. The laws are tested for every registered mixer in tests/arch/test_laws.py.

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
    """A parameter that weight decay must leave alone: norm gains, biases, decay rates."""


class SSMParam(Undecayed):
    """A state-space model's A, Δ (and B): no weight decay, and a learning rate of their own.

    The recipe is S4's (Gu et al. 2021, arXiv 2111.00396, app. D).
    The optimizer takes `min(learning rate, ssm_learning_rate)` for this type.
    """


class AuxiliaryLoss(nnx.Variable):
    """A scalar that a mixer adds to the training loss, times its own coefficient.

    A mixer sets it as an attribute during a `__call__` whose context says `training`, and only
    then: before, it is no part of the mixer, so that it is neither trained nor saved, and a call
    that does not train changes nothing. The backbone keeps the sum over its layers the same way;
    after the call, `nnx.state(model, AuxiliaryLoss)` holds it.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """Side inputs of a mixer; None means absent.

    Attributes:
      tokens: [B, T] int, the ids behind x (n-gram heads).
      segment_ids: [B, T] int. 0 is padding; where the id changes a document begins, and no state,
        score or filter tap crosses that border.
      rng: a key for dropout and subsampled attention.
      training: the mixers set their `AuxiliaryLoss`, which changes them: give a model that the
        same jax transform built or took as an argument, not one that it closes over.
    """

    tokens: jax.Array | None = None
    segment_ids: jax.Array | None = None
    rng: jax.Array | None = None
    training: bool = dataclasses.field(default=False, metadata={"static": True})


class SequenceMixer(nnx.Module):
    """Base class of every architecture: a map [B, T, D] -> [B, T, D] along time.

    A subclass takes `(d_model, *, rngs, **options)` with a default for every option (a mixer that
    must know the longest sequence takes the option `max_length`, one whose initialisation depends
    on the model's depth the option `num_layers`; the backbone fills them in), and defines
    `__call__`, `initial_state` and `extend`. It casts its parameters to the dtype of x, so that one
    set of float32 parameters serves every compute dtype.

    Class attributes (a property, where an option decides):
      causal: y[:t] does not depend on x[t:]. A mixer with `causal = False` has no recurrent form:
        `initial_state` and `extend` raise. If it does not pack, its rows may still be padded:
        segment ids of one document with 0 behind it.
      packs: honours `Context.segment_ids`; otherwise packed input is refused by name.
      needs_tokens: cannot do without `Context.tokens`.
      channel_mixing: the mixer brings its own channel mixing (Mamba), so that a block adds none.
      uses_fft: causality holds to rounding, not to the bit.
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
        """The architectures that a mixer with these options holds: (name, its options) each.

        Their versions are part of a trial's configuration, too.
        """
        del options
        return []

    def __call__(self, x: jax.Array, context: Context | None = None) -> jax.Array:
        """The parallel form. x, and the result: [B, T, D]."""
        raise TypeError(f"{type(self).__name__} must define __call__(x, context)")

    def initial_state(self, batch_size: int, max_length: int) -> State:
        """The state before the first token.

        `max_length` (tokens) bounds only states that grow with the sequence. The numbers are
        float32 (or complex64) whatever the dtype of x: the recurrence then rounds like the parallel
        form, and state sizes compare like with like.
        """
        raise TypeError(f"{type(self).__name__} must define initial_state(batch_size, max_length)")

    def extend(
        self, state: State, x: jax.Array, context: Context | None = None
    ) -> tuple[State, jax.Array]:
        """The recurrent form: a prompt, a chunk or one token.

        x: [B, T >= 1, D]; returns (state, y [B, T, D]).
        """
        raise TypeError(f"{type(self).__name__} must define extend(state, x, context)")

    def require_causal(self) -> None:
        """Raises ValueError if this mixer sees the future, and so has no recurrent form."""
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__} sees the future with these options and so has no "
                "recurrent form: build it with the default ones"
            )

    def refuse_packed(self, context: Context | None) -> None:
        """Raises ValueError if the context holds several documents that this mixer would mix."""
        if context is not None and context.segment_ids is not None and not self.packs:
            raise ValueError(
                f"{type(self).__name__} cannot keep packed documents apart: give one document per "
                "row, without segment_ids, or choose a mixer with packs = True"
            )

    def required_tokens(self, context: Context | None) -> jax.Array:
        """The token ids [B, T] behind x; raises ValueError if the context has none."""
        if context is None or context.tokens is None:
            raise ValueError(
                f"{type(self).__name__} compares token ids: give context=arch.Context(tokens=ids), "
                "ids [batch, length] int, or choose a mixer that needs none"
            )
        return context.tokens


def state_bytes(mixer: Any, length: int) -> int:
    """Bytes of one sequence's recurrent state after `length` tokens, counted from the real one."""
    state = jax.eval_shape(lambda mixer: mixer.initial_state(1, length), mixer)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
