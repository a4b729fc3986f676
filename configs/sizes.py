"""Cost of the published models at their real size: parameters, memory, FLOPs and speed.

The models are those of `arch/model/published_sizes.py`, each from its paper; the data are those of
multi-query associative recall (Zoology, arXiv 2312.04927), which fit any vocabulary and length. So
few steps teach nothing: read the cost, not the accuracy.

`laptop` (the bare name): the models of about 100 million parameters, 4 steps on one sequence of 128
tokens each. Two minutes and 7 GB on 2 CPU cores.

    python -m runners.sweep --config sizes.py

`paper`: every model, 100 steps on 8 sequences of 2,048 tokens in bfloat16, the length at which most
of them were trained. For an accelerator of 80 GB; never run here.

    python -m runners.sweep --config sizes.py:paper [--only mixer=gla]

Any study takes one of the models by its name, `--config.model=gla-340m`.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

import arch
from arch.model.published_sizes import MODELS
from configs.base import base

_LAPTOP = ("mamba-130m", "mamba2-130m", "sparse-transformer-95m")


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset: "laptop" or "paper"."""
    if preset not in ("laptop", "paper"):
        raise ValueError(f"unknown preset {preset!r}; known: laptop, paper")
    large = preset == "paper"
    steps, batch_size = (100, 8) if large else (4, 1)
    changes = {
        "model.compute_dtype": "bfloat16" if large else "float32",
        "model.remat": large,
        "task.options": {
            "length": 2048 if large else 128,
            "num_kv_pairs": 64 if large else 16,
            "num_validation_examples": 8,
            "num_test_examples": 8,
        },
        "optimizer.warmup_fraction": 0.05,
        "train.batch_size": batch_size,
        "train.steps": steps,
        "train.eval_every": steps,
        "evaluation.batch_size": batch_size,
    }
    return base("sizes_paper" if large else "sizes", changes, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """One trial a model; a byte's vocabulary is too small for the pairs and becomes 512."""
    for name in _LAPTOP if config.preset == "laptop" else MODELS:
        vocab_size = max(512, arch.published(name).backbone["vocab_size"])
        yield {"model": name, "task.options.vocab_size": vocab_size}
