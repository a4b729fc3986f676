"""Tasks. Each file in this folder that defines a task registers it by name."""

import importlib
import pkgutil

from tasks.averages import Average
from tasks.batch import SPLITS, Batch, Split
from tasks.interface import Part, Task
from tasks.metrics import Metric, Slice
from tasks.order import part_schedule
from tasks.registry import build, get, names, register
from tasks.sources import DataMissingError, Given, Shard, Source
from tasks.stored import Rows, StoredTask

for _module in pkgutil.iter_modules(__path__):  # a new file in tasks/ is known by being there
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "SPLITS",
    "Average",
    "Batch",
    "DataMissingError",
    "Given",
    "Metric",
    "Part",
    "Rows",
    "Shard",
    "Slice",
    "Source",
    "Split",
    "StoredTask",
    "Task",
    "build",
    "get",
    "names",
    "part_schedule",
    "register",
]
