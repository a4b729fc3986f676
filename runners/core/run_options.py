"""Options of a run that change no number of a trial: one line each, with its help text.

`accumulate` alone changes their rounding, and the dropout masks that are drawn.
"""

import argparse
import dataclasses
import types
import typing
from typing import Any


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run; each field is a flag of the command line, explained by its help text."""

    checkpoint_seconds: float = _option(60.0, "seconds of work that a kill may cost (default: 60)")
    population_size: int | None = _option(
        None, "most trials that train as one program, where memory is short (default: no limit)"
    )
    accumulate: int = _option(
        1, "micro-batches per step, where a batch does not fit in memory (default: 1)"
    )
    rerun: bool = _option(False, "run trials that are done; records stay")
    keep_weights: bool = _option(False, "keep what the trials learn, in weights/")
    stream: bool = _option(
        False, "read stored training data while training, even where they fit on the device"
    )
    dry_run: bool = _option(False, "show what would run and how long it may take; write nothing")

    def __post_init__(self):
        if self.population_size is not None and self.population_size < 1:
            raise ValueError(f"--population_size {self.population_size}: expected at least 1")
        if self.accumulate < 1:
            raise ValueError(f"--accumulate {self.accumulate}: expected at least 1")

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """Gives a parser a flag for every field."""
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            flag, help_ = f"--{field.name}", field.metadata["help"]
            kind = hints[field.name]
            if kind is bool:
                parser.add_argument(flag, action="store_true", help=help_)
                continue
            if isinstance(kind, types.UnionType):  # int | None
                kind = typing.get_args(kind)[0]
            parser.add_argument(flag, type=kind, default=field.default, help=help_)

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> "RunOptions":
        """The options among parsed arguments; raises ValueError for an impossible value."""
        return cls(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(cls)})
