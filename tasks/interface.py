"""Interface of a task: data, supervision, metrics and reference scores.

Letters: B batch, T time, P supervised positions per example, V vocabulary, F features.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tasks.averages import Average, token_losses, weighted
from tasks.batch import SPLITS, Batch, Split
from tasks.metrics import ACCURACY, LOSS, Metric, Slice
from tasks.order import epoch_and_position, permuted
from tasks.sources import Given, Report, Source

_EVAL_SEED = (
    2312_04927  # fixes every validation and test set; training draws from the trial's own key
)

_RENAMED = {"anchors": "reference_scores", "anchor_metrics": "reference_metrics"}


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a split in which all examples have one shape; mixtures have several.

    Attributes:
      name: of the slice in metrics, as `tasks.metrics.properties` writes it, such as
        "length=64,num_kv_pairs=4".
      length: T.
      num_examples: how many examples the part holds, at most 2^30; None is an endless supply.
    """

    name: str
    length: int
    num_examples: int | None

    def __post_init__(self):
        if self.num_examples is not None and not 0 < self.num_examples <= 2**30:
            raise ValueError(
                f"part {self.name!r} has num_examples={self.num_examples}: expected 1 to 2**30, or "
                "None for an endless supply"
            )

    def slice_of(self, metric: str) -> Slice:
        """The slice that holds a metric on this part alone; `metric` may be a slice's name."""
        return Slice.parse(f"{metric}/{self.name}" if self.name else metric)


def part_key(key: jax.Array, split: Split, part: int) -> jax.Array:
    """A key for each part of each split: no two draw the same examples."""
    return jax.random.fold_in(jax.random.fold_in(key, SPLITS.index(split)), part)


