"""Corpora: where documents come from, and the fingerprint that tells one text from another.

A corpus is one of

- "sympy": the Python sources of the wheel sympy 1.14.0, without tests, benchmarks and generated
  code: 14 MB, the same bytes on every machine, read as files and never imported. Source code has
  names that are introduced once and used again, the long-range recall that separates architectures;
- "stdlib": the standard library of this Python, without tests and code tables. It differs between
  Pythons, and so does its fingerprint;
- "tfds:NAME": a text data set of TensorFlow Datasets, such as "tfds:lm1b";
- a file, a folder, a glob, or a list of them: text (a file is a document), ".jsonl" (a line is an
  object with the document as "text") or ".parquet" (a row, likewise).
"""

import dataclasses
import functools
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tasks.batch import Split
from tasks.sources import DataMissingError
from tasks.text import tfds_text

PIECE_BYTES = 2**24  # of a document that are in memory at a time
_SYMPY = "1.14.0"
_SYMPY_LEFT_OUT = {"tests", "benchmarks", "_antlr"}
_STDLIB_LEFT_OUT = {
    *("test", "tests", "idle_test", "encodings", "pgen2", "site-packages", "dist-packages"),
    "__pycache__",
}
_TEXT = "text"  # the field of a JSONL or Parquet row


@dataclasses.dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
      name: for errors.
      pieces: its bytes, in pieces of at most PIECE_BYTES; may be called again.
      split: where the corpus itself says; None leaves it to the content.
    """

    name: str
    pieces: Callable[[], Iterable[bytes]]
    split: Split | None = None


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus that was found.

    Attributes:
      fingerprint: equal for equal text: "sha256:…", or the name and version of a TFDS data set.
      documents: in a fixed order; may be called again.
      num_bytes: of the files.
    """

    fingerprint: str
    documents: Callable[[], Iterator[Document]]
    num_bytes: int


def find(corpus: str | Sequence[str]) -> Corpus:
    """Finds a corpus, and reads it once for its fingerprint.

    Raises:
      DataMissingError: a file, a package or a data set is not here.
    """
    if isinstance(corpus, str):
        if corpus.startswith(tfds_text.PREFIX):
            found = tfds_text.DataSet(corpus.removeprefix(tfds_text.PREFIX))
            documents = functools.partial(_tfds_documents, found)
            return Corpus(found.fingerprint, documents, found.num_bytes)
        if corpus in ("sympy", "stdlib"):
            return _of_files(*(_sympy() if corpus == "sympy" else _stdlib()))
        corpus = [corpus]
    files = sorted({file for pattern in corpus for file in _matching(pattern)})
    return _of_files(Path(os.path.commonpath([file.parent for file in files])), files)


def _tfds_documents(found: tfds_text.DataSet) -> Iterator[Document]:
    for split, name, text in found.documents():
        yield Document(name, functools.partial(_in_pieces, text), split)


def _sympy() -> tuple[Path, list[Path]]:
    advice = f"install it with pip install sympy=={_SYMPY}, or set task.options.corpus to a file"
    try:
        version = importlib.metadata.version("sympy")
    except importlib.metadata.PackageNotFoundError:
        raise DataMissingError(f"the corpus 'sympy' is not here: {advice}") from None
    if version != _SYMPY:
        raise DataMissingError(
            f"the corpus 'sympy' is the text of sympy {_SYMPY}, and {version} is installed: "
            f"{advice}"
        )
    root = Path(importlib.util.find_spec("sympy").submodule_search_locations[0])
    return root, _python_files(root, _SYMPY_LEFT_OUT)


def _stdlib() -> tuple[Path, list[Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    return root, _python_files(root, _STDLIB_LEFT_OUT)


def _python_files(root: Path, left_out: set[str]) -> list[Path]:
    found = (file for file in root.rglob("*.py") if file.is_file())
    return sorted(file for file in found if not left_out & set(file.relative_to(root).parts))


def _matching(pattern: str) -> list[Path]:
    """The files of a path, a folder or a glob."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and file.name[0] != "."]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]
    if not found:
        raise DataMissingError(
            f"the corpus {pattern!r} is not here: expected 'sympy', 'stdlib', 'tfds:NAME', or a "
            "file, folder or glob of text, .jsonl or .parquet"
        )
    return [file.absolute() for file in found]


def _of_files(root: Path, files: Sequence[Path]) -> Corpus:
    """A corpus of files; the fingerprint hashes their names below `root` and their bytes."""
    digest, num_bytes = hashlib.sha256(), 0
    for file in files:
        own, size = hashlib.sha256(), 0
        for piece in _read(file):
            own.update(piece)
            size += len(piece)
        name = file.relative_to(root).as_posix()
        digest.update(json.dumps([name, own.hexdigest()]).encode())
        num_bytes += size
    if not num_bytes:
        raise DataMissingError(f"the corpus has no text: {files[0]} is empty")
    documents = functools.partial(_documents, root, files)
    return Corpus(f"sha256:{digest.hexdigest()}", documents, num_bytes)


def _documents(root: Path, files: Sequence[Path]) -> Iterator[Document]:
    for file in files:
        name = file.relative_to(root).as_posix()
        if not file.is_file():
            raise _gone(file)
        if not file.stat().st_size:
            continue
        if file.suffix == ".jsonl":
            yield from _json_lines(file, name)
        elif file.suffix == ".parquet":
            yield from _parquet_rows(file, name)
        else:
            yield Document(name, functools.partial(_read, file))


def _read(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except FileNotFoundError:
        raise _gone(file) from None


def _gone(file: Path) -> DataMissingError:
    return DataMissingError(
        f"the corpus file {str(file)!r} is gone: put it back, or set task.options.corpus"
    )


def _json_lines(file: Path, name: str) -> Iterator[Document]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                text = json.loads(line)[_TEXT]
                if not isinstance(text, str):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise DataMissingError(
                    f"line {number} of {str(file)!r} is not JSON with a text: expected one object "
                    f'a line, such as {{"{_TEXT}": "…"}}'
                ) from None
            yield Document(f"{name}:{number}", functools.partial(_in_pieces, text.encode()))


def _parquet_rows(file: Path, name: str) -> Iterator[Document]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataMissingError(f"{str(file)!r} needs pyarrow: pip install -e '.[data]'") from None
    with parquet.ParquetFile(file) as table:
        if _TEXT not in table.schema_arrow.names:
            raise DataMissingError(
                f"{str(file)!r} has the columns {', '.join(table.schema_arrow.names)}: expected "
                f"one called {_TEXT!r}"
            )
        number = 0
        for batch in table.iter_batches(columns=[_TEXT]):
            for text in batch.column(0).to_pylist():
                number += 1
                if text:
                    pieces = functools.partial(_in_pieces, text.encode())
                    yield Document(f"{name}:{number}", pieces)


def _in_pieces(text: bytes) -> Iterator[bytes]:
    for start in range(0, len(text), PIECE_BYTES):
        yield text[start : start + PIECE_BYTES]
