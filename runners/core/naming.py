"""Names of rows and sections: an architecture, and the options that tell it apart."""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import arch
from runners.core.identity import common, leaves, population_key


def mixer_name(mixer: str | Sequence[str]) -> str:
    """A mixer or a pattern of mixers as a word: "gla", "MyMixer", "attention+2×gla"."""
    names = [mixer] if isinstance(mixer, str) else mixer
    runs: list[list[Any]] = []
    for name in names:
        short = str(name).rpartition(":")[2]
        if runs and runs[-1][0] == short:
            runs[-1][1] += 1
        else:
            runs.append([short, 1])
    return "+".join(name if count == 1 else f"{count}×{name}" for name, count in runs)


def model_name(model: Mapping[str, Any]) -> str:
    """The mixers of a model, in brackets what they hold: "bidirectional(gla)"."""
    mixer, options = model["mixer"], model.get("mixer_options") or {}
    if isinstance(mixer, str):
        return _with_parts(mixer, options)
    return mixer_name([_with_parts(name, options.get(name)) for name in mixer])


def _with_parts(name: str, options: Any) -> str:
    short = mixer_name(name)
    try:
        held = arch.get(name).components(options if isinstance(options, Mapping) else {})
    except ValueError:  # from outside, and not installed here
        return short
    parts = ", ".join(_with_parts(*part) for part in held)
    return f"{short}({parts})" if parts else short


def shared_start(mixers: Iterable[str]) -> str:
    """Common start of most of the patterns, "base_conv+", for a picture to say once; or nothing."""
    mixers = list(mixers)
    starts = collections.Counter(m[: m.index("+") + 1] for m in mixers if "+" in m)
    start, count = starts.most_common(1)[0] if starts else ("", 0)
    return start if 2 * count > len(mixers) > 2 else ""


def of_architectures(configs: list[dict[str, Any]]) -> dict[str, str]:
    """A label for each configuration, by its `population_key`.

    Width and task have columns and sections of their own, and `selection` names versions. Rows that
    share architecture, width and task are told apart by the options in which they differ, and the
    same options are then named in every row of that architecture.
    """
    cells: dict[tuple, list[dict[str, Any]]] = collections.defaultdict(list)
    flat = {}
    for config in configs:
        settings = flatten(common(config))
        settings = {k: v for k, v in settings.items() if not k.startswith("model.version.")}
        mixer = model_name(config["model"])
        flat[population_key(config)] = mixer, settings
        cells[mixer, config["model"]["d_model"], to_json(config["task"])].append(settings)
    differing: dict[str, set[str]] = collections.defaultdict(set)
    for (mixer, _, _), members in cells.items():
        differing[mixer] |= _differing_keys(members)
    return {
        key: f"{mixer} {to_text([(k, s[k]) for k in sorted(differing[mixer]) if k in s])}".strip()
        for key, (mixer, s) in flat.items()
    }


def of_tasks(configs: list[dict[str, Any]]) -> list[tuple[list[tuple], str]]:
    """For each task of a study its place among them, and what tells it apart, nothing if it is one.

    Its name, where they are of several names, and the options in which those of its name differ.
    """
    by_name: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for config in configs:
        by_name[config["name"]].append(config)
    settings = {name: iter(_differences(members)) for name, members in by_name.items()}
    found = []
    for config in configs:
        name, setting = config["name"], next(settings[config["name"]])
        own = [name] if len(by_name) > 1 else []
        places = [_order(value) for value in [*own, *(value for _, value in setting)]]
        found.append((places, ", ".join([*own, *([to_text(setting)] if setting else [])])))
    return found


def _differences(configs: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    """For each configuration its (dotted key, value) pairs in which not all agree."""
    flat = [flatten(config) for config in configs]
    keys = sorted(_differing_keys(flat))
    return [[(k, f[k]) for k in keys if k in f] for f in flat]


def _differing_keys(flat: list[dict[str, Any]]) -> set[str]:
    keys = {k for f in flat for k in f}
    return {k for k in keys if len({to_json(f[k]) if k in f else None for f in flat}) > 1}


def to_text(pairs: list[tuple[str, Any]]) -> str:
    """Options as they read in a table: "length=64, num_kv_pairs=4"."""
    return ", ".join(
        f"{k.rpartition('.')[2]}={v if isinstance(v, str) else to_json(v)}" for k, v in pairs
    )


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """A nested configuration by dotted keys; a section without keys has no options to name."""
    return {key: value for key, value in leaves(config) if value != {}}


def to_json(value: Any) -> str:
    """One text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _order(value: Any) -> tuple:
    """Numbers by size, before everything else by its text."""
    number = isinstance(value, int | float)
    return (0, value, "") if number else (1, 0, to_json(value))
