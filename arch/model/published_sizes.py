"""Published language models: backbone arguments and reported parameter counts."""

import difflib
from typing import Any, NamedTuple


class _PublishedModel(NamedTuple):
    """One model of a paper.

    Attributes:
      backbone: arguments of `Backbone` without `max_length`; embedding and head are tied.
      parameters: the reported count; None if the source gives none beyond the name.
      source: of the count.
    """

    backbone: dict[str, Any]
    parameters: int | None
    source: str


def _model(
    mixer: str,
    d_model: int,
    num_layers: int,
    vocab_size: int,
    parameters: float | None,
    source: str,
    *,
    channel_mixer: str = "none",
    norm: str = "rms",
    **options: Any,
) -> _PublishedModel:
    shape = {"mixer": mixer, "d_model": d_model, "num_layers": num_layers, "vocab_size": vocab_size}
    rest = {"channel_mixer": channel_mixer, "norm": norm, "mixer_options": options}
    return _PublishedModel(shape | rest, parameters and int(parameters), source)


_MAMBA = "the authors' checkpoints of arXiv 2312.00752, vocabulary padded to 50,280"
_MAMBA2 = "the authors' checkpoints of arXiv 2405.21060, vocabulary padded to 50,288"
_GPT3 = "depth, width and heads of GPT-3 Small, arXiv 2005.14165, table 2.1; the rest as the others"
_GLA = "arXiv 2312.06635, section 5.1"
_DELTANET = "arXiv 2406.06484, section 5.2"

MODELS: dict[str, _PublishedModel] = {
    "mamba-130m": _model("mamba", 768, 24, 50_280, 129_135_360, _MAMBA),
    "mamba-370m": _model("mamba", 1024, 48, 50_280, 371_516_416, _MAMBA),
    "mamba-790m": _model("mamba", 1536, 48, 50_280, 793_204_224, _MAMBA),
    "mamba-1.4b": _model("mamba", 2048, 48, 50_280, 1_372_178_432, _MAMBA),
    "mamba-2.8b": _model("mamba", 2560, 64, 50_280, 2_768_345_600, _MAMBA),
    "mamba2-130m": _model("mamba2", 768, 24, 50_288, 129e6, _MAMBA2),
    "mamba2-1.3b": _model("mamba2", 2048, 48, 50_288, None, _MAMBA2),
    "transformer-125m": _model(
        "attention", 768, 12, 50_280, None, _GPT3, channel_mixer="swiglu", num_heads=12
    ),
    "transformer-340m": _model(
        "attention", 1024, 24, 32_000, 340e6, _GLA, channel_mixer="swiglu", num_heads=16
    ),
    "transformer-1.3b": _model(
        "attention", 2048, 24, 32_000, 1.3e9, _GLA, channel_mixer="swiglu", num_heads=16
    ),
    "gla-340m": _model("gla", 1024, 24, 32_000, 340e6, _GLA, channel_mixer="swiglu", num_heads=4),
    "gla-1.3b": _model("gla", 2048, 24, 32_000, 1.3e9, _GLA, channel_mixer="swiglu", num_heads=4),
    "deltanet-340m": _model(
        "deltanet", 1024, 24, 32_000, 340e6, _DELTANET, channel_mixer="swiglu", num_heads=8
    ),
    "deltanet-1.3b": _model(
        "deltanet", 2048, 24, 32_000, 1.3e9, _DELTANET, channel_mixer="swiglu", num_heads=16
    ),
    "sparse-transformer-95m": _model(
        "sparse_fixed",
        512,
        30,
        256,
        95e6,
        "arXiv 1904.10509, section 7.2 (enwik8)",
        channel_mixer="mlp",
        norm="layer",
        num_heads=8,
        stride=128,
        summary=32,
    ),
}


def published(name: str) -> _PublishedModel:
    """Return the published model of this name; ValueError with the nearest known one if unknown."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MODELS)}"
        raise ValueError(f"unknown published model {name!r}: {hint}")
    return MODELS[name]
