"""Tokenizers: bytes, and byte-level BPE through the library `tokenizers`.

Every tokenizer has one id more than its words, the last: the end of a document, which also stands
before the first token of each.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.sources import DataMissingError

_END = "<|end|>"


class Tokenizer(Protocol):
    """Map between text and token ids.

    Attributes:
      vocab_size: V, with the end of a document.
      end: its id.
      fingerprint: equal for equal tokenizers.
      bytes_of: bytes of text that each id stands for, int32 [V]; 0 for `end`.
    """

    vocab_size: int
    end: int
    fingerprint: str
    bytes_of: np.ndarray

    def encode(self, text: bytes) -> np.ndarray:
        """The ids of a text, without an end."""

    def decode(self, tokens: np.ndarray) -> bytes:
        """The text of ids; `end` is nothing."""


class Bytes:
    """A token is a byte."""

    vocab_size, end, fingerprint = 257, 256, "bytes"

    @property
    def bytes_of(self) -> np.ndarray:
        return (np.arange(self.vocab_size) != self.end).astype(np.int32)

    def encode(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text, np.uint8).astype(np.uint16)

    def decode(self, tokens: np.ndarray) -> bytes:
        tokens = np.asarray(tokens)
        return tokens[tokens != self.end].astype(np.uint8).tobytes()


class Bpe:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: Radford et al. 2019).

    Args:
      text: of the tokenizer's JSON file.
      name: of the file, for errors.

    Raises:
      DataMissingError: the library is not installed, or this is no byte-level tokenizer.
    """

    def __init__(self, text: str, name: str = "tokenizer.json"):
        tokenizers = _library()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself
            raise DataMissingError(
                f"{name!r} is no tokenizer: expected a JSON file of the library tokenizers"
            ) from error
        if type(self._tokenizer.decoder).__name__ != "ByteLevel":
            raise DataMissingError(
                f"the tokenizer {name!r} does not work on bytes, so that its text cannot be "
                "counted: expected a byte-level BPE"
            )
        words = self._tokenizer.get_vocab(with_added_tokens=False)
        added = self._tokenizer.get_vocab(with_added_tokens=True)
        self.end = added.get(_END, len(added))
        self.vocab_size = max(len(added), self.end + 1)
        self.fingerprint = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        # A byte-level word is written with one letter for each byte.
        self.bytes_of = np.zeros(self.vocab_size, np.int32)
        for word, number in words.items():
            self.bytes_of[number] = 0 if number == self.end else len(word)

    def encode(self, text: bytes) -> np.ndarray:
        ids = self._tokenizer.encode(text.decode(), add_special_tokens=False).ids
        return np.array(ids, np.int32)

    def decode(self, tokens: np.ndarray) -> bytes:
        tokens = np.asarray(tokens)
        letters = "".join(map(self._words.__getitem__, tokens[tokens != self.end].tolist()))
        return bytes(map(_byte_of_letter().__getitem__, letters))

    @functools.cached_property
    def _words(self) -> list[str]:
        return [self._tokenizer.id_to_token(i) or "" for i in range(self.vocab_size)]


def train_bpe(texts: Iterable[bytes], vocab_size: int) -> str:
    """Trains a byte-level BPE with `vocab_size` ids; returns its JSON.

    Raises:
      DataMissingError: the library is not installed.
      ValueError: fewer ids than bytes.
    """
    if vocab_size < 257:
        raise ValueError(
            f"vocab_size={vocab_size}: expected at least 257, the bytes and the end of a document"
        )
    tokenizers = _library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(_byte_of_letter()),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(_decoded(texts), trainer)
    tokenizer.add_special_tokens([_END])  # behind the words, so that it is the last id
    return tokenizer.to_str()


def load_bpe(path: Path) -> Bpe:
    """The tokenizer of a file; raises DataMissingError if there is none."""
    try:
        return Bpe(path.read_text(), str(path))
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        raise DataMissingError(
            f"the tokenizer {str(path)!r} is not here: expected 'bytes', 'bpe', or a JSON file of "
            "the library tokenizers"
        ) from None


def _decoded(texts: Iterable[bytes]) -> Iterator[str]:
    for text in texts:
        yield text.decode()


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """Byte by the letter that byte-level BPE writes it with, as GPT-2 does.

    Bytes that print stand for themselves; the others are numbered from U+0100 on.
    """
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in prints]
    letters = {chr(byte): byte for byte in prints}
    return letters | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise DataMissingError(
            "byte-pair encoding needs the library tokenizers: pip install -e '.[data]'"
        ) from None
    return tokenizers
