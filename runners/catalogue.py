"""The table of all architectures in the README: `python -m runners.catalogue`.

Everything but the paper is taken from the code: the operators that a mixer traces, how its
operations and its state grow with the length, what its class declares. `--check` proves that the
README is current.

Exit codes: 0 written or up to date; 1 the README is stale; 2 the request was wrong.
"""

import argparse
import dataclasses
import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import arch
from pallas_kernels import dispatch
from runners.core import cli, files, flops, growth
from runners.core.errors import ConfigError
from runners.core.format import to_bytes
from runners.core.markdown import to_table

ROOT = Path(__file__).resolve().parent.parent
MARKERS = ("<!-- catalogue -->", "<!-- /catalogue -->")
D_MODEL = 256
STATE_LENGTHS = (1024, 8192)

_HEADERS = (
    "name",
    "paper",
    "operators",
    "training",
    "one token",
    "state at 1k",
    "state at 8k",
    "causal",
    "packs",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One architecture with its default options.

    Attributes:
      name: as registered.
      file: where it is defined, from the top of the repository.
      paper: name, authors and year.
      reference: the paper's address.
      operators: those of `pallas_kernels` that its parallel form calls.
      training: how the operations on a sequence grow with its length.
      token: how those of one decoded token do; None if it cannot decode.
      state: bytes after each of STATE_LENGTHS; None likewise.
      causal: the future is hidden.
      packs: keeps packed documents apart.
    """

    name: str
    file: str
    paper: str
    reference: str
    operators: tuple[str, ...]
    training: str
    token: str | None
    state: tuple[int, ...] | None
    causal: bool
    packs: bool


@functools.cache
def entry(name: str) -> Entry:
    """What the code says of an architecture, registered or named by its import path."""
    cls = arch.get(name)
    mixer = _abstract(name, STATE_LENGTHS[0])
    with dispatch.used() as operators:
        # A function of its own: jax would not trace `_forward` a second time.
        jax.eval_shape(lambda *args: _forward(*args), mixer, *_inputs(STATE_LENGTHS[0]))
    file = Path(inspect.getsourcefile(cls)).resolve()
    return Entry(
        name=name,
        file=str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file),
        paper=cls.paper,
        reference=cls.reference,
        operators=tuple(operators),
        training=training(name),
        token=growth.of_token([_token_flops(name, n) for n in growth.LENGTHS])
        if mixer.causal
        else None,
        state=tuple(arch.state_bytes(_abstract(name, n), n) for n in STATE_LENGTHS)
        if mixer.causal
        else None,
        causal=mixer.causal,
        packs=mixer.packs,
    )


@functools.cache
def training(name: str) -> str:
    """How the operations on a sequence grow with its length: "T", "T log T", "T √T" or "T²"."""
    counts = [
        flops.flops(_forward, _abstract(name, length), *_inputs(length))
        for length in growth.LENGTHS
    ]
    return growth.of_sequence(counts)


def lines() -> list[str]:
    """The table, with the sentence that says how it was made."""
    entries = [entry(name) for name in arch.names()]
    return [
        f"At width {D_MODEL} with default options. `python -m runners.catalogue` takes all but the "
        "papers from the code: the operators",
        "that a mixer calls, how the operations on a sequence of length T and on one decoded token "
        "grow (counted, not timed),",
        "the bytes of state of one sequence (those of the real state), whether the future is "
        "hidden, and whether packed",
        "documents are kept apart.",
        "",
        *to_table(list(_HEADERS), [_cells(e) for e in entries], left=3),
    ]


def fill(text: str) -> str:
    """The text with a current table between its markers.

    Raises:
      ConfigError: the markers are missing.
    """
    (before, opened, rest), closing = text.partition(MARKERS[0]), MARKERS[1]
    _, closed, after = rest.partition(closing)
    if not (opened and closed):
        raise ConfigError(f"the README has no place for the table: expected {' … '.join(MARKERS)}")
    return "\n".join([before + opened, "", *lines(), "", closed + after])


def run(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m runners.catalogue",
        description="Writes the table of all architectures into the README.",
        allow_abbrev=False,
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    console = cli.console()
    old = options.readme.read_text(encoding="utf-8")
    new = fill(old)
    if options.check and old != new:
        console.print(f"{options.readme} is stale: run python -m runners.catalogue", soft_wrap=True)
        return 1
    if old != new:
        files.replace(options.readme, new.encode())
        console.print(f"wrote {options.readme}", soft_wrap=True)
    return 0


def _cells(e: Entry) -> list[str]:
    return [
        f"[{e.name}]({e.file})",
        f"[{e.paper}]({e.reference})",
        ", ".join(f"`{operator}`" for operator in e.operators) or "–",
        f"O({e.training})",
        "–" if e.token is None else f"O({e.token})",
        *(["–"] * len(STATE_LENGTHS) if e.state is None else map(to_bytes, e.state)),
        "yes" if e.causal else "no",
        "yes" if e.packs else "no",
    ]


def _abstract(name: str, length: int) -> Any:
    """The mixer for sequences of `length` tokens, with shapes in place of numbers."""
    return jax.eval_shape(
        lambda: arch.build(name, D_MODEL, rngs=nnx.Rngs(0), max_length=length, num_layers=1)
    )


def _inputs(length: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """x and the tokens behind it."""
    return (
        jax.ShapeDtypeStruct((1, length, D_MODEL), jnp.float32),
        jax.ShapeDtypeStruct((1, length), jnp.int32),
    )


def _forward(mixer: Any, x: jax.Array, tokens: jax.Array) -> jax.Array:
    return mixer(x, arch.Context(tokens=tokens, training=True))


def _token_flops(name: str, length: int) -> int:
    """Operations of one token, given a state with room for `length`."""
    mixer = _abstract(name, length)
    state = jax.eval_shape(lambda mixer: mixer.initial_state(1, length), mixer)
    return flops.flops(
        lambda mixer, state, x, tokens: mixer.extend(state, x, arch.Context(tokens=tokens)),
        mixer,
        state,
        *_inputs(1),
    )


if __name__ == "__main__":
    cli.main("catalogue", run, sys.argv[1:])
