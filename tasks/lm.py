"""Language modelling: prediction of the next byte or token of a text.

Scores are bits per byte of text, which compare over tokenizers: the negative log-likelihood of all
tokens in nats, ends of documents included, divided by ln 2 and by the bytes of text. A test row
lies in one document and is predicted from its own tokens alone.

Letters: B batch, T time, V vocabulary, N rows of a split.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from tasks.averages import Average, token_losses, weighted
from tasks.batch import Batch, Split
from tasks.interface import Part
from tasks.metrics import LOSS, Metric, properties
from tasks.options import whole
from tasks.registry import register
from tasks.sources import DataMissingError, Report, Source
from tasks.stored import StoredTask, StreamedRows
from tasks.text import references, slices, store
from tasks.text.evaluated import EvaluatedRows
from tasks.text.rows import DocumentRows, PackedRows, Rows, spread
from tasks.text.tokenized import TokenizedText

_BITS = "bits_per_byte"
_REFERENCES = "references.json"


@register("lm")
class LanguageModelling(StoredTask):
    """The next token of documents.

    Args:
      corpus: "sympy", "stdlib", "tfds:NAME", or files of text, see `tasks.text.corpora`.
      tokenizer: "bytes"; "bpe", trained on the training documents; or the JSON file of a byte-level
        tokenizer.
      vocab_size: V with the end of a document; None is that of the bytes or of the file.
      section_bytes: documents are cut into sections of so many bytes first; None leaves them whole.
      length: T of training, validation and test rows.
      packing: "document", a training row ends with its document, or "packed", it goes on with the
        next, kept apart by `Batch.segment_ids`. Other splits have one document a row.
      num_validation_rows, num_test_rows: rows of T tokens, evenly spread over their split.
      extrapolation: how many times longer some more test rows are; models read them T tokens at a
        time, in their recurrent form. 1 leaves them out.
      num_long_rows: how many of these.
      ar_context: tokens before a predicted one that must have stood in its row, followed by the
        same token, to make it an associative recall hit; 1 is Zoology's bigram (Arora et al. 2023,
        arXiv 2312.04927).
      fingerprint: of the corpus; found and filled in where a study is planned.
      tokenizer_fingerprint: likewise.
    """

    metric = Metric(_BITS, higher_is_better=False, unit="bits")
    secondary_metrics = (LOSS, Metric("perplexity", higher_is_better=False, digits=2))
    needs_causal: ClassVar[bool] = True
    head: ClassVar[str] = "token"
    slice_notes: ClassVar[Mapping[str, str]] = slices.NOTES
    stored_unit: ClassVar[str] = "byte"
    stores_references: ClassVar[bool] = True
    knows_optimum: ClassVar[bool] = False
    measures_by_position: ClassVar[bool] = True

    def __init__(
        self,
        *,
        corpus: str | Sequence[str] = "sympy",
        tokenizer: str = "bytes",
        vocab_size: int | None = None,
        section_bytes: int | None = None,
        length: int = 256,
        packing: str = "document",
        num_validation_rows: int = 200,
        num_test_rows: int = 400,
        extrapolation: int = 8,
        num_long_rows: int = 50,
        ar_context: int = 4,
        fingerprint: str | None = None,
        tokenizer_fingerprint: str | None = None,
    ):
        if packing not in ("document", "packed"):
            raise ValueError(f"packing={packing!r}: expected 'document' or 'packed'")
        self.text = TokenizedText(
            corpus, tokenizer, vocab_size, section_bytes, fingerprint, tokenizer_fingerprint
        )
        self.max_length, self._packing = whole("length", length), packing
        self._num_validation_rows = whole("num_validation_rows", num_validation_rows)
        self._test = {self.max_length: whole("num_test_rows", num_test_rows)}
        if whole("extrapolation", extrapolation) > 1:
            long = self.max_length * extrapolation
            self._test[long] = whole("num_long_rows", num_long_rows)
        self._ar_context = whole("ar_context", ar_context)

    @property
    def packs(self) -> bool:
        return self._packing == "packed"

    @property
    def vocab_size(self) -> int:
        """V; needs the tokenizer only if the options do not have it."""
        return self.text.vocab_size

    def identity(self) -> dict[str, Any]:
        return self.text.identity()

    @property
    def num_stored_rows(self) -> int:
        return max(1, self.text.corpus.num_bytes)  # 0 of a data set that is yet to be downloaded

    def prepare(self, report: Report | None = None) -> None:
        self.text.prepare(report)
        self._check_sizes()
        store.make(self._reference_folder(), self._write_references)

    def _check_sizes(self) -> None:
        """Raises DataMissingError if a split has fewer rows than are evaluated."""
        settings = []
        for split, length, count in self._eval_sets():
            size = self._rows(split, length).size
            if size < count:
                option = "num_long_rows" if length > self.max_length else f"num_{split}_rows"
                settings.append(f"{option}={size}" if size else "extrapolation=1")
        if settings:
            flags = " ".join(f"--config.task.options.{setting}" for setting in settings)
            raise DataMissingError(
                f"the text is too short for so many rows of {self.max_length} tokens: add text, or "
                f"evaluate on all there are with {flags}"
            )

    def _eval_sets(self) -> list[tuple[Split, int, int]]:
        """(split, length, rows) of all that is evaluated."""
        validation = [("validation", self.max_length, self._num_validation_rows)]
        return validation + [("test", length, count) for length, count in self._test.items()]

    def _rows(self, split: Split, length: int) -> Rows:
        """Rows of a split; the long ones are whole."""
        if split == "train" and self._packing == "packed":
            return PackedRows(self.text.tokens[split], length)
        return DocumentRows(self.text.tokens[split], length, whole=length > self.max_length)

    @functools.cached_property
    def _train_rows(self) -> Rows:
        return self._rows("train", self.max_length)

    @property
    def num_examples(self) -> dict[str, int]:
        """Rows of the training split, which are read in an order of their own every epoch."""
        return {"train": self._train_rows.size}

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.row_spec(self.max_length)

    def row_spec(self, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        """One row of `length` tokens."""
        dtype = store.dtype_of(self.vocab_size)
        tokens = jax.ShapeDtypeStruct((length + 1,), dtype)
        return {"tokens": tokens, "length": jax.ShapeDtypeStruct((), jnp.int32)}

    def parts(self, split: Split) -> tuple[Part, ...]:
        """Training is endless: how many rows it has is known only where the corpus is."""
        if split == "train":
            return (Part("", self.max_length, None),)
        if split == "validation":
            return (Part("", self.max_length, self._num_validation_rows),)
        return tuple(
            Part(properties(length=length), length, count) for length, count in self._test.items()
        )

    def source(self, split: Split, resident_bytes: int | None = None) -> Source:
        return StreamedRows(self) if split == "train" else EvaluatedRows(self, split)

    def read(self, split: Split, indices: np.ndarray) -> dict[str, Any]:
        rows = self._train_rows if split == "train" else self._rows(split, self.max_length)
        return rows.read(indices)

    def eval_set(self, split: Split, part: int) -> dict[str, Any]:
        """All rows of a part; those of T tokens with their associative recall hits, [N, T] bool."""
        own = self.parts(split)[part]
        rows = self._rows(split, own.length)
        found = rows.read(spread(rows.size, own.num_examples))
        if own.length == self.max_length:
            found["ar_hits"] = slices.recall_hits(
                found["tokens"], found["length"], self._ar_context
            )
        return found

    def slices(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Weights of the slices of evaluated rows by name, "" the whole; each [B, T] or [1, T]."""
        if "ar_hits" in rows:
            return slices.of_recall(rows["ar_hits"])
        return slices.of_positions(rows["tokens"].shape[1] - 1, self.max_length)

    def batch(self, rows: Mapping[str, jax.Array]) -> Batch:
        tokens = rows["tokens"].astype(jnp.int32)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        is_real = jnp.arange(targets.shape[1]) < rows["length"][:, None]
        batch = Batch(inputs, None, targets, is_real.astype(jnp.float32))
        if self._packing == "document":
            return batch
        # An end is read where a document begins.
        ids = 1 + jnp.cumsum(inputs == self.vocab_size - 1, axis=1)
        return dataclasses.replace(batch, segment_ids=jnp.where(is_real, ids, 0))

    def metrics(self, logits: jax.Array, batch: Batch) -> dict[str, Average]:
        nats = token_losses(logits, batch.targets)
        sizes = jnp.asarray(self.bytes_of)[batch.targets]

        def bits(weights: jax.Array) -> Average:
            return Average(jnp.sum(nats * weights) / math.log(2), jnp.sum(sizes * weights))

        each = {"": 1.0} if batch.slices is None else batch.slices
        found = {_slice_name(name): bits(batch.weights * own) for name, own in each.items()}
        return found | ({"loss": weighted(nats, batch.weights)} if "" in each else {})

    @property
    def bytes_of(self) -> np.ndarray:
        """Bytes of text that each token stands for, [V]."""
        return self.text.tokenizer.bytes_of

    def derived_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        return {"perplexity": np.exp(metrics["loss"])} if "loss" in metrics else {}

    def reference_metrics(self) -> dict[str, dict[str, float]]:
        """Bits per byte of n-grams and a compressor, on the very rows that models are tested on.

        Raises:
          DataMissingError: they were not computed on this machine.
        """
        path = self._reference_folder() / _REFERENCES
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            raise DataMissingError(
                "the reference scores of this text are not here: run its study first"
            ) from None
        return {
            name: {_slice_name(piece): value for piece, value in values.items()}
            for name, values in found.items()
        }

    def reference_scores(self) -> dict[str, float]:
        return {name: values[_BITS] for name, values in self.reference_metrics().items()}

    def reference_notes(self) -> dict[str, str]:
        return references.NOTES

    def _reference_folder(self) -> Path:
        options = {"ar_context": self._ar_context, "test": list(self._test.items())}
        return store.folder("references", **self.text.described(), **options)

    def _write_references(self, folder: Path) -> None:
        parts = []
        for part in range(len(self._test)):
            rows = self.eval_set("test", part)
            weights = np.arange(rows["tokens"].shape[1] - 1) < rows["length"][:, None]
            parts.append(references.EvalRows(rows["tokens"], weights, self.slices(rows)))
        found = references.bits_per_byte(self.text.tokens["train"], parts, self.text.tokenizer)
        (folder / _REFERENCES).write_text(json.dumps(found))

    @property
    def end_token(self) -> int:
        """Id of the end of a document, which also stands before the first token."""
        return self.vocab_size - 1

    def encode(self, text: bytes) -> np.ndarray:
        ids = self.text.tokenizer.encode(text).astype(np.int32)
        return np.concatenate([np.array([self.end_token], np.int32), ids])

    def decode(self, tokens: np.ndarray) -> bytes:
        return self.text.tokenizer.decode(tokens)

    def passage(self, split: Split, place: float, num_bytes: int) -> bytes:
        ids = self.text.tokens[split].ids
        if len(ids) < 4 * num_bytes:
            raise ValueError(
                f"the {split} text has {len(ids):,} tokens, expected at least {4 * num_bytes:,} "
                f"for passages of {num_bytes:,} bytes"
            )
        start = int(place * (len(ids) - 2 * num_bytes))  # ends of documents are no text
        text = self.decode(np.asarray(ids[start : start + 2 * num_bytes]))[:num_bytes]
        return text.decode(errors="ignore").encode()


def _slice_name(key: str) -> str:
    return f"{_BITS}/{key}" if key else _BITS
