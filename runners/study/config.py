"""Studies: loading a configuration file and resolving it into trials.

Everything that can be wrong with a request is found here, before anything compiles, and raised as
`ConfigError`: one line that names the value, what was expected and the nearest right name.
"""

import copy
import functools
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import arch
import tasks
from runners.core.errors import ConfigError, nearest
from runners.core.identity import leaves, trial_id
from runners.study import schema
from runners.study.override import expand, override

_NO_STUDIES = ("__init__.py", "base.py")  # in `configs/`


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

    A study may have a function `complete(config)` besides `get_config` and `sweep`. It fills in
    what follows from the other values of a trial, whoever set these, such as steps from a budget.
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
        self._overrides = expand(overrides or {})
        self._sweep = module.sweep
        self._complete = getattr(module, "complete", None)
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
        if self._complete is not None:
            with _blame(f"--config {self._spec}: complete()"):
                self._complete(config)
        resolved = _resolve(config)
        return trial_id(resolved), resolved


@contextmanager
def _blame(source: str) -> Iterator[None]:
    """Turns any error of a study's code into a ConfigError that names it."""
    try:
        yield
    except Exception as error:
        raise ConfigError(f"{source} raises {type(error).__name__}: {_text(error)}") from error


def _load(file: str) -> Any:
    candidates = [Path(file), Path(__file__).parents[2] / "configs" / file]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        known = [p.name for p in candidates[1].parent.glob("*.py") if p.name not in _NO_STUDIES]
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


def _resolve(config: ConfigDict) -> dict[str, Any]:
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
                    f"needs a causal one; causal: {', '.join(_causal_names())}"
                )
        task_config["options"] |= task.identity()
        task_config["version"] = tasks.get(task_config["name"]).version
        model["version"] = {name: cls.version for name, cls in classes.items()}
        parts = task.parts("train")
        if task.packs:
            _check_packing(plain, task.max_length)
    except (ValueError, TypeError) as error:
        raise ConfigError(_text(error)) from error
    _check_supply(plain, parts)
    return schema.without_absent_keys(plain)


def _classes(model: Mapping[str, Any]) -> Iterator[tuple[str, type[arch.SequenceMixer]]]:
    """The architectures of a model by name, and those that they hold in turn."""
    found = _layers(model)
    while found:
        name, given = found.pop()
        cls = arch.get(name)
        yield name, cls
        found += cls.components(given if isinstance(given, Mapping) else {})


def _layers(model: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The architectures of a model's pattern, with their options."""
    options = model["mixer_options"]
    if isinstance(model["mixer"], str):
        return [(model["mixer"], options)]
    return [(name, options.get(name, {})) for name in model["mixer"]]


def _check_packing(config: Mapping[str, Any], max_length: int) -> None:
    """Raises ValueError if a mixer cannot keep apart the documents that the task packs in a row."""
    model = config["model"]
    sizes = {key: model[key] for key in ("d_model", "num_layers")} | {"max_length": max_length}
    leaky = [
        name
        for name, options in dict(_layers(model)).items()
        if not _packs(name, json.dumps(sizes | dict(options), sort_keys=True))
    ]
    if leaky:
        raise ValueError(
            f"with these options {', '.join(map(repr, leaky))} cannot keep packed documents "
            f"apart, and task {config['task']['name']!r} packs several into a row: give it one "
            "document per row, or choose mixers that pack (see the catalogue in arch/README.md)"
        )


@functools.cache  # trials by the hundred share few mixers
def _packs(name: str, arguments: str) -> bool:
    return arch.packs(name, **json.loads(arguments))


def _causal_names() -> list[str]:
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
