"""A task over text small enough for tests, and its study: the bytes of one sentence."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import tasks
from configs.base import base

_TEXT = "Ein Bär, zwei Bären — drei. ".encode()
_LENGTH = 24


class Sentence(tasks.Task):
    """Prediction of the next byte from anywhere in the sentence; token 256 ends a document."""

    vocab_size = 257
    max_length = _LENGTH
    end_token = 256

    def parts(self, split):
        return (tasks.Part("", _LENGTH, None if split == "train" else 8),)

    def example(self, key, split="train", part=0):
        text = jnp.asarray(np.frombuffer(_TEXT, np.uint8), jnp.int32)
        start = jax.random.randint(key, (), 0, len(text))
        tokens = text[(start + jnp.arange(_LENGTH + 1)) % len(text)]
        positions = jnp.arange(_LENGTH)
        return tasks.Batch(tokens[:-1], positions, tokens[1:], jnp.ones(_LENGTH))

    def reference_scores(self):
        return {"chance": 1 / 257}

    def encode(self, text):
        return np.array([self.end_token, *text], np.int32)

    def decode(self, tokens):
        return bytes(int(token) for token in tokens if token != self.end_token)


def get_config(preset: str = "") -> ConfigDict:
    del preset
    changes = {
        "model.d_model": 32,
        "model.mixer": "gla",
        "task.name": "text_study:Sentence",
        "optimizer.learning_rate": 1e-2,
        "train.batch_size": 8,
        "train.steps": 150,
        "train.eval_every": 150,
        "evaluation.batch_size": 8,
    }
    return base("sentence", changes)


def sweep(config: ConfigDict) -> Iterator[dict[str, Any]]:
    del config
    for mixer in ("gla", "attention"):
        yield {"model.mixer": mixer}
