"""Multi-query associative recall."""

import itertools

from ml_collections import ConfigDict

LAPTOP_MIXERS = {"attention": {}, "s4d": {}, "mamba": {}, "gla": {}, "hyena": {}}


def get_config(preset: str = "laptop") -> ConfigDict:
    """The base trial of a preset."""
    return ConfigDict(
        {
            "study": "mqar",
            "preset": preset,
            "seed": 0,
            "model": {
                "mixer": "attention",
                "mixer_options": {},
                "d_model": 64,
                "num_layers": 2,
                "channel_mixer": "none",
                "norm": "layer",
                "position_embedding": False,
                "embedding_dropout": 0.0,
                "compute_dtype": "float32",
                "remat": False,
            },
            "task": {
                "name": "mqar",
                "options": {
                    "vocab_size": 256,
                    "length": 64,
                    "num_kv_pairs": 8,
                    "num_validation_examples": 512,
                    "num_test_examples": 1024,
                },
            },
            "optimizer": {
                "learning_rate": 1e-3,
                "ssm_learning_rate": 1e-3,
                "weight_decay": 0.1,
                "b1": 0.9,
                "b2": 0.999,
                "epsilon": 1e-8,
                "schedule": "cosine",
                "warmup_fraction": 0.05,
                "clip_norm": None,
            },
            "train": {
                "batch_size": 64,
                "steps": 1000,
                "epochs": None,
                "eval_every": 100,
                "stop_above": 0.999,
            },
            "evaluation": {"batch_size": 256},
        }
    )


def sweep(config: ConfigDict):
    """One dictionary of overrides per trial."""
    for mixer, lr, seed in itertools.product(LAPTOP_MIXERS, (1e-3, 3e-3, 1e-2), range(3)):
        yield {
            "model.mixer": mixer,
            "model.mixer_options": LAPTOP_MIXERS[mixer],
            "optimizer.learning_rate": lr,
            "seed": seed,
        }
