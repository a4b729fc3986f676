"""Token store: a corpus as token ids on disk, made once and then read by position.

The folder `$SEQBENCH_DATA` (by default ~/.cache/seqbench) has a folder for each corpus with a
tokenizer. It appears whole or not at all. For each split it holds a file of ids, in which `end`
stands before, between and behind the documents, and a table of the documents.
"""

import codecs
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tasks.batch import SPLITS, Split
from tasks.sources import DataMissingError, Report
from tasks.text.corpora import Corpus, Document
from tasks.text.tokenizer import Tokenizer

_FORMAT = 1  # of the files; part of a folder's name
_HELD_OUT = 0.05  # of the documents for validation, and as many for test


def folder(kind: str, **described: object) -> Path:
    """The folder of something that is described by these values."""
    root = Path(os.environ.get("SEQBENCH_DATA") or Path.home() / ".cache" / "seqbench")
    text = json.dumps(described | {"format": _FORMAT}, sort_keys=True)
    return root / kind / hashlib.sha256(text.encode()).hexdigest()[:24]


def make(target: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder, once: `write` fills a temporary one, which is renamed when it is whole."""
    if target.exists():
        return
    import filelock

    target.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{target}.lock"):
        if target.exists():
            return
        for remains in target.parent.glob(f"{target.name}.unfinished*"):  # of a killed process
            shutil.rmtree(remains)
        temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.unfinished", dir=target.parent))
        try:
            write(temporary)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def dtype_of(vocab_size: int) -> type[np.generic]:
    """The type of stored ids."""
    return np.uint16 if vocab_size <= 2**16 else np.int32


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of a split.

    Attributes:
      ids: [n], `end` before, between and behind the documents; a memory map.
      starts: position of the first token of each document in `ids`, int64.
      lengths: tokens of each document, without `end`, int64.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def read(target: Path) -> dict[Split, Tokens]:
    """The tokens of a folder that `write` has filled."""
    found = {}
    for split in SPLITS:
        table = np.load(target / f"{split}.documents.npy")
        ids = np.load(target / f"{split}.ids.npy", mmap_mode="r")
        found[split] = Tokens(ids, *table)
    return found


def write(
    target: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    section_bytes: int | None,
    report: Report | None = None,
) -> None:
    """Writes the tokens of a corpus into a folder.

    Args:
      target: an empty folder.
      corpus: the documents.
      tokenizer: makes their ids.
      section_bytes: documents are cut into sections of so many bytes, at the ends of lines; each
        then counts as a document. None leaves them whole.
      report: told how many bytes are written, of how many.

    Raises:
      DataMissingError: text that is not UTF-8, or a split without documents.
    """
    dtype = dtype_of(tokenizer.vocab_size)
    tables: dict[Split, list[tuple[int, int]]] = {split: [] for split in SPLITS}
    done = 0
    raw = {split: (target / f"{split}.raw").open("wb") for split in SPLITS}
    try:
        position = dict.fromkeys(SPLITS, 1)
        end = np.array([tokenizer.end], dtype).tobytes()
        for file in raw.values():
            file.write(end)
        for split, pieces in _sections(corpus, section_bytes):
            count = 0
            for piece in pieces:
                ids = tokenizer.encode(piece).astype(dtype)
                raw[split].write(ids.tobytes())
                count += len(ids)
                done += len(piece)
            raw[split].write(end)
            tables[split].append((position[split], count))
            position[split] += count + 1
            if report is not None:
                report(done, max(done, corpus.num_bytes))
    finally:
        for file in raw.values():
            file.close()
    _check_splits(tables, done)
    for split in SPLITS:
        path = target / f"{split}.raw"
        np.save(target / f"{split}.documents.npy", np.array(tables[split], np.int64).T)
        ids = np.memmap(path, dtype, "r")
        np.save(target / f"{split}.ids.npy", ids)
        path.unlink()


def training_texts(corpus: Corpus, section_bytes: int | None) -> Iterator[bytes]:
    """The text of the training documents, in pieces."""
    for split, pieces in _sections(corpus, section_bytes):
        if split == "train":
            yield from pieces


def _check_splits(tables: dict[Split, list[tuple[int, int]]], num_bytes: int) -> None:
    counts = {split: len(table) for split, table in tables.items()}
    if not all(counts.values()):
        size = max(1, min(2**16, num_bytes // 100))
        found = ", ".join(f"{count} for {split}" for split, count in counts.items())
        raise DataMissingError(
            f"the corpus has too few documents to divide ({found}): set "
            f"task.options.section_bytes={size} to cut documents into sections, or add documents"
        )


def _sections(corpus: Corpus, section_bytes: int | None) -> Iterator[tuple[Split, Iterator[bytes]]]:
    """Yields (split, pieces) of every document or section."""
    for document in corpus.documents():
        if section_bytes is None:
            split = document.split or _split_of(document.pieces())
            yield split, _checked(document)
        else:
            for section in _cut(_checked(document), section_bytes):
                yield document.split or _split_of([section]), iter([section])


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Sections of about `size` bytes, cut behind the last line that fits."""
    rest = b""
    for piece in pieces:
        rest += piece
        while len(rest) > size:
            cut = rest.rfind(b"\n", 0, size) + 1 or _character_end(rest, size)
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _character_end(text: bytes, position: int) -> int:
    """The end of the UTF-8 character that `position` is in."""
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position


def _split_of(pieces: Iterator[bytes] | list[bytes]) -> Split:
    """The split by a hash of the content: equal documents share one."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    share = int.from_bytes(digest.digest()[:8]) / 2**64
    return "test" if share < _HELD_OUT else "validation" if share < 2 * _HELD_OUT else "train"


def _checked(document: Document) -> Iterator[bytes]:
    """The pieces of a document, each of whole UTF-8 characters.

    Raises:
      DataMissingError: it is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    for piece in document.pieces():
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise _not_utf8(document, offset - pending + error.start) from None
        offset += len(piece)
        if text:
            yield text.encode()
    if pending := len(decoder.getstate()[0]):
        raise _not_utf8(document, offset - pending)


def _not_utf8(document: Document, offset: int) -> DataMissingError:
    return DataMissingError(
        f"the document {document.name!r} is not UTF-8 at byte {offset:,}: convert it, or leave it "
        "out"
    )
