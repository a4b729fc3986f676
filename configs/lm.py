"""Language modelling: which architectures model text, and what do they lack?

The text is Python source code (`tasks/text/corpora.py`), byte by byte: names that are introduced
once and used again separate architectures that can recall from those that cannot (Zoology, Arora
et al. 2023, arXiv 2312.04927). Every model sees the same rows in the same order.

`laptop` (the bare name): six architectures of different families, 0.4 to 0.6 million parameters,
one seed; 640 steps of 1,024 bytes, 0.66 MB of text each. About 10 minutes on 2 CPU cores.

    python -m runners.sweep --config lm.py

`seeds`: the same with three seeds, in the same study, so that it adds two to those of `laptop`.

    python -m runners.sweep --config lm.py:seeds

On text of your own, in a file, a folder or a glob (text, .jsonl or .parquet):

    python -m runners.sweep --config lm.py --workdir results/my_text \\
        --config.task.options.corpus='/data/my_text/*.txt'

What decides the score at this size: nobody sees the text often enough to come near the 5-gram
model, which has counted all 14 MB; mixers with a short convolution or gates learn the local
statistics first. Small batches and many steps use the bytes best: attention came to 2.65 bits per
byte with 1,000 steps of 1,024 bytes at a learning rate of 2e-3 (2.86 at 4e-3), and to 3.16 with 300
steps of 4,096 bytes at 3e-3 (one seed and 200 test rows each).

RMS norm, SwiGLU, β₂ = 0.95, clipping at 1, warm-up and a cosine are usual for language models; the
learning rate, the batch and the number of steps are a laptop's. One learning rate for all: it was
chosen on attention, and no row is tuned. A block of Mamba has no separate channel mixer, and
so Mamba has twice the layers (Gu & Dao 2023, arXiv 2312.00752, section 3.4).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.base import base

_LAPTOP: dict[str, Any] = {
    "model.d_model": 128,
    "model.norm": "rms",
    "model.channel_mixer": "swiglu",
    "task.name": "lm",
    "task.options": {"num_validation_rows": 100, "num_long_rows": 32},
    "optimizer.learning_rate": 2e-3,
    "optimizer.b2": 0.95,
    "optimizer.warmup_fraction": 0.1,
    "optimizer.clip_norm": 1.0,
    "train.batch_size": 4,
    "train.steps": 640,
    "train.eval_every": 160,
    "evaluation.batch_size": 25,
}
_MIXERS = ("attention", "gated_deltanet", "gla", "hyena", "lstm", "mamba")


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset: "laptop" or "seeds"."""
    if preset not in ("laptop", "seeds"):
        raise ValueError(f"unknown preset {preset!r}; known: laptop, seeds")
    return base("lm", _LAPTOP, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    """The trials of the base configuration's preset, as overrides."""
    for mixer in _MIXERS:
        for seed in range(3 if config.preset == "seeds" else 1):
            yield {
                "model.mixer": mixer,
                "model.num_layers": 4 if mixer == "mamba" else 2,
                "seed": seed,
            }
