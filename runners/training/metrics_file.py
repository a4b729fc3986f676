"""metrics.jsonl: the learning curves of a population while it trains, one line per trial."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_Curve = Mapping[
    str, list[Any]
]  # "step" and, per metric, a list over evaluations of lists over trials


class MetricsFile:
    """The file in a population's folder.

    Args:
      folder: of the population.
      ids: of its trials.
    """

    def __init__(self, folder: Path, ids: Sequence[str]):
        self._path, self._ids = folder / "metrics.jsonl", ids

    def write(self, curve: _Curve) -> None:
        """Brings the file to the curve of a checkpoint: what came after is computed again."""
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        rows = range(len(curve["step"]))
        temporary.write_text("".join(self._lines(curve, i) for i in rows))
        os.replace(temporary, self._path)

    def append(self, curve: _Curve) -> None:
        """Adds the last evaluation of the curve."""
        with self._path.open("a") as file:
            file.write(self._lines(curve, len(curve["step"]) - 1))

    def _lines(self, curve: _Curve, index: int) -> str:
        lines = []
        for r, trial in enumerate(self._ids):
            row = {k: v[index] if k == "step" else v[index][r] for k, v in curve.items()}
            lines.append(json.dumps({"trial": trial, **row}) + "\n")
        return "".join(lines)
