"""MASFormer: does full attention in a few layers do what full attention in every layer does?

Paper: "Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every
Layer" (Zhang et al. 2023, arXiv 2310.12442). Full attention in a few layers carries what is far
away, attention within blocks in the others what is near; the abstract claims the perplexity of full
attention while "reducing computational cost (up to 75%)" for a decoder of 1.3B parameters.

A layer pattern is all that it takes: `model.mixer` is the list of layers. Compared are full
attention everywhere, blocks everywhere, and full attention in the last or in the first layers. The
task is MQAR, where the answer stands many blocks back.

`laptop` (the bare name): 4 layers of width 32, blocks of 4 in 32 tokens with 4 pairs; 4 patterns by
2 learning rates by 3 seeds. Five minutes on 2 CPU cores. It shows that the patterns run, and little
more: 32 tokens cost all four the same, and within 1,000 steps only full attention in the last layer
learns the task (2 seeds of 3; everywhere or in the first layer 0.27, blocks alone 0.03).

    python -m runners.sweep --config masformer.py

`paper`: the paper's scale, 24 layers of width 2048, blocks of 1024 in 8192 tokens, and full
attention in 4 layers: 27% of the scores that full attention computes. For accelerators; never run
here.

    python -m runners.sweep --config masformer.py:paper

Where we differ: the paper trains language models on arXiv papers and books and continues from
pretrained weights; the task here is synthetic and training starts from nothing. Depth and width of
`paper` are those of GPT-3 XL (1.3B, arXiv 2005.14165, table 2.1).
"""

import itertools
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import mqar
from configs.base import base

# Layers, those of them with full attention, and tokens in a block.
_LAYOUTS = {"laptop": (4, 1, 4), "paper": (24, 4, 1024)}
_PAPER = {
    "model.d_model": 2048,
    "model.channel_mixer": "mlp",
    "model.compute_dtype": "bfloat16",
    "model.remat": True,
    "task.options": mqar.LAPTOP["task.options"]
    | {"vocab_size": 8192, "length": 8192, "num_kv_pairs": 256},
    "train.batch_size": 8,
    "train.steps": 20_000,
    "train.eval_every": 1000,
    "evaluation.batch_size": 8,
}


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset: "laptop" or "paper"."""
    if preset not in _LAYOUTS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(_LAYOUTS)}")
    num_layers, _, _ = _LAYOUTS[preset]
    changes = mqar.LAPTOP | {"model.num_layers": num_layers, "optimizer.learning_rate": 3e-3}
    if preset == "laptop":
        return base("masformer", changes, preset=preset)
    return base("masformer_paper", changes | _PAPER, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """The trials of the base configuration's preset, as overrides."""
    num_layers, num_full, block = _LAYOUTS[config.preset]
    full, local = ["attention"] * num_full, ["block_local"] * (num_layers - num_full)
    patterns = (["attention"], ["block_local"], local + full, full + local)
    heads = {"num_heads": config.model.d_model // 128 if config.preset == "paper" else 1}
    own = {"attention": heads, "block_local": {"block": block} | heads}
    rates = (3e-3, 1e-2) if config.preset == "laptop" else (1e-4, 3e-4)
    for pattern, learning_rate, seed in itertools.product(patterns, rates, range(3)):
        yield {
            "model.mixer": pattern,
            "model.mixer_options": {name: own[name] for name in sorted(set(pattern))},
            "optimizer.learning_rate": learning_rate,
            "seed": seed,
        }
