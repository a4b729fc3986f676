"""A study of language modelling small enough for tests, on a folder named by TEXTS."""

import os

from configs.base import base


def get_config(preset: str = "plain"):
    return base(
        "text",
        {
            "model.d_model": 16,
            "model.num_layers": 1,
            "task.name": "lm",
            "task.options": {
                "corpus": os.environ["TEXTS"],
                "length": 32,
                "num_validation_rows": 10,
                "num_test_rows": 20,
                "num_long_rows": 2,
                "extrapolation": 4,
            },
            "optimizer.learning_rate": 1e-2,
            "train.batch_size": 4,
            "train.steps": 60,
            "train.eval_every": 20,
            "evaluation.batch_size": 8,
        },
        preset=preset,
    )


def sweep(config):
    for seed in range(2):
        yield {"model.mixer": "gla", "seed": seed}
