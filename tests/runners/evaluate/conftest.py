"""A task over text without data, and models whose answers are known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks

_TEXT = "".join(f"for i in range({i * 31}):\n    print(i)\n" for i in range(2000)).encode()


class Text(tasks.Task):
    """Bytes, or tokens of two bytes where `pairs` are among the words."""

    end_token, max_length = 256, 32

    def __init__(self, *, pairs: tuple[bytes, ...] = ()):
        self._words = {bytes([i]): i for i in range(256)}
        self._words |= {pair: 257 + i for i, pair in enumerate(pairs)}
        self.vocab_size = 257 + len(pairs)

    def encode(self, text):
        ids = [self.end_token]
        while text:
            size = 2 if text[:2] in self._words else 1
            ids.append(self._words[text[:size]])
            text = text[size:]
        return np.array(ids, np.int32)

    def decode(self, tokens):
        words = {number: word for word, number in self._words.items()}
        return b"".join(words.get(int(token), b"") for token in tokens)

    def passage(self, split, place, num_bytes):
        assert split == "test"
        if len(_TEXT) < 4 * num_bytes:
            raise ValueError("too little text")
        start = int(place * (len(_TEXT) - 2 * num_bytes))
        return _TEXT[start : start + num_bytes]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Copier:
    """Says with near certainty the token that followed the last time that 8 tokens were read."""

    embedding: Any = dataclasses.field(default_factory=lambda: jnp.zeros((257, 1)))

    def initial_state(self, batch_size, max_length):
        return jnp.full((batch_size, max_length + 8), -1), jnp.int32(0)

    def extend(self, state, tokens):
        history, position = state
        history = jax.lax.dynamic_update_slice_in_dim(history, tokens, 8 + position, 1)
        width = history.shape[1]
        ends = jnp.arange(8, width)  # the last of 8 tokens
        read = history[:, ends[:, None] - jnp.arange(8)]  # [B, ends, 8]
        now = jax.lax.dynamic_slice_in_dim(read, position, tokens.shape[1], 1)
        alike = (now[:, :, None] == read[:, None]).all(-1)
        earlier = ends[None] < 8 + position + jnp.arange(tokens.shape[1])[:, None]
        last = jnp.max(jnp.where(alike & earlier, ends, 0), axis=-1)
        following = jnp.take_along_axis(history, jnp.minimum(last + 1, width - 1), 1)
        logits = 30.0 * jax.nn.one_hot(following, 257) * (last > 0)[..., None]
        return (history, position + tokens.shape[1]), logits


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Digits:
    """Gives every digit the same probability."""

    embedding: Any = dataclasses.field(default_factory=lambda: jnp.zeros((257, 1)))

    def initial_state(self, batch_size, max_length):
        return jnp.zeros((batch_size, 1))

    def extend(self, state, tokens):
        is_digit = (jnp.arange(257) >= ord("0")) & (jnp.arange(257) <= ord("9"))
        return state, jnp.zeros((*tokens.shape, 257)) + jnp.where(is_digit, 0.0, -1e9)


@pytest.fixture
def text_task():
    return Text


@pytest.fixture
def copier():
    return Copier()


@pytest.fixture
def digits():
    return Digits()
