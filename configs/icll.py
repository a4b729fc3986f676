"""In-context language learning: who can do it, how do they do it, and what fixes the rest?

Paper: "In-context language learning: architectures and algorithms" (Akyürek et al. 2024, arXiv
2401.12973).

`laptop` (the bare name): 6 symbols, automata of 4 or 5 states with 1 or 2 edges, 4 or 5 words of 1
to 5 symbols; two layers of width 32. Attention, GLA, Mamba and the LSTM, each alone and with n-gram
heads as its second layer, and attention after a BaseConv; 3 seeds each. About 25 minutes on 2 CPU
cores. Expected validity: 0.73 for GLA and the LSTM, 0.74 for attention, 0.75 to 0.76 for Mamba and
for all that have n-gram heads or a convolution before attention; the 3-gram predictor has 0.75, and
nothing can be known of the first word.

    python -m runners.sweep --config icll.py

`--keep_weights` keeps what the trials learn, for the probe that looks for n-gram heads:

    python -m runners.sweep --config icll.py --keep_weights
    python -m runners.probe --workdir results/icll

`paper`: 18 symbols, automata of 4 to 12 states with 1 to 4 edges, 10 to 19 words of 1 to 49
symbols; 1,000 to 40,000 training sequences, 200 epochs; widths 64 … 1024, 1 to 12 layers, two
learning rates. For accelerators: choose with --only. The paper's picture: Transformers come
nearest to the automaton and hold n-gram heads in their later layers; every other architecture stays
behind them, most of all where there are few sequences, and closes much of the gap once n-gram
heads are built in.

    python -m runners.sweep --config icll.py:paper --only mixer=attention --only num_layers=2

What the paper leaves open, or where we differ: hyperparameters are chosen on a validation set of
languages of its own, which are neither those of training nor of test; everything is run over 3
seeds. "3 or 4" edges a state at most: we take 4. N-gram heads take the place of every second layer,
so that rows of equal depth compare. The size of `laptop` was found by trying attention, on
validation data: the smallest at which two layers of it learn, within some thousand steps, to look
up what came before. Its four heads and its learning rate come from there too, and the others share
the rate.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.base import base

LAPTOP_MIXERS = {
    "attention": {"num_heads": 4},
    "gla": {"num_heads": 1},
    "mamba": {},
    "lstm": {},
}
PAPER_MIXERS = (
    "attention",
    "linear_attention",
    "retnet",
    "gla",
    "mamba",
    "h3",
    "hyena",
    "s4",
    "lstm",
)
_PAPER_SIZES = (1_000, 2_500, 5_000, 10_000, 20_000, 40_000)
_HEADED = ("attention", "linear_attention", "retnet", "gla")  # two heads each, as published
_LAPTOP_RATES, _PAPER_RATES = (1e-2,), (2.5e-4, 5e-4)
_NGRAMS = {"ngram": {"orders": (1, 2)}}

_SHARED = {
    "task.name": "icll",
    "optimizer.warmup_fraction": 0.1,
    "optimizer.clip_norm": 1.0,
    "train.eval_every": 500,
}
_LAPTOP = _SHARED | {
    "model.mixer_options": LAPTOP_MIXERS["attention"],
    "task.options": {
        "num_symbols": 6,
        "states": (4, 5),
        "symbols": (5, 6),
        "edges": (1, 2),
        "words": (4, 5),
        "word_length": (1, 5),
        "num_validation_examples": 256,
        "num_test_examples": 500,
    },
    "optimizer.learning_rate": _LAPTOP_RATES[0],
    "train.steps": 5000,
    "evaluation.batch_size": 128,
}
_PAPER = _SHARED | {
    "model.mixer_options": {"num_heads": 2},
    "model.d_model": 64,
    "model.channel_mixer": "mlp",
    "task.options": {
        "num_symbols": 18,
        "states": (4, 12),
        "symbols": (4, 18),
        "edges": (1, 4),
        "words": (10, 19),
        "word_length": (1, 49),
        "num_train_examples": _PAPER_SIZES[0],
        "num_validation_examples": 500,
        "num_test_examples": 500,
    },
    "optimizer.learning_rate": _PAPER_RATES[0],
    "train.epochs": 200,
    "evaluation.batch_size": 32,
}


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset: one of those that the docstring of this file describes."""
    if preset not in ("laptop", "paper"):
        raise ValueError(f"unknown preset {preset!r}; known: laptop, paper")
    study = "icll" if preset == "laptop" else f"icll_{preset}"
    return base(study, _LAPTOP if preset == "laptop" else _PAPER, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """The trials of the base configuration's preset, as overrides."""
    paper = config.preset == "paper"
    learning_rates = _PAPER_RATES if paper else _LAPTOP_RATES
    for model in _paper_grid() if paper else _laptop_grid():
        for learning_rate, seed in itertools.product(learning_rates, range(3)):
            yield model | {"optimizer.learning_rate": learning_rate, "seed": seed}


def _laptop_grid() -> Iterator[dict[str, Any]]:
    for mixer, options in LAPTOP_MIXERS.items():
        yield {"model.mixer": mixer, "model.mixer_options": options}
        yield _with_ngrams(mixer, options)
    attention = {"attention": LAPTOP_MIXERS["attention"]}
    yield {"model.mixer": ["base_conv", "attention"], "model.mixer_options": attention}


def _with_ngrams(mixer: str, options: dict[str, Any]) -> dict[str, Any]:
    """Every second layer holds n-gram heads."""
    own = {mixer: options} if options else {}
    return {"model.mixer": [mixer, "ngram"], "model.mixer_options": own | _NGRAMS}


def _paper_grid() -> Iterator[dict[str, Any]]:
    for size, mixer, d_model, num_layers in itertools.product(
        _PAPER_SIZES, PAPER_MIXERS, (64, 128, 256, 512, 1024), (1, 2, 4, 8, 12)
    ):
        options = {"num_heads": 2} if mixer in _HEADED else {}
        shape = {
            "task.options.num_train_examples": size,
            "train.eval_every": 10 * math.ceil(size / 32),  # of 200 epochs
            "model.d_model": d_model,
            "model.num_layers": num_layers,
        }
        yield shape | {"model.mixer": mixer, "model.mixer_options": options}
        if num_layers > 1:
            yield shape | _with_ngrams(mixer, options)
