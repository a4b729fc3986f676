"""Models as files: `model.safetensors` with the arrays, `config.json` with all that rebuilds them.

config.json holds the version of this format, the arguments of `Backbone`, the versions of its
mixers, and in "about" anything else. Arrays are named by their path in the model, such as
"runs.0.0.mixer.query.kernel"; those of a run's layers are stacked, [layers, ...].
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch import registry
from arch.interface import AuxiliaryLoss
from arch.model.backbone import Backbone
from arch.model.layer_pattern import layer_list

_ARRAYS, _CONFIG = "model.safetensors", "config.json"
_FORMAT, _VERSION = "seqbench", 1


def save(
    path: str | os.PathLike[str],
    model: Backbone,
    arguments: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a new folder, which appears whole or not at all.

    Args:
      path: of the folder; it must not exist, or be empty.
      model: a backbone.
      arguments: those that it was built with, all but `rngs`; JSON can hold them.
      about: anything else that is worth keeping, such as where the weights come from; also JSON.

    Raises:
      ValueError: the folder is there, or the arguments are not those of the model.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    arrays = {name: np.asarray(leaf) for name, leaf in _by_name(model).items()}
    flaws = _flaws(arrays, _by_name(_abstract(arguments)))
    if flaws:
        raise ValueError(f"the arguments are not those of the model: {flaws}")
    config = {
        "format": _FORMAT,
        "version": _VERSION,
        "backbone": dict(arguments),
        "mixer_versions": _mixer_versions(arguments),
        "about": dict(about or {}),
    }
    text = json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{str(path)!r} exists: choose another folder, or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        save_file(arrays, temporary / _ARRAYS)
        (temporary / _CONFIG).write_text(text, encoding="utf-8")
        shutil.copymode(temporary / _CONFIG, temporary / _ARRAYS)  # safetensors makes it private
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load(path: str | os.PathLike[str]) -> Backbone:
    """Read a model that `save` or `python -m runners.export` wrote; its logits are the same bits.

    A mixer that is named by an import path (`my_package.my_file:MyMixer`) is imported from where
    Python finds it, which runs that module. This is the one place where reading a model may run
    what the file names: load such models only from people whose code you would run. Registered
    names import nothing.

    Raises:
      ValueError: a file is missing or damaged, of a newer format, its mixers are not those of this
        version, or an array is missing, unknown, or of another shape or dtype.
    """
    path = Path(path)
    config = _config(path / _CONFIG)
    arguments = config["backbone"]
    with _blame(path / _CONFIG):
        abstract = _abstract(arguments)
        current = _mixer_versions(arguments)
    for name, version in config["mixer_versions"].items():
        if current.get(name) != version:
            raise ValueError(
                f"{str(path)!r} holds version {version} of the architecture {name!r}, and here is "
                f"version {current.get(name)}, which computes something else: load it with the "
                "code that it was saved with"
            )
    arrays = _arrays(path / _ARRAYS)
    flaws = _flaws(arrays, _by_name(abstract))
    if flaws:
        raise ValueError(f"{str(path / _ARRAYS)!r} does not fit its {_CONFIG}: {flaws}")
    graphdef, variables = nnx.split(abstract)
    leaves = [jnp.asarray(arrays[name]) for name in _by_name(abstract)]
    return nnx.merge(graphdef, jax.tree.unflatten(jax.tree.structure(variables), leaves))


def _abstract(arguments: Mapping[str, Any]) -> Backbone:
    """The model of these arguments, with shapes and dtypes for arrays."""
    return nnx.eval_shape(lambda: Backbone(**arguments, rngs=nnx.Rngs(0)))


def _by_name(model: Backbone) -> dict[str, Any]:
    """The arrays of a model by name; what a training step left behind is none of them."""
    _, _, variables = nnx.split(model, AuxiliaryLoss, ...)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    names = (jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves)
    return {
        name.removesuffix(".value"): leaf for name, (_, leaf) in zip(names, leaves, strict=True)
    }


def _flaws(arrays: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, what is wrong with arrays of which shapes and dtypes are expected; or nothing."""
    found = []
    for word, names in (
        ("missing", [name for name in expected if name not in arrays]),
        ("unknown", [name for name in arrays if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(f"{word}: {', '.join(names[:3])}{more}")
    for name, like in expected.items():
        own = arrays.get(name)
        if own is not None and (own.shape != like.shape or own.dtype != like.dtype):
            found.append(
                f"{name} is {own.dtype} {list(own.shape)}, expected {like.dtype} {list(like.shape)}"
            )
            break
    return "; ".join(found)


def _mixer_versions(arguments: Mapping[str, Any]) -> dict[str, int]:
    """The versions of the mixers of a model, and of those that they hold, by name."""
    todo = layer_list(
        arguments["mixer"], arguments["num_layers"], arguments.get("mixer_options") or {}
    )
    found: dict[str, int] = {}
    while todo:
        name, options = todo.pop()
        cls = registry.get(name)
        if name not in found:
            found[name] = cls.version
            todo += [(part, dict(own)) for part, own in cls.components(options)]
    return found


def _config(path: Path) -> dict[str, Any]:
    with _blame(path):
        config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise ValueError(f"{str(path)!r} is no model of Seqbench: expected format {_FORMAT!r}")
    if config.get("version") != _VERSION:
        raise ValueError(
            f"{str(path)!r} has version {config.get('version')!r} of the format, expected "
            f"{_VERSION}: load it with the code that wrote it"
        )
    for key in ("backbone", "mixer_versions"):
        if not isinstance(config.get(key), dict):
            raise ValueError(f"{str(path)!r} has no {key!r}, expected an object: export it again")
    return config


def _arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    with _blame(path):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"damaged ({error}): export it again") from error


@contextlib.contextmanager
def _blame(path: Path) -> Iterator[None]:
    """Names the file in whatever is wrong with it, in one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(
            f"no file {str(path)!r}: expected a folder with {_CONFIG} and {_ARRAYS}, as "
            "python -m runners.export writes it"
        ) from error
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{str(path)!r}: {' '.join(str(error).split())}") from error
