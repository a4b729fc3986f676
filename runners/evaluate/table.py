"""Scores as a table of 80 columns, and a line for what failed."""

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from runners.evaluate.cells import Cell
from runners.evaluate.record import Entry

_DASH = "–"
_PLAIN = ("token_accuracy", "bits_per_byte", "control_bits_per_byte")


def scores(entries: Mapping[str, Entry]) -> Table:
    """Scores of models by length, over all depths, with 95% intervals; then those of guesses.

    entries: of one probe, by the model's name.
    """
    table = Table("model", box=None, pad_edge=False, collapse_padding=True)
    for header in ("length", "exact match", "token\naccuracy", "bits/\nbyte", "control", "saved"):
        table.add_column(header, justify="right", no_wrap=True)
    guesses: dict[str, dict[str, list[str]]] = {}  # by name and length
    for name, entry in entries.items():
        label = name
        for cell in entry.cells:
            if cell.depth is None:
                table.add_row(Text(label), f"{cell.length:,}", *_columns(cell))
                label = ""
            for guess, values in cell.guesses.items():
                shown = [_number(values.get(key)) for key in ("exact_match", *_PLAIN)]
                guesses.setdefault(guess, {})[f"{cell.length:,}"] = shown
    for guess, by_length in guesses.items():
        columns = list(by_length.values())
        if all(shown == columns[0] for shown in columns):
            by_length = {"any": columns[0]}
        label = guess
        for length, shown in by_length.items():
            table.add_row(label, length, *shown, _DASH, style="italic")
            label = ""
    return table


def failures(entries: Mapping[str, Entry]) -> Iterator[str]:
    """A line for each model that has no scores at some lengths, with the first reason."""
    for name, entry in entries.items():
        failed = [cell for cell in entry.cells if cell.failure is not None]
        if failed:
            lengths = ", ".join(f"{cell.length:,}" for cell in failed)
            yield f"{name} at {lengths}: {failed[0].failure}"


def _columns(cell: Cell) -> list[str]:
    if cell.failure is not None:
        return [_DASH] * 5
    share, low, high = cell.scores["exact_match"]
    saved, least, _ = cell.scores["bits_saved"]
    width = "" if least is None else f" ± {saved - least:.3f}"
    plain = [_number(cell.scores[key][0]) for key in _PLAIN]
    return [f"{share:.2f} ({low:.2f}–{high:.2f})", *plain, f"{saved:.3f}{width}"]


def _number(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.0e}" if 1e-9 < value < 0.005 else f"{value:.2f}"
