"""Configurations: finding and loading a study, overriding its keys, and resolving it into trials.

Everything that can be wrong with a request is found here, before anything compiles, and raised as
`ConfigError`: one line that names the value, what was expected and the nearest right name.
"""

import ast
import copy
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import arch
import tasks
from runners.core.errors import ConfigError, nearest
from runners.core.identity import leaves, trial_id
from runners.study import schema

# Sections whose keys belong to the architecture or the task, which check them by themselves.
_OPEN = ("model.mixer_options", "task.options")


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
        self._spec = spec
        with _blame(f"--config {spec}: get_config()"):
            config = module.get_config(preset) if preset else module.get_config()
        if not isinstance(config, ConfigDict):
            raise ConfigError(
                f"--config {spec}: get_config() returns a {type(config).__name__}, expected a "
                "ConfigDict of ml_collections"
            )
        schema.fill(config)
        try:
            schema.check_keys(config)
        except ConfigError as error:
            raise ConfigError(f"--config {spec}: {error}") from error
        self.config = config
        self._overrides = _expand(overrides or {})
        self._sweep = module.sweep
        override(self.config, self._overrides)
        schema.check_value("study", self.config.study)
        self.name: str = self.config.study

    def trials(self) -> list[dict[str, Any]]:
        """One fully resolved, checked, plain configuration per trial, without repetitions."""
        with _blame(f"--config {self._spec}: sweep()"):
            grid = list(self._sweep(self.config))
        for changes in grid:
            if not (isinstance(changes, Mapping) and all(isinstance(k, str) for k in changes)):
                raise ConfigError(
                    f"--config {self._spec}: sweep() yields {changes!r}, expected values by "
                    "dotted keys, such as {'seed': 1}"
                )
        seen = {}
        for changes in grid:
            seen.setdefault(*self._identified(changes))
        return list(seen.values())

    def base_trial(self) -> dict[str, Any]:
        """The base configuration as a trial, without the sweep."""
        return self._identified({})[1]

    def _identified(self, changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        config = copy.deepcopy(self.config)
        if "model.mixer" in self._overrides:  # the study's options are those of its own mixers
            changes = {k: v for k, v in changes.items() if not k.startswith("model.mixer_options")}
        override(config, changes)
        override(config, self._overrides)
        resolved = resolve(config)
        return trial_id(resolved), resolved


@contextmanager
def _blame(source: str) -> Iterator[None]:
    """Turns whatever a study's code raises into a ConfigError that names it."""
    try:
        yield
    except Exception as error:
        raise ConfigError(f"{source} raises {type(error).__name__}: {_text(error)}") from error


def _load(file: str) -> Any:
    candidates = [Path(file), Path(__file__).parents[2] / "configs" / file]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        known = [p.name for p in candidates[1].parent.glob("*.py") if p.name != "__init__.py"]
        raise ConfigError(f"--config {file}: no such file; {nearest(file, known)}")
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config {file}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    with _blame(f"--config {file}: loading it"):
        spec.loader.exec_module(module)
    for function in ("get_config", "sweep"):
        if not callable(getattr(module, function, None)):
            raise ConfigError(f"--config {file}: expected it to define {function}()")
    return module


def override(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Sets dotted keys in place; text is read as the type of the value that it replaces.

    The key `model` takes the name of a published model.
    """
    for key, value in _expand(changes).items():
        *path, name = key.split(".")
        is_open = any(key.startswith(f"{o}.") for o in _OPEN)
        section = config
        for part in path:
            if is_open and part not in section:  # the options of a mixer in a pattern
                with section.unlocked():
                    section[part] = ConfigDict()
            section = section.get(part)
            if not isinstance(section, ConfigDict):
                break
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
        except (TypeError, OverflowError):  # the latter for an integer beyond every float
            _refuse_type(key, value, old)


def _expand(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes, with the keys of a published model in place of `model=<its name>`.

    They come first, so that a change of one key holds. The vocabulary is the task's.
    """
    name = changes.get("model")
    if not isinstance(name, str):
        return dict(changes)
    try:
        backbone = arch.published(name).backbone
    except ValueError as error:
        raise ConfigError(f"configuration key 'model': {error}") from error
    keys = {f"model.{key}": value for key, value in backbone.items() if key != "vocab_size"}
    return keys | {key: value for key, value in changes.items() if key != "model"}


def _refuse_type(key: str, value: Any, old: Any) -> None:
    rule = schema.RULES.get(key)
    expected = rule.expected if rule else f"{type(old).__name__} such as {old!r}"
    raise ConfigError(f"configuration key {key!r} is {value!r}, expected {expected}")


def _parse(text: str, *, none: bool) -> Any:
    """The value that a text stands for; an option of an architecture may be called none."""
    named = {"true": True, "false": False} | ({"none": None} if none else {})
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if names := re.fullmatch(r"\[([^\[\]]+)\]", text):  # a shell eats the quotes of ['a','b']
        return [name.strip("'\" ") for name in names[1].split(",")]
    return text


def resolve(config: ConfigDict) -> dict[str, Any]:
    """The plain dictionary of a trial, checked, with the versions of its task and mixers.

    Raises:
      ConfigError: an unknown name, an impossible size, or a mixer that the task cannot accept.
    """
    plain = config.to_dict()
    for key, value in leaves(plain):
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{key} is of type {type(value).__name__}, expected text, a number, true, false, "
                "none, or a list of these"
            ) from error
    plain = json.loads(json.dumps(plain))  # tuples become lists, as in the record
    schema.check(plain)
    model, task_config = plain["model"], plain["task"]
    try:
        task = tasks.build(task_config["name"], **task_config["options"])
        mixers = [model["mixer"]] if isinstance(model["mixer"], str) else model["mixer"]
        classes = dict(_classes(model))
        for name in mixers:
            cls = classes[name]
            if task.needs_causal and not cls.causal:
                raise ValueError(
                    f"architecture {name!r} is not causal, and task {task_config['name']!r} "
                    f"needs a causal one; causal: {', '.join(causal_names())}"
                )
        task_config["version"] = tasks.get(task_config["name"]).version
        model["version"] = {name: cls.version for name, cls in classes.items()}
        parts = task.parts("train")
    except (ValueError, TypeError) as error:
        raise ConfigError(_text(error)) from error
    _check_supply(plain, parts)
    return schema.without_defaults(plain)


def _classes(model: Mapping[str, Any]) -> Iterator[tuple[str, type[arch.SequenceMixer]]]:
    """The architectures of a model by name, and those that they hold in turn."""
    options = model["mixer_options"]
    single = isinstance(model["mixer"], str)
    found = [(model["mixer"], options)] if single else [(m, options.get(m)) for m in model["mixer"]]
    while found:
        name, given = found.pop()
        cls = arch.get(name)
        yield name, cls
        found += cls.components(given if isinstance(given, Mapping) else {})


def causal_names() -> list[str]:
    """The registered architectures that can be used where the future must stay hidden."""
    return [name for name in arch.names() if arch.get(name).causal]


def _check_supply(config: Mapping[str, Any], parts: Sequence[tasks.Part]) -> None:
    """Raises ConfigError where training counts epochs of a set that has no size."""
    endless = [part.name for part in parts if part.num_examples is None]
    finite = [part.name for part in parts if part.num_examples is not None]
    if endless and finite:
        raise ConfigError(
            f"the training part {endless[0]!r} is endless and {finite[0]!r} is not: give every "
            "part its number of examples, or none of them"
        )
    epochs, schedule = config["train"]["epochs"], config["optimizer"]["schedule"]
    if endless and epochs is not None:
        raise ConfigError(
            f"train.epochs is {epochs!r}, but the training set is endless: set "
            "task.options.num_train_examples, or train.steps instead"
        )
    if endless and config["train"]["eval_every"] is None:
        raise ConfigError(
            "train.eval_every is None, after every epoch, but the training set is endless: set "
            "task.options.num_train_examples, or train.eval_every to a number"
        )
    if endless and schedule == "cosine_per_epoch":
        raise ConfigError(
            f"optimizer.schedule is {schedule!r}, but the training set is endless: set "
            "task.options.num_train_examples, or optimizer.schedule to 'cosine'"
        )
    if epochs is not None:
        steps = epochs * sum(-(-p.num_examples // config["train"]["batch_size"]) for p in parts)
        if steps >= schema.MAX_STEPS:
            raise ConfigError(
                f"train.epochs is {epochs!r}, expected a number that makes fewer than 2**31 "
                f"steps, not {steps:.3g}"
            )


def _text(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())
