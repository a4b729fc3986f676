"""The model of a trial."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

import arch
import tasks


def build_model(config: Mapping[str, Any], task: tasks.Task, rngs: nnx.Rngs) -> arch.Backbone:
    """The backbone of a trial, with the inputs and the head that its task needs.

    Raises:
      ValueError: an option that the architecture does not take or cannot honour.
    """
    options = {k: v for k, v in config["model"].items() if k not in ("mixer", "version")}
    return arch.Backbone(
        config["model"]["mixer"],
        vocab_size=task.vocab_size,
        num_features=task.num_features,
        head=task.head,
        num_classes=task.num_classes,
        max_length=task.max_length,
        rngs=rngs,
        **options,
    )
