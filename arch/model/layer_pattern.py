"""Layer pattern of a backbone, and its split into scans."""

from collections.abc import Mapping, Sequence
from typing import Any


def layer_list(
    mixer: str | Sequence[str], num_layers: int, mixer_options: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, options) of each layer; raises ValueError if pattern and depth do not fit."""
    if isinstance(mixer, str):
        return [(mixer, dict(mixer_options))] * num_layers
    if not mixer or num_layers % len(mixer):
        raise ValueError(
            f"num_layers is {num_layers}, expected a multiple of the {len(mixer)} layers "
            f"of the pattern {list(mixer)}"
        )
    for name in mixer_options:
        if name not in mixer:
            raise ValueError(
                f"mixer options are given for {name!r}, expected one of the pattern {list(mixer)}"
            )
    return [(m, dict(mixer_options.get(m, {}))) for m in mixer] * (num_layers // len(mixer))


def segments(layers: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Split a layer list into runs of a repeated unit, as (start, unit length, repeats).

    Each run is one `lax.scan`, so that compile time depends on the number of distinct layers and
    not on the depth. The split is greedy: at each position it takes the shortest unit whose
    repetitions cover the most layers.
    """
    runs, start = [], 0
    while start < len(layers):
        best = (1, 1)
        for unit in range(1, (len(layers) - start) // 2 + 1):
            repeats = 1
            while (
                layers[start + repeats * unit : start + (repeats + 1) * unit]
                == layers[start : start + unit]
            ):
                repeats += 1
            if repeats > 1 and unit * repeats > best[0] * best[1]:
                best = (unit, repeats)
        runs.append((start, *best))
        start += best[0] * best[1]
    return runs
