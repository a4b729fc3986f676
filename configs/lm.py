"""Language modelling."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.base import base

_RECIPE = {
    "model.norm": "rms",
    "model.channel_mixer": "swiglu",
    "optimizer.b2": 0.95,
    "optimizer.warmup_fraction": 0.1,
    "optimizer.clip_norm": 1.0,
}
LAPTOP = _RECIPE | {
    "task.name": "lm",
    "task.options": {},
    "model.d_model": 128,
    "optimizer.learning_rate": 3e-3,
    "train.batch_size": 16,
    "train.steps": 300,
    "evaluation.batch_size": 25,
}


def get_config(preset: str = "laptop") -> ConfigDict:
    return base("lm", LAPTOP, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    for mixer in (
        "attention",
        ["base_conv", "attention"],
        "mamba",
        "gated_deltanet",
        "lstm",
        "gla",
        "hyena",
        "base_conv",
    ):
        yield {"model.mixer": mixer}
