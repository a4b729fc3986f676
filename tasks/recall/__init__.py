"""Recall probes. Each file in this folder that defines a probe registers it by name."""

import importlib
import pkgutil

from tasks.recall.probe import Example, Passage, Probe, get, names

for _module in pkgutil.iter_modules(
    __path__
):  # a new file in tasks/recall/ is known by being there
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Example", "Passage", "Probe", "get", "names"]
