"""Sequence architectures behind one interface.

Each file in this folder that defines a mixer registers it by name.
"""

import importlib
import pkgutil

from arch.bidirectional import Bidirectional
from arch.interface import AuxiliaryLoss, Context, SequenceMixer, SSMParam, Undecayed, state_bytes
from arch.model.backbone import Backbone
from arch.model.heads import tied_logits
from arch.model.published_sizes import published
from arch.model.saving import load, save
from arch.registry import build, get, names, packs, register

for _module in pkgutil.iter_modules(__path__):  # a new file in arch/ is known by being there
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AuxiliaryLoss",
    "Backbone",
    "Bidirectional",
    "Context",
    "SSMParam",
    "SequenceMixer",
    "Undecayed",
    "build",
    "get",
    "load",
    "names",
    "packs",
    "published",
    "register",
    "save",
    "state_bytes",
    "tied_logits",
]
