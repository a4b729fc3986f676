"""Traced hyperparameters of a population, as the training program takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from runners.core.hyperparameters import HYPERPARAMETERS

Hyper = dict[str, jax.Array]  # by name, each [R]


def stack(configs: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The traced hyperparameters of several trials, by name, each [R]."""
    return {
        h.name: np.array([h.of(config) for config in configs], h.dtype) for h in HYPERPARAMETERS
    }


def constant(value: float) -> dict[str, float]:
    """All traced hyperparameters with one value, where only shapes matter."""
    return {hyperparameter.name: value for hyperparameter in HYPERPARAMETERS}
