"""A corpus as tokens on this machine: found, tokenized once, and told apart by fingerprints."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.batch import Split
from tasks.options import whole
from tasks.sources import DataMissingError, Report
from tasks.text import corpora, store
from tasks.text.tokenizer import Bpe, Bytes, Tokenizer, load_bpe, train_bpe

_BYTES = Bytes()


@dataclasses.dataclass(frozen=True)
class TokenizedText:
    """A corpus and its tokenizer.

    Attributes:
      corpus_name: as `corpora.find` takes it.
      tokenizer_name: "bytes"; "bpe", trained on the training documents; or the JSON file of a
        byte-level tokenizer.
      given_vocab_size: V with the end of a document; None is that of the bytes or of the file.
      section_bytes: documents are cut into sections of so many bytes first; None leaves them whole.
      fingerprint, tokenizer_fingerprint: those that are wanted; None takes what is found.

    Raises:
      ValueError: an impossible value.
    """

    corpus_name: str | Sequence[str]
    tokenizer_name: str = "bytes"
    given_vocab_size: int | None = None
    section_bytes: int | None = None
    fingerprint: str | None = None
    tokenizer_fingerprint: str | None = None

    def __post_init__(self):
        if not isinstance(self.corpus_name, str):
            object.__setattr__(self, "corpus_name", tuple(self.corpus_name))
        size = self.given_vocab_size
        if self.tokenizer_name == "bytes" and size not in (None, _BYTES.vocab_size):
            raise ValueError(
                f"vocab_size={size}: bytes have {_BYTES.vocab_size} with the end of a document; "
                "leave it out, or set tokenizer to 'bpe' or a file"
            )
        if self.tokenizer_name == "bpe":
            whole("vocab_size", size, 257)
        if self.section_bytes is not None:
            whole("section_bytes", self.section_bytes)

    @functools.cached_property
    def corpus(self) -> corpora.Corpus:
        """The text.

        Raises:
          DataMissingError: it is not here, or is not the one that is wanted.
        """
        found = _find(self.corpus_name)
        _check_fingerprint("corpus", self.corpus_name, found.fingerprint, self.fingerprint)
        return found

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The map between text and tokens.

        Raises:
          DataMissingError: as `corpus`, or likewise the tokenizer.
        """
        name = self.tokenizer_name
        if name == "bytes":
            return _BYTES
        found = self._trained() if name == "bpe" else load_bpe(Path(name))
        _check_fingerprint("tokenizer", name, found.fingerprint, self.tokenizer_fingerprint)
        if self.given_vocab_size not in (None, found.vocab_size):
            raise DataMissingError(
                f"the tokenizer {name!r} has {found.vocab_size} ids, expected "
                f"{self.given_vocab_size}: set task.options.vocab_size to that"
            )
        return found

    def _trained(self) -> Bpe:
        """The tokenizer that was trained on this corpus; trains it if there is none."""
        size, cut = self.given_vocab_size, self.section_bytes
        fingerprint = self.fingerprint or self.corpus.fingerprint
        target = store.folder("tokenizers", corpus=fingerprint, section_bytes=cut, vocab_size=size)

        def write(folder: Path) -> None:
            texts = store.training_texts(self.corpus, cut)
            (folder / "tokenizer.json").write_text(train_bpe(texts, size))

        store.make(target, write)
        return load_bpe(target / "tokenizer.json")

    @property
    def vocab_size(self) -> int:
        """V; needs the tokenizer only if it is not given."""
        if self.tokenizer_name == "bytes":
            return _BYTES.vocab_size
        return self.given_vocab_size or self.tokenizer.vocab_size

    def identity(self) -> dict[str, Any]:
        """Options that only the text and the tokenizer tell."""
        found: dict[str, Any] = {"fingerprint": self.corpus.fingerprint}
        if self.tokenizer_name != "bytes":
            found["vocab_size"] = self.vocab_size
            found["tokenizer_fingerprint"] = self.tokenizer.fingerprint
        return found

    def described(self) -> dict[str, Any]:
        """All that determines the tokens; needs no corpus where the fingerprints are given."""
        return {
            "corpus": self.fingerprint or self.corpus.fingerprint,
            "tokenizer": self.tokenizer_fingerprint or self.tokenizer.fingerprint,
            "section_bytes": self.section_bytes,
        }

    def prepare(self, report: Report | None = None) -> None:
        """Writes the tokens, once; raises DataMissingError if there is no such text."""

        def write(folder: Path) -> None:
            store.write(folder, self.corpus, self.tokenizer, self.section_bytes, report)

        store.make(store.folder("tokens", **self.described()), write)

    @functools.cached_property
    def tokens(self) -> dict[Split, store.Tokens]:
        """The tokens of every split."""
        self.prepare()
        return store.read(store.folder("tokens", **self.described()))


@functools.cache
def _find(corpus: str | tuple[str, ...]) -> corpora.Corpus:
    """A corpus, read once in a process: every trial of a study asks for it."""
    return corpora.find(corpus)


def _check_fingerprint(kind: str, name: Any, found: str, wanted: str | None) -> None:
    if wanted not in (None, found):
        raise DataMissingError(
            f"the {kind} {name!r} has changed: its fingerprint is {found}, and these trials have "
            f"{wanted}: bring the old one back, or run in another --workdir"
        )
