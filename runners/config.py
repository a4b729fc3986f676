"""Configurations: finding and loading a study, overriding its keys, and resolving it into trials.

Everything that can be wrong with a request is found here, before anything compiles, and raised as
`ConfigError`: one line that names the value, what was expected and the nearest right name.
"""

import ast
import copy
import difflib
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import arch
import tasks
from runners.optimizer import SCHEDULES

# A trial's identity is everything that can change its numbers: these sections and nothing else.
IDENTITY = ("seed", "model", "task", "optimizer", "train", "evaluation")
# Numbers that a compiled training program takes as inputs: trials that differ only here train as
#   one population.
POPULATION_KEYS = ("seed", "optimizer.learning_rate", "optimizer.weight_decay")
# Sections whose keys belong to the architecture or the task, which check them by themselves.
_OPEN = ("model.mixer_options", "task.options")


class ConfigError(ValueError):
    """A request that cannot be right; its message is one line for the person who made it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


class Study:
    """A configuration file with a preset and overrides.

    Args:
      spec: `FILE[:preset]`; the file is looked for in the current folder, then in `configs/` of
        this repository.
      overrides: dotted key → value (or its text); an overridden key is fixed, also where the study
        sweeps over it.

    Attributes:
      config: the base configuration.
      name: names the study's default work directory.
    """

    def __init__(self, spec: str, overrides: Mapping[str, Any] | None = None):
        file, _, preset = spec.partition(":")
        module = _load(file)
        try:
            self.config: ConfigDict = module.get_config(preset) if preset else module.get_config()
        except (ValueError, KeyError) as error:
            raise ConfigError(f"--config {spec}: {_text(error)}") from error
        self._overrides = dict(overrides or {})
        self._sweep = module.sweep
        override(self.config, self._overrides)
        self.name: str = self.config.study

    def trials(self) -> list[dict[str, Any]]:
        """One fully resolved, checked, plain configuration per trial, without repetitions."""
        seen = {}
        for changes in self._sweep(self.config):
            seen.setdefault(*self._identified(changes))
        return list(seen.values())

    def base_trial(self) -> dict[str, Any]:
        """The base configuration as a trial, without the sweep."""
        return self._identified({})[1]

    def _identified(self, changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        config = copy.deepcopy(self.config)
        override(config, changes)
        override(config, self._overrides)
        resolved = resolve(config)
        return trial_id(resolved), resolved


def _load(file: str) -> Any:
    candidates = [Path(file), Path(__file__).parent.parent / "configs" / file]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        known = [p.name for p in candidates[1].parent.glob("*.py") if p.name != "__init__.py"]
        raise ConfigError(f"--config {file}: no such file; {nearest(file, known)}")
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config {file}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"--config {file}: cannot be loaded: {type(error).__name__}: {_text(error)}"
        ) from error
    for function in ("get_config", "sweep"):
        if not callable(getattr(module, function, None)):
            raise ConfigError(f"--config {file}: expected it to define {function}()")
    return module


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of a configuration."""
    for key, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def override(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Sets dotted keys in place; text is read as the type of the value that it replaces."""
    for key, value in changes.items():
        *path, name = key.split(".")
        section = config
        for part in path:
            section = section.get(part)
            if not isinstance(section, ConfigDict):
                break
        is_open = any(key.startswith(f"{o}.") for o in _OPEN)
        if not isinstance(section, ConfigDict) or (name not in section and not is_open):
            known = [k for k, _ in leaves(config)]
            raise ConfigError(f"unknown configuration key {key!r}: {nearest(key, known)}")
        old = section.get(name)
        if isinstance(value, str) and (not isinstance(old, str) or value.startswith("[")):
            value = _parse(value, none=name in section)
        if isinstance(old, ConfigDict):
            if not isinstance(value, (Mapping, ConfigDict)):
                raise ConfigError(
                    f"configuration key {key!r} is {value!r}, expected one of its own keys: "
                    f"{', '.join(f'{key}.{k}' for k in old) or key + '.<option>'}"
                )
            value = ConfigDict(value)
        elif (
            isinstance(old, bool) != isinstance(value, bool) and old is not None and name in section
        ):
            _refuse_type(key, value, old)
        try:
            # A mixer is a name or a pattern of names: the one key whose type may change.
            with (
                section.unlocked(),
                section.ignore_type() if key == "model.mixer" else nullcontext(),
            ):
                section[name] = value
        except TypeError:
            _refuse_type(key, value, old)


def _refuse_type(key: str, value: Any, old: Any) -> None:
    raise ConfigError(
        f"configuration key {key!r} is {value!r}, expected {type(old).__name__} such as {old!r}"
    )


def _parse(text: str, *, none: bool) -> Any:
    """The value that a text stands for; an option of an architecture may be called none."""
    named = {"true": True, "false": False} | ({"none": None} if none else {})
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def resolve(config: ConfigDict) -> dict[str, Any]:
    """The plain dictionary of a trial, checked, with the versions of its task and mixers.

    Raises:
      ConfigError: an unknown name, an impossible size, or a mixer that the task cannot accept.
    """
    plain = json.loads(json.dumps(config.to_dict()))  # tuples become lists, as in the record
    model, task_config = plain["model"], plain["task"]
    try:
        task = tasks.build(task_config["name"], **task_config["options"])
        mixers = [model["mixer"]] if isinstance(model["mixer"], str) else model["mixer"]
        classes = {name: arch.get(name) for name in mixers}
        for name, cls in classes.items():
            if task.needs_causal and not cls.causal:
                raise ValueError(
                    f"architecture {name!r} is not causal, and task {task_config['name']!r} "
                    f"needs a causal one; causal: {', '.join(causal_names())}"
                )
        task_config["version"] = tasks.get(task_config["name"]).version
        model["version"] = {name: cls.version for name, cls in classes.items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(_text(error)) from error
    check(plain)
    return plain


def causal_names() -> list[str]:
    """The registered architectures that can be used where the future must stay hidden."""
    return [name for name in arch.names() if arch.get(name).causal]


def check(config: Mapping[str, Any]) -> None:
    """Raises ConfigError if a number of the protocol is impossible."""
    at_least_one = ("train.batch_size", "train.eval_every", "evaluation.batch_size")
    rules = [(key, lambda v: v >= 1, "at least 1") for key in at_least_one]
    rules += [
        (f"optimizer.{key}", lambda v: v > 0, "a number above 0")
        for key in ("learning_rate", "ssm_learning_rate", "epsilon")
    ]
    rules += [
        ("optimizer.weight_decay", lambda v: v >= 0, "at least 0"),
        ("optimizer.warmup_fraction", lambda v: 0 <= v <= 1, "between 0 and 1"),
        ("optimizer.clip_norm", lambda v: v is None or v > 0, "a number above 0, or none"),
        (
            "optimizer.schedule",
            lambda v: v in SCHEDULES,
            f"one of {', '.join(map(repr, SCHEDULES))}",
        ),
        ("train.steps", lambda v: v is None or v >= 1, "at least 1, or none"),
        ("train.epochs", lambda v: v is None or v > 0, "a number above 0, or none"),
    ]
    for key, allowed, expected in rules:
        section, name = key.split(".")
        if not allowed(value := config[section][name]):
            raise ConfigError(f"{key} is {value!r}, expected {expected}")
    if (config["train"]["steps"] is None) == (config["train"]["epochs"] is None):
        raise ConfigError(
            "expected exactly one of train.steps and train.epochs; set the other to none"
        )


def trial_id(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits: a hash of everything that can change the trial's numbers."""
    return _hash({key: config[key] for key in IDENTITY})


def population_key(config: Mapping[str, Any]) -> str:
    """Equal for trials that one compiled program can train together."""
    shared = copy.deepcopy({key: config[key] for key in IDENTITY})
    for key in POPULATION_KEYS:
        *path, name = key.split(".")
        section = shared
        for part in path:
            section = section[part]
        section.pop(name)
    return _hash(shared)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _text(error: BaseException) -> str:
    return str(error.args[0] if error.args else error).replace("\n", " ")
