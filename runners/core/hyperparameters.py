"""The traced hyperparameters: numbers that a compiled training program takes as inputs.

Trials that differ only in these train as one population. Ids, the training program, the selection
of the best trials and the tables read their names from here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """One traced number of a trial.

    Attributes:
      key: its dotted key in a configuration.
      column: its header in a narrow table.
      dtype: in the program.
      tuned: chosen by validation scores. The seed is not: results are averaged over seeds.
    """

    key: str
    column: str
    dtype: Any = np.float32
    tuned: bool = True

    @property
    def name(self) -> str:
        """The last part of the key, as an identifier: "learning_rate"."""
        return self.key.rpartition(".")[2]

    @property
    def words(self) -> str:
        """The name in prose: "learning rate"."""
        return self.name.replace("_", " ")

    def of(self, config: Mapping[str, Any]) -> Any:
        """Its value in a trial's configuration."""
        value: Any = config
        for part in self.key.split("."):
            value = value[part]
        return value


HYPERPARAMETERS = (
    Hyperparameter("seed", "seed", np.uint32, tuned=False),
    Hyperparameter("optimizer.learning_rate", "lr"),
    Hyperparameter("optimizer.weight_decay", "wd"),
)
TUNED = tuple(h for h in HYPERPARAMETERS if h.tuned)
