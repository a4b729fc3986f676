"""Multi-query associative recall: which architectures can recall, and at what state size?

Papers: Zoology (Arora et al. 2023, arXiv 2312.04927) and Based (Arora et al. 2024, arXiv
2402.18668).

`laptop` (the bare name): five mixers, each after a BaseConv of width 3 as in Based's figure 2, on
sequences of 32 tokens with 4 pairs; 5 × 3 learning rates × 3 seeds. About 4 minutes on 2 CPU cores.

    python -m runners.sweep --config mqar.py

`every`: every causal architecture that is registered, each after a BaseConv as above (Mamba, which
has a convolution of its own, twice), on the smallest cell: 4 pairs in 16 tokens, 3,000 steps. One
to two hours on 2 CPU cores, of which Titans takes half.

    python -m runners.sweep --config mqar.py:every [--only mixer=base_conv+mom]

`patient`: those that `every` leaves short of the answer although they see all pairs, on an easier
cell (half the vocabulary): up to 16,000 steps, width 64 or 128, one learning rate, no weight decay.
It shows whether they can learn the cell at all. The settings were found by trying them on this very
cell, so that its scores are no comparison with those of `every`. Those of width 128 store a pair in
a vector, as a sum of key ⊙ value over the pairs, and not as an outer product: n pairs of random ±1
codes of width D are told apart where D well exceeds n times the logarithm of the vocabulary. The
LRU is there twice: with its GLU, and with S5's output gate, which learns sooner. Two and a half
hours on 2 CPU cores (measured beside other work, and without mamba2).

    python -m runners.sweep --config mqar.py:patient

`figure2`: Zoology's figure 2. Two blocks of one mixer, no channel mixer; widths 64 … 512; (T, n) =
(64, 4), (128, 8), (256, 16), (512, 64); V 8192; 100,000 examples, 64 epochs. For an accelerator:
8,900 PFLOP in 960 trials (`--dry_run` counts them). The paper's picture: attention
near 1.0 at every width, gated convolutions need width to grow with T, Mamba in between.

    python -m runners.sweep --config mqar.py:figure2 [--only mixer=attention]

`based_figure2`: Based's figure 2, recall against state size: one training mixture of five cells up
to T = 256, tested on seven up to T = 1024; 32 epochs. For an accelerator: 640 PFLOP, 372 trials.

    python -m runners.sweep --config mqar.py:based_figure2

What the protocols leave open, or where we differ: the papers pick the learning rate on the data
they report; here it is picked on a validation set of the size of the test set, and everything is
run over 3 seeds. The authors' code drops 10% of the embeddings and stops at 99% validation
accuracy; so do these presets. Their attention also drops 10% of its weights; ours does not. Of
their rows these presets hold the architectures that Seqbench has, and S4D and GLA besides.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

import arch
from configs.base import base

_MIXERS = ("attention", "s4d", "mamba", "gla", "hyena")
_LAPTOP_OPTIONS = {"s4d": {"d_state": 16}, "gla": {"num_heads": 1}}  # states of 2 KiB each

# A width of 32 is one head's: the keys of a head of 8 channels cannot tell 32 keys apart.
_EVERY_OPTIONS = {
    **_LAPTOP_OPTIONS,
    "s4": {"d_state": 16},
    "linear_attention": {"num_heads": 1},
    "retnet": {"num_heads": 1},
    "deltanet": {"num_heads": 1},
    "gated_deltanet": {"num_heads": 1},
    "h3": {"num_heads": 4},  # outer products, of 8 channels each
    "mom": {"num_heads": 1},
    # Half the sequence, so that a window does not see it all.
    "sliding_window": {"window": 8},
    "block_local": {"block": 8},
    "titans_lmm": {"chunk_size": 4},
    "titans_mac": {"segment": 8},
    "titans_mag": {"window": 8, "chunk_size": 4},
    "titans_mal": {"window": 8, "chunk_size": 4},
}
_MAMBA = {"model.mixer": "mamba", "model.mixer_options": {}}  # twice: it has a convolution
_VECTOR_MEMORIES = ("s4d", "s4", "s5", "lru", "hyena", "lstm", "gru", "qlstm")

_LAPTOP_CELL = {
    "vocab_size": 64,
    "length": 32,
    "num_kv_pairs": 4,
    "num_validation_examples": 256,
    "num_test_examples": 500,
}
LAPTOP: dict[str, Any] = {
    "task.options": _LAPTOP_CELL,
    "optimizer.warmup_fraction": 0.05,
    "train.steps": 1000,
    "train.stop_at": 0.999,
}
_EVERY_CELL = _LAPTOP_CELL | {"length": 16}  # no filler: the smallest that 4 pairs fit into
_EVERY = LAPTOP | {"task.options": _EVERY_CELL, "train.steps": 3000}
_PATIENT = LAPTOP | {
    "model.d_model": 128,
    # Of so few contexts an endless supply would hold those of the test set.
    "task.options": _EVERY_CELL | {"vocab_size": 32, "num_train_examples": 90_000},
    "optimizer.weight_decay": 0.0,
    "optimizer.ssm_learning_rate": 1e-2,
    "train.steps": 16_000,
    "train.stop_at": 0.995,
    "train.eval_every": 500,
}

_PAPERS = {
    "model.embedding_dropout": 0.1,
    "optimizer.schedule": "cosine_per_epoch",
    "train.stop_at": 0.99,
    "train.eval_every": None,  # after every epoch
}
_VOCAB_SIZE = 8192


def _figure2_cell(length: int, num_kv_pairs: int, batch_size: int) -> dict[str, Any]:
    return {
        "task.options": {
            "vocab_size": _VOCAB_SIZE,
            "length": length,
            "num_kv_pairs": num_kv_pairs,
            "num_train_examples": 100_000,
            "num_validation_examples": 3_000,
            "num_test_examples": 3_000,
        },
        "train.batch_size": batch_size,
    }


# Zoology's figure 2, left to right.
_FIGURE2_CELLS = (
    _figure2_cell(64, 4, batch_size=512),
    _figure2_cell(128, 8, batch_size=512),
    _figure2_cell(256, 16, batch_size=256),
    _figure2_cell(512, 64, batch_size=128),
)
_FIGURE2 = _PAPERS | _FIGURE2_CELLS[0] | {"model.d_model": 64, "train.epochs": 64}

# (T, n, examples) of Based's figure 2.
_BASED_TRAIN = (
    (64, 4, 100_000),
    (128, 8, 20_000),
    (256, 16, 20_000),
    (256, 32, 20_000),
    (256, 64, 20_000),
)
_BASED_TEST = (
    (64, 4, 1_000),
    (64, 8, 1_000),
    (64, 16, 1_000),
    (128, 32, 1_000),
    (256, 64, 1_000),
    (512, 128, 1_000),
    (1024, 256, 1_000),
)
_BASED_FIGURE2 = _PAPERS | {
    "task.options": {
        "vocab_size": _VOCAB_SIZE,
        "train": _BASED_TRAIN,
        "validation": _BASED_TEST,
        "test": _BASED_TEST,
    },
    "train.batch_size": 256,
    "train.epochs": 32,
    "evaluation.batch_size": 32,
}


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset: one of those that the docstring of this file describes."""
    presets = {
        "laptop": LAPTOP,
        "every": _EVERY,
        "patient": _PATIENT,
        "figure2": _FIGURE2,
        "based_figure2": _BASED_FIGURE2,
    }
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(presets)}")
    study = "mqar" if preset == "laptop" else f"mqar_{preset}"
    return base(study, presets[preset], preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """The trials of the base configuration's preset, as overrides."""
    grids = {
        "laptop": _laptop_grid,
        "every": _every_grid,
        "patient": _patient_grid,
        "figure2": _figure2_grid,
        "based_figure2": _based_grid,
    }
    learning_rates = (3e-3,) if config.preset == "patient" else (1e-3, 3e-3, 1e-2)
    if config.preset.endswith("figure2"):  # four, evenly spaced in the logarithm
        low, high = {"figure2": (-4, -2), "based_figure2": (-3, -1.5)}[config.preset]
        learning_rates = tuple(round(10 ** (low + i * (high - low) / 3), 8) for i in range(4))
    for model in grids[config.preset]():
        for learning_rate, seed in itertools.product(learning_rates, range(3)):
            yield model | {"optimizer.learning_rate": learning_rate, "seed": seed}


def _laptop_grid() -> Iterator[dict[str, Any]]:
    for mixer in _MIXERS:
        yield _after_conv(mixer, _LAPTOP_OPTIONS)


def _after_conv(mixer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A mixer after a BaseConv, with its options among those given."""
    own = {mixer: options[mixer]} if mixer in options else {}
    return {"model.mixer": ["base_conv", mixer], "model.mixer_options": own}


def _every_grid() -> Iterator[dict[str, Any]]:
    for mixer in arch.names():
        if arch.get(mixer).causal:
            yield _MAMBA if mixer == "mamba" else _after_conv(mixer, _EVERY_OPTIONS)


def _patient_grid() -> Iterator[dict[str, Any]]:
    for model in (_after_conv("titans_mac", _EVERY_OPTIONS), _MAMBA, _after_conv("mamba2", {})):
        yield model | {"model.d_model": 64}
    for mixer in _VECTOR_MEMORIES:
        yield _after_conv(mixer, _EVERY_OPTIONS)
    yield _after_conv("lru", {"lru": {"output": "gate"}})


def _figure2_grid() -> Iterator[dict[str, Any]]:
    for cell, d_model, mixer in itertools.product(_FIGURE2_CELLS, (64, 128, 256, 512), _MIXERS):
        yield cell | {
            "model.mixer": mixer,
            "model.d_model": d_model,
            # As published: learned positions for attention, none for the others.
            "model.position_embedding": mixer == "attention",
            "model.mixer_options": {"positions": "none"} if mixer == "attention" else {},
        }


def _based_grid() -> Iterator[dict[str, Any]]:
    """Mixers after a BaseConv of width 3; Mamba, which has a convolution of its own, twice."""

    def after_conv(mixer: str, d_model: int, **options: Any) -> dict[str, Any]:
        return {
            "model.mixer": ["base_conv", mixer],
            "model.d_model": d_model,
            "model.mixer_options": {mixer: options} if options else {},
        }

    for d_model in (64, 128):
        yield after_conv("attention", d_model, positions="none")
    for window in (8, 16, 32, 64, 128, 256, 512, 1024):
        yield after_conv("attention", 128, positions="none", window=window)
    for d_model, d_state in itertools.product((64, 128, 256), (8, 16, 24)):
        yield {
            "model.mixer": "mamba",
            "model.d_model": d_model,
            "model.mixer_options": {"d_state": d_state},
        }
    for d_model in (64, 128, 256):
        yield {"model.mixer": "hyena", "model.d_model": d_model, "model.mixer_options": {}}
        yield after_conv("s4d", d_model)
        for num_heads in (1, 4):  # the state of GLA is D² / 2 over its heads
            yield after_conv("gla", d_model, num_heads=num_heads)
