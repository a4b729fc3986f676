"""Bits a byte of the compressor, where they are known."""

import numpy as np
import pytest

from tasks.text.compressor import xz_bits_per_byte


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def test_known_text_costs_almost_nothing():
    text = noise(20_000)
    assert xz_bits_per_byte(text, text) < 0.05


def test_noise_costs_its_eight_bits():
    # LZMA models it as literals, a few percent above 8 bits each.
    assert 8 <= xz_bits_per_byte(noise(5000), noise(20_000, seed=1)) < 8.3


def test_the_training_text_helps_from_its_beginning():
    """The dictionary spans all of it: one of 8 MiB, as xz has by default, would not."""
    text = noise(2000)
    train = text + bytes(9 << 20)
    assert xz_bits_per_byte(train, text) < 0.1


def test_without_training_text():
    assert xz_bits_per_byte(b"", b"abcd" * 1000) < 0.1


def test_only_the_last_training_bytes_are_read():
    text, other = noise(2000), noise(3000, seed=1)
    assert xz_bits_per_byte(text + other, text, max_train_bytes=3000) > 8
    assert xz_bits_per_byte(other + text, text, max_train_bytes=3000) < 0.2


def test_empty_test_text():
    with pytest.raises(ValueError, match="test is empty"):
        xz_bits_per_byte(b"abc", b"")