class Task:
    """Base class of every task.

    Class attributes:
      metric: the primary metric, the one by which hyperparameters are chosen and rows ranked.
      secondary_metrics: others that have a direction or a unit; what is not among them is drawn
        without either.
      needs_causal: the task is meaningless for a mixer that sees the future.
      stores_references: the reference scores are computed from stored data; a study keeps them
        beside its trials, so that its tables need no data.
      slice_notes: a phrase about each slice that is a word, by its properties.
      knows_optimum: the best of the reference scores may be the best possible score.
      stored_unit: of `num_stored_rows`.
      measures_by_position: `metrics` may be given a part of the positions at a time.
      packs: training rows hold several documents, kept apart by `Batch.segment_ids`; a property or
        an attribute of the instance if an option decides.
      head: what the model says: "token", a word at every judged position; "class", one of
        `num_classes` for a sequence; "pair", one for two sequences.
      version: part of every trial's configuration; bump it when a change alters what the numbers
        mean.
      end_token: of a task over text, the token that ends a document and stands before its first; a
        model that decodes it has ended its text. None if there is none.

    A task takes keyword-only options, each with a default, sets `vocab_size` (V), or `num_features`
    (F) where its inputs are features, and `max_length` (the longest T that models are built for),
    and defines `parts`, `example` and `reference_scores`; the rest follows.

    Parts of a test split may be longer than `max_length`: models that have a recurrent form for it
    read them `max_length` tokens at a time, and the others are not tested on them.
    """

    metric: ClassVar[Metric] = ACCURACY
    secondary_metrics: ClassVar[tuple[Metric, ...]] = (LOSS,)
    needs_causal: ClassVar[bool] = True
    packs: bool = False
    head: ClassVar[Literal["token", "class", "pair"]] = "token"
    version: ClassVar[int] = 1
    stores_references: ClassVar[bool] = False
    slice_notes: ClassVar[Mapping[str, str]] = {}
    knows_optimum: ClassVar[bool] = True
    stored_unit: ClassVar[str] = "row"
    measures_by_position: ClassVar[bool] = False
    end_token: ClassVar[int | None] = None

    vocab_size: int | None
    num_features: int | None = None
    num_classes: int | None = None
    max_length: int

    def __init_subclass__(cls, **arguments):
        """Raises TypeError if the class declares what an earlier interface had."""
        super().__init_subclass__(**arguments)
        if not isinstance(cls.metric, Metric):
            raise TypeError(
                f"{cls.__name__}.metric is {cls.metric!r}, expected a tasks.Metric: write "
                f"metric = tasks.Metric({str(cls.metric)!r}), with higher_is_better=False for a "
                "loss"
            )
        for old, new in _RENAMED.items():
            if hasattr(cls, old):
                raise TypeError(f"{cls.__name__}.{old}(): {old}() is now {new}()")

    def parts(self, split: Split) -> tuple[Part, ...]:
        """The parts of a split, in a fixed order."""
        raise TypeError(f"{type(self).__name__} must define parts(split)")

    @property
    def num_stored_rows(self) -> int:
        """Rows that `prepare` must bring to this machine; 0 where nothing is stored."""
        return 0

    def identity(self) -> dict[str, Any]:
        """Options that only the data tell, such as a hash of them.

        A study adds them to the options of its trials when it is planned.

        Raises:
          DataMissingError: the data are not here.
        """
        return {}

    def prepare(self, report: Report | None = None) -> None:
        """Brings stored data to this machine, once: generates or downloads what is not here.

        Args:
          report: told, now and then, how many rows are written, of how many.

        Raises:
          DataMissingError: that is impossible.
        """

    def source(self, split: Split, resident_bytes: int | None = None) -> Source:
        """The source of a split's examples; the trainer asks no more of a task's data.

        resident_bytes: training rows that take more are streamed; None is no limit.
        """
        return Drawn(self, split)

    def example(self, key: jax.Array, split: Split = "train", part: int = 0) -> Batch:
        """One example without its batch axis: a pure, jittable function of the key."""
        raise TypeError(f"{type(self).__name__} must define example(key, split, part)")

    def reference_scores(self) -> dict[str, float]:
        """Scores in `metric` of trivial predictors and, where it is known, of the best possible.

        By name, such as {"chance": 0.1, "oracle": 1.0}.
        """
        raise TypeError(f"{type(self).__name__} must define reference_scores()")

    def reference_notes(self) -> dict[str, str]:
        """Explanation of each reference score by name, {"chance": "names a class at random"}."""
        return {}

    def reference_metrics(self) -> dict[str, dict[str, float]]:
        """Other metrics and slices of the reference predictors, by predictor and slice name."""
        return {}

    def loss(self, logits: jax.Array, batch: Batch) -> Average:
        """The negative log-likelihood of the targets in nats, which training minimises.

        It is an average over the weights of the batch: their sum is its count.

        logits: [B, P, V], what the model says at `batch.loss_positions`.
        """
        return weighted(token_losses(logits, batch.targets), batch.weights)

    def metrics(self, logits: jax.Array, batch: Batch) -> dict[str, Average]:
        """Sums and counts over a batch; holds at least "loss" and the name of `metric`.

        logits: as in `loss`.
        """
        hits = jnp.argmax(logits, -1) == batch.targets
        return {"loss": self.loss(logits, batch), "accuracy": weighted(hits, batch.weights)}

    def derived_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics that are functions of the averages of others, such as a perplexity.

        metrics: averages over a split by name, arrays of one shape.
        """
        return {}

    def encode(self, text: bytes) -> np.ndarray:
        """The tokens of a text, [T >= 1] int32, from `end_token`, as the beginning of a document.

        Raises:
          TypeError: the task is not over text.
        """
        raise TypeError(f"{type(self).__name__} has no text: its tokens are symbols of the task")

    def decode(self, tokens: np.ndarray) -> bytes:
        """The text of tokens [T], nothing for `end_token`; that of a sequence is its parts' joined.

        A token may hold a part of a character, so that the bytes need not be valid UTF-8.

        Raises:
          TypeError: the task is not over text.
        """
        raise TypeError(f"{type(self).__name__} has no text: its tokens are symbols of the task")

    def passage(self, split: Split, place: float, num_bytes: int) -> bytes:
        """Text of the documents of a split, as it stands there from `place` in [0, 1) of it on.

        Up to three bytes at either end are left out where they are no whole character.

        Raises:
          TypeError: the task is not over text.
          ValueError: the split has less than four times as much text, so that passages that are
            half of it apart may have a part in common.
        """
        raise TypeError(f"{type(self).__name__} has no text: its tokens are symbols of the task")

    def sample(
        self, key: jax.Array, batch_size: int, split: Split = "train", part: int = 0
    ) -> Batch:
        """A batch of fresh examples of one part, drawn on the device."""
        keys = jax.random.split(part_key(key, split, part), batch_size)
        return jax.vmap(lambda k: self.example(k, split, part))(keys)

    def train_batch(self, key: jax.Array, step: jax.Array, batch_size: int, part: int = 0) -> Batch:
        """Training batch number `step` of one part; the trainer calls it inside its program.

        An endless part gives fresh examples for ever. A part of N examples is N fold-ins of one
        key, and every epoch visits each once in an order of its own; nothing is stored. An epoch
        that ends within a batch makes no short batch: the rest comes from the next epoch's order.

        Args:
          key: fixes the training set and its order; one key for the whole of training.
          step: int32 scalar, may be traced: the number of batches already drawn from this part.
          batch_size: B.
          part: which part of the training split.
        """
        size = self.parts("train")[part].num_examples
        if size is None:
            return self.sample(jax.random.fold_in(key, step), batch_size, "train", part)
        data_key, order_key = jax.random.split(part_key(key, "train", part))

        def example(epoch: jax.Array, position: jax.Array) -> Batch:
            index = permuted(jax.random.fold_in(order_key, epoch), position, size)
            return self.example(jax.random.fold_in(data_key, index), "train", part)

        return jax.vmap(example)(*epoch_and_position(step, batch_size, size))

    def eval_batch(self, step: jax.Array, batch_size: int, split: Split, part: int = 0) -> Batch:
        """Batch number `step` of a validation or test part, the same examples for every trial.

        Steps 0 … ceil(N / batch_size) − 1 hold each of the part's N examples once; the surplus rows
        of the last have weight 0, so that averages are exact for any batch size.
        """
        size = self.parts(split)[part].num_examples
        if split == "train" or size is None:
            raise ValueError(
                f"split {split!r} is not a fixed finite set: evaluate on 'validation' or 'test'"
            )
        # The generator is named, so that a trial run under another default meets the same examples.
        key = part_key(jax.random.key(_EVAL_SEED, impl="threefry2x32"), split, part)
        index = step * batch_size + jnp.arange(batch_size)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        batch = jax.vmap(lambda k: self.example(k, split, part))(keys)
        return dataclasses.replace(batch, weights=batch.weights * (index < size)[:, None])


@dataclasses.dataclass(frozen=True)
class Drawn(Source):
    """Examples that are drawn inside the program, as pure functions of a key."""

    task: Task
    split: Split

    def train_batch(
        self, given: Given, key: jax.Array, step: jax.Array, batch_size: int, part: int
    ) -> Batch:
        return self.task.train_batch(key, step, batch_size, part)

    def eval_batch(self, given: Given, step: jax.Array, batch_size: int, part: int) -> Batch:
        return self.task.eval_batch(step, batch_size, self.split, part)
