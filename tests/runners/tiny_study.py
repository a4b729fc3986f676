"""A study small enough for tests: it finishes in seconds, and its populations are real."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.base import base


def get_config(preset: str = "plain") -> ConfigDict:
    if preset not in ("plain", "mixture", "stored", "partly"):
        raise ValueError(f"unknown preset {preset!r}: known: mixture, plain, stored, partly")
    options: dict[str, Any] = {
        "vocab_size": 64,
        "length": 16,
        "num_kv_pairs": 2,
        "num_train_examples": 50,
        "num_validation_examples": 24,
        "num_test_examples": 40,
    }
    if preset == "mixture":
        parts = [[16, 2, 40], [24, 3, 30]]
        options = {"vocab_size": 64, "train": parts, "validation": parts, "test": parts}
    name = "mqar"
    if preset in ("stored", "partly"):
        name = "lra_listops"
        options = {
            "max_depth": 3,
            "length": (4, 20),
            "num_train_examples": 50,
            "num_validation_examples": 24,
            "num_test_examples": 40,
        }
    changes = {
        "model.d_model": 16,
        "model.embedding_dropout": 0.1,
        "task.name": name,
        "task.options": options,
        "optimizer.warmup_fraction": 0.1,
        "optimizer.clip_norm": 1.0,
        "train.batch_size": 8,
        "train.steps": 24,
        "train.eval_every": 8,
        "evaluation.batch_size": 16,
    }
    return base("tiny", changes, preset=preset)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    if config.preset == "partly":
        yield {"task.name": "lra_retrieval", "task.options": {}}
        yield {}
        return
    for mixer in ("attention", "gla"):
        for learning_rate in (1e-3, 1e-2):
            for seed in range(2):
                yield {
                    "model.mixer": mixer,
                    "optimizer.learning_rate": learning_rate,
                    "seed": seed,
                }
