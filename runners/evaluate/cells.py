"""Averages over the examples of a probe, with their 95% intervals, and the scores of guesses."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

import arch
import tasks
from runners.evaluate import scoring
from runners.evaluate.encoding import Encoded, Encoder
from runners.leaderboard.selection import half_width
from tasks.recall import Example, Probe

_Z = float(special.ndtri(0.975))

# A value and the ends of its 95% interval, None where one example has none.
_Estimate = tuple[float, float | None, float | None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the examples of a probe.

    Attributes:
      version: of the probe.
      lengths: tokens of context, query and answer together, at most.
      depths: of the fact; a single 0 for a probe without depth.
      examples: for each length and depth.
      seed: of all draws.
    """

    version: int
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    examples: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Cell:
    """Scores of a model on the examples of one length and depth.

    Attributes:
      length: in tokens.
      depth: None is all of them.
      examples: their number.
      scores: estimates by metric. "exact_match": share of answers that greedy decoding would give;
        "token_accuracy": share of an answer's tokens that are the likeliest after the right ones
        before; "bits_per_byte" of the answers; "control_bits_per_byte": the same after the control
        contexts; "bits_saved": the latter less the former.
      guesses: expected scores by the name of a guess and the metric.
      failure: reason why there are no scores.
    """

    length: int
    depth: float | None
    examples: int = 0
    scores: dict[str, _Estimate] = dataclasses.field(default_factory=dict)
    guesses: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    failure: str | None = None


def measure(model: arch.Backbone, task: tasks.Task, probe: Probe, settings: Settings) -> list[Cell]:
    """The cells of a model: of each length all depths together, then one by one."""
    cells, encoder = [], Encoder(task)
    for length in settings.lengths:
        try:
            scoring.check_length(model, length)
            examples = [
                encoder.draw(probe, length, depth, settings.seed, i * settings.examples + j)
                for i, depth in enumerate(settings.depths)
                for j in range(settings.examples)
            ]
        except ValueError as error:
            cells.append(Cell(length, None, failure=" ".join(str(error).split())))
            continue
        own = [encoder.encode(example, example.context) for example in examples]
        control = [encoder.encode(example, example.control) for example in examples]
        found = scoring.score(model, own + control, length)
        if not np.isfinite(found.bits).all():
            cells.append(Cell(length, None, failure="the model's logits are not finite"))
            continue
        everything = Cell(length, None, len(own), _scores(found, slice(0, len(own))))
        cells.append(dataclasses.replace(everything, guesses=_guesses(probe, examples, own)))
        if probe.has_depth:
            for i, depth in enumerate(settings.depths):
                rows = slice(i * settings.examples, (i + 1) * settings.examples)
                cells.append(Cell(length, depth, settings.examples, _scores(found, rows)))
    return cells


def _scores(found: scoring.Scores, rows: slice) -> dict[str, _Estimate]:
    """Estimates from some of the N examples; found: [2N], the controls after the others."""
    bits, control = (half[rows] for half in np.split(found.bits, 2))
    exact = found.exact[rows]
    return {
        "exact_match": wilson(int(exact.sum()), len(exact)),
        "token_accuracy": _mean(found.accuracy[rows]),
        "bits_per_byte": _mean(bits),
        "control_bits_per_byte": _mean(control),
        "bits_saved": _mean(control - bits),
    }


def wilson(hits: int, count: int) -> _Estimate:
    """A share with the interval of Wilson (1927), which holds for shares near 0 and 1 too."""
    share, square = hits / count, _Z**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    width = _Z * spread / (1 + square / count)
    return share, max(0.0, min(share, centre - width)), min(1.0, max(share, centre + width))


def _mean(values: np.ndarray) -> _Estimate:
    """A mean over examples with the interval of Student's t."""
    mean, width = float(values.mean()), half_width(values.tolist())
    return (mean, None, None) if width is None else (mean, mean - width, mean + width)


def _guesses(
    probe: Probe, examples: Sequence[Example], encoded: Sequence[Encoded]
) -> dict[str, dict[str, float]]:
    """Expected scores of a guess that draws each byte, and of one that draws a candidate."""
    letters = float(len(probe.alphabet))
    found = {
        "any answer": {
            "exact_match": float(np.mean([letters ** -len(e.answer) for e in examples])),
            "token_accuracy": float(np.mean([np.mean(letters**-own.sizes) for own in encoded])),
            "bits_per_byte": math.log2(letters),
        }
    }
    counts = np.array([len(example.candidates) for example in examples])
    if counts.max() > 1:
        sizes = np.array([len(example.answer) for example in examples])
        found["one in context"] = {
            "exact_match": float(np.mean(1 / counts)),
            "bits_per_byte": float(np.mean(np.log2(counts) / sizes)),
        }
    return found
