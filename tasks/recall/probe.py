"""Interface of a recall probe: a context, a query, and the answer that stands in the context.

Language models are evaluated as they are (zero-shot): they were not trained on such examples, and
none is solved in the context.
"""

import abc
import dataclasses
import difflib
import random
from collections.abc import Callable
from typing import ClassVar

# (place in [0, 1), bytes) -> text, as `tasks.Task.passage` gives it of one split.
Passage = Callable[[float, int], bytes]


@dataclasses.dataclass(frozen=True)
class Example:
    """A context, a query and its answer, as text.

    Attributes:
      context: holds the answer once.
      query: follows the context.
      answer: follows the query.
      control: the context with another fact in place of the one asked for, without the answer.
      candidates: answers to all queries that this context has an answer to.
    """

    context: bytes
    query: bytes
    answer: bytes
    control: bytes
    candidates: tuple[bytes, ...]


class Probe(abc.ABC):
    """Source of examples.

    Class attributes:
      about: the probe in a line, for tables.
      alphabet: bytes that an answer is made of; a guess takes all to be equally likely.
      has_depth: examples depend on the depth.
      version: bump it when a change alters the examples.
    """

    about: ClassVar[str]
    alphabet: ClassVar[bytes]
    has_depth: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def draw(self, seed: int, number: int, size: int, depth: float, passage: Passage) -> Example:
        """Example `number` of a seed, the same on every machine; arguments as in `example`."""
        return self.example(random.Random(f"{seed} {number}"), size, depth, passage)

    @abc.abstractmethod
    def example(self, rng: random.Random, size: int, depth: float, passage: Passage) -> Example:
        """One example.

        Args:
          rng: of all draws. Only `random()` gives the same numbers in every Python; use `below`.
          size: bytes of context, query and answer together, at most.
          depth: place of the fact in the context, from 0, its beginning, to 1, its end.
          passage: gives text of the kind that the models were trained on.

        Raises:
          ValueError: no example is so short, or there is too little text.
        """


def below(rng: random.Random, bound: int) -> int:
    """A number from 0 … bound − 1."""
    return int(rng.random() * bound)


def digits(rng: random.Random, count: int) -> bytes:
    """A number of so many digits, which may begin with zeros."""
    return b"".join(b"%d" % below(rng, 10) for _ in range(count))


def too_short(size: int, expected: int) -> ValueError:
    """An error: no example of a probe is so short."""
    return ValueError(f"{size} bytes are too few for an example, expected at least {expected}")


_PROBES: dict[str, Probe] = {}


def register(name: str) -> Callable[[type[Probe]], type[Probe]]:
    """Class decorator that makes a probe known as `name`; raises ValueError if it is taken."""

    def add(cls: type[Probe]) -> type[Probe]:
        if name in _PROBES:
            raise ValueError(f"probe {name!r} is already registered")
        _PROBES[name] = cls()
        return cls

    return add


def names() -> list[str]:
    """Every registered probe, sorted."""
    return sorted(_PROBES)


def get(name: str) -> Probe:
    """The probe of a name; raises ValueError if there is none."""
    if name not in _PROBES:
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
        raise ValueError(f"unknown probe {name!r}: {hint}")
    return _PROBES[name]
