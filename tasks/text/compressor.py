"""Bits a byte of a compressor that has read the training text, a reference for language models."""

import lzma

_PRESET = 9  # of xz: 15 MB take 9 to 10 s on one core; PRESET_EXTREME gains half a percent
_MAX_DICTIONARY = 1536 << 20  # bytes, the most that liblzma encodes with


def xz_bits_per_byte(train: bytes, test: bytes, *, max_train_bytes: int = 1 << 24) -> float:
    """Bits that LZMA, the algorithm of xz, needs for a byte of test text after the training text.

    That is the compressed size of both less that of the training text alone, without container. The
    dictionary spans all of it, so that whatever came before can be referred to. Time grows with the
    training text, which is compressed twice: only its last max_train_bytes are used.

    Raises:
      ValueError: no test text.
    """
    if not test:
        raise ValueError("test is empty; expected at least one byte to predict")
    train = train[max(len(train) - max_train_bytes, 0) :]
    dictionary = min(max(len(train) + len(test), 4096), _MAX_DICTIONARY)
    return 8 * (_size(train + test, dictionary) - _size(train, dictionary)) / len(test)


def _size(text: bytes, dictionary: int) -> int:
    """Compressed size in bytes, with a dictionary of so many."""
    filters = [{"id": lzma.FILTER_LZMA1, "preset": _PRESET, "dict_size": dictionary}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))
