"""Metrics with their direction, unit and format, and the slices of a test set they are taken on."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

_Value = int | float | str


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number by which models are judged.

    Attributes:
      name: as in records, without "/".
      higher_is_better: the direction; False for losses.
      unit: of its values, such as "bits"; empty for shares.
      digits: decimal places in tables.
    """

    name: str
    higher_is_better: bool = True
    unit: str = ""
    digits: int = 3

    def __post_init__(self):
        if not self.name or "/" in self.name:
            raise ValueError(f"metric {self.name!r}: expected a name without '/', such as 'loss'")

    def rank(self, score: Any) -> float:
        """Sort key of a score: smaller is better; no score (None) comes last."""
        if score is None:
            return math.inf
        return -float(score) if self.higher_is_better else float(score)

    def better(self, a: Any, b: Any) -> bool:
        """Returns True if score a is strictly better than score b; any score beats None."""
        return self.rank(a) < self.rank(b)

    def reached(self, score: Any, target: Any) -> bool:
        """Returns True if a score is at least as good as a target, in the dtype of the score."""
        return bool(score >= target if self.higher_is_better else score <= target)

    def format(self, score: Any) -> str:
        """A score as tables print it, without the unit."""
        return f"{score:.{self.digits}f}"

    @property
    def heading(self) -> str:
        """Header of a column: the name, with "↓" if smaller is better."""
        return self.name if self.higher_is_better else f"{self.name} ↓"

    @property
    def axis(self) -> str:
        """Label of an axis: the name, the unit, and "↓" if smaller is better."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.name}{unit}" + ("" if self.higher_is_better else " ↓")


ACCURACY = Metric("accuracy")
LOSS = Metric("loss", higher_is_better=False, unit="nats")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A metric on the examples, or positions, of a test set that have certain properties.

    Attributes:
      metric: the metric's name.
      values: the properties by name, ("length", 64); a property that is only a word has no value,
        ("long", None). Without properties the slice is the whole test set.
    """

    metric: str
    values: tuple[tuple[str, _Value | None], ...] = ()

    @classmethod
    def of(cls, metric: str, **values: _Value) -> "Slice":
        """The slice of a metric with these properties."""
        return cls(metric, tuple(values.items()))

    @classmethod
    def parse(cls, name: str) -> "Slice":
        """The slice of this name; `name` of the result is the same text."""
        metric, slash, key = name.partition("/")
        return cls(metric, tuple(map(_property, key.split(","))) if slash else ())

    @property
    def name(self) -> str:
        """The name in records: "accuracy/length=64,num_kv_pairs=4"; of the whole set "accuracy"."""
        return f"{self.metric}/{self.key}" if self.values else self.metric

    @property
    def key(self) -> str:
        """The properties alone: "length=64,num_kv_pairs=4"."""
        return _join(self.values)

    @property
    def is_word(self) -> bool:
        """True if the properties are words alone, without values: such slices make no curve."""
        return bool(self.values) and all(value is None for _, value in self.values)

    @property
    def order(self) -> tuple:
        """Sort key: by the names of the properties, then by values, numbers before texts."""
        found: list[tuple] = [tuple(key for key, _ in self.values)]
        for key, value in self.values:
            text = isinstance(value, str) or value is None
            found.append((1, 0, value or key) if text else (0, value, ""))
        return tuple(found)


def properties(**values: _Value) -> str:
    """Properties as the name of a part: "length=64,num_kv_pairs=4"."""
    return _join(values.items())


def _join(values: Iterable[tuple[str, _Value | None]]) -> str:
    return ",".join(key if value is None else f"{key}={value}" for key, value in values)


def _property(text: str) -> tuple[str, _Value | None]:
    key, equals, value = text.partition("=")
    return (key, _value(value)) if equals else (key, None)


def _value(text: str) -> _Value:
    """A number if that prints as the same text, else the text."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and math.isfinite(number):
            return number
    return text
