"""The model of a trial."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

import arch
import tasks


def backbone_arguments(config: Mapping[str, Any], task: tasks.Task) -> dict[str, Any]:
    """The arguments of a trial's backbone, all but `rngs`; its task decides inputs and head."""
    options = {k: v for k, v in config["model"].items() if k != "version"}
    return {
        **options,
        "vocab_size": task.vocab_size,
        "num_features": task.num_features,
        "head": task.head,
        "num_classes": task.num_classes,
        "max_length": task.max_length,
    }


def build_model(config: Mapping[str, Any], task: tasks.Task, rngs: nnx.Rngs) -> arch.Backbone:
    """The backbone of a trial, with the inputs and the head that its task needs.

    Raises:
      ValueError: an option that the architecture does not take or cannot honour.
    """
    return arch.Backbone(**backbone_arguments(config, task), rngs=rngs)
