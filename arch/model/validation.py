"""Argument and input validation for `Backbone`.

Letters: B batch, T time, F features.
"""

from typing import Any

import jax
import jax.numpy as jnp

from arch.interface import Context
from arch.model.block import NORMS
from arch.model.heads import HEADS
from arch.nn import options
from arch.nn.channel_mixers import CHANNEL_MIXERS

_COMPUTE_DTYPES = ("float32", "bfloat16")


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless each size, given by its name, is an integer of at least 1."""
    for name, size in sizes.items():
        options.at_least(name, size, 1)


def check_rates(**rates: float) -> None:
    """Raise ValueError unless each dropout rate, given by its name, is in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name} is {rate}, expected a rate of at least 0 and below 1")


def check_choices(channel_mixer: str, norm: str, compute_dtype: str) -> None:
    """Raise ValueError unless the channel mixer, the norm and the dtype are known."""
    options.one_of("channel_mixer", channel_mixer, ("none", *CHANNEL_MIXERS))
    options.one_of("norm", norm, tuple(NORMS))
    options.one_of("compute_dtype", compute_dtype, _COMPUTE_DTYPES)


def check_ends(
    vocab_size: int | None, num_features: int | None, head: str, num_classes: int | None
) -> None:
    """Raise ValueError unless the kind of input and the head fit together."""
    options.one_of("head", head, ("token", *HEADS))
    if (vocab_size is None) == (num_features is None):
        raise ValueError(
            f"vocab_size is {vocab_size} and num_features {num_features}, expected one of them: "
            "vocab_size for ids, num_features for features"
        )
    for name, value in (("vocab_size", vocab_size), ("num_features", num_features)):
        if value is not None:
            options.at_least(name, value, 1)
    if head != "token":
        if num_classes is None:
            raise ValueError(f"num_classes is None, expected a number for the head {head!r}")
        options.at_least("num_classes", num_classes, 2)
    elif num_classes is not None:
        raise ValueError(
            f"num_classes is {num_classes}, expected None for the head 'token', whose classes are "
            "the vocabulary: choose head='class' or 'pair'"
        )
    elif vocab_size is None:
        raise ValueError(
            "head is 'token', which is tied to an embedding, and vocab_size is None: expected "
            "head='class' or 'pair' with num_features"
        )


def check_positions(name: str, length: int, positions: int) -> None:
    """Raise ValueError if a length in tokens, given by its name, exceeds the learned positions."""
    if length > positions:
        raise ValueError(
            f"{name} is {length}, expected at most the {positions} learned positions: build the "
            f"backbone with max_length={length}, or without position_embedding"
        )


def check_inputs(
    inputs: jax.Array,
    mask: jax.Array | None,
    context: Context | None,
    num_features: int | None,
    pairs: bool,
) -> None:
    """Raise ValueError unless a backbone can take the inputs and their mask.

    Args:
      inputs: integer ids [B, T], or floating features [B, T, F]; pairs have an axis of 2 before T.
      mask: bool, the shape of the inputs up to T.
      context: as given by the caller.
      num_features: F, or None for ids.
      pairs: True if the inputs are pairs of sequences.
    """
    axes = [("B", None), *[("2", 2)] * pairs, ("T", None)]
    shape = axes if num_features is None else [*axes, (str(num_features), num_features)]
    kind, words = (
        (jnp.integer, "integer ids")
        if num_features is None
        else (jnp.floating, "floating features")
    )
    fits = inputs.ndim == len(shape) and all(
        size in (None, given) for (_, size), given in zip(shape, inputs.shape, strict=True)
    )
    if not (fits and jnp.issubdtype(inputs.dtype, kind)):
        raise ValueError(
            f"the inputs are {inputs.dtype} {list(inputs.shape)}, expected {words} "
            f"[{', '.join(name for name, _ in shape)}]"
        )
    if mask is None:
        return
    expected = inputs.shape[: len(axes)]
    if mask.dtype != jnp.bool_ or mask.shape != expected:
        raise ValueError(
            f"the mask is {mask.dtype} {list(mask.shape)}, expected bool {list(expected)}, False "
            "at padding"
        )
    if context is not None and context.segment_ids is not None:
        raise ValueError(
            "a mask and context.segment_ids are both given, expected one: a mask for one padded "
            "sequence a row, segment_ids for packed documents"
        )


def check_token_head(head: Any, pairs: bool) -> None:
    """Raise ValueError if a model has a head for whole sequences and is fed part by part."""
    if head is not None:
        raise ValueError(
            f"head is {'pair' if pairs else 'class'!r}, which judges whole sequences, "
            "expected 'token' for a model that is fed part by part"
        )


def check_one_document(context: Context) -> None:
    """Raise ValueError if a model with learned positions is fed packed documents part by part.

    Its state does not know how long ago a document began.
    """
    if context.segment_ids is not None:
        raise ValueError(
            "context.segment_ids are given to extend, and the positions are learned, expected "
            "one document a row, without segment_ids, or position_embedding=False"
        )
