"""The benchmark of architectures: what it measures, keeps, shows and refuses. No test asserts a
time.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch
from runners.benchmark import __main__ as command
from runners.benchmark import machine, mixer_page, mixer_plot, mixers, records, timing
from runners.core import cli, complexity
from runners.core.errors import ConfigError

LIMITS = machine.Limits(copy=1e9, matmul={"float32": 1e12})
TINY = ["--batch", "1", "--length", "12", "--d_model", "8", "--lengths", "4,8", "--rounds", "1"]
TINY += ["--prompts", "3,6"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Samples of one call; the counts of operations have their own tests."""
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(machine.Limits, "measure", classmethod(lambda cls, dtypes: LIMITS))


def _row(mixer="gla", ratio=0.5, exponent=1.0, **fields):
    lengths = (1024, 2048, 4096, 8192)
    fields = {
        "batch": 2,
        "length": 4096,
        "d_model": 256,
        "dtype": "float32",
        "operators": ("gated_linear_attention",),
        "growth": "T",
        "causal": True,
        "parameters": 270_000,
        "seconds": 0.5,
        "ratio": ratio,
        "compile_seconds": 1.0,
        "temporary_bytes": 2**20,
        "growth_seconds": [(n, 1e-6 * n**exponent) for n in lengths],
        "exponent": exponent,
        "token_seconds": [(1024, 2e-4), (8192, 2.1e-4)],
        "state_bytes": [(1024, 32768), (8192, 32768)],
    } | fields
    return mixers.MixerTiming(mixer, **fields)


def _run(tmp_path, names, *more):
    code = command.run(["--mixers", names, *TINY, "--workdir", str(tmp_path), *more])
    (folder,) = (tmp_path / "benchmarks").iterdir()
    return code, folder


def test_a_run_leaves_record_page_and_plots(tmp_path, capsys):
    code, folder = _run(tmp_path, "attention,orchid")
    assert code == 0
    (run,) = records.read(folder, "mixers", mixers.MixerTiming)
    rows = {row.mixer: row for row in run.rows}
    attention, orchid = rows["attention"], rows["orchid"]
    assert (orchid.batch, orchid.length, orchid.d_model, orchid.dtype) == (1, 12, 8, "float32")
    assert attention.ratio == 1
    assert [attention.growth, attention.operators] == ["T²", ["attention"]]
    for row in rows.values():
        assert row.failure is None
        assert row.seconds > 0
        assert [n for n, _ in row.growth_seconds] == [4, 8]
        assert np.isclose(row.exponent, timing.slope(*zip(*row.growth_seconds, strict=True)))
    built = arch.build("attention", 8, rngs=nnx.Rngs(0))
    assert attention.parameters == sum(leaf.size for leaf in jax.tree.leaves(built))
    assert attention.state_bytes == [[n, arch.state_bytes(built, n)] for n in (3, 6)]
    assert [n for n, _ in attention.token_seconds] == [3, 6]
    assert (orchid.causal, orchid.token_seconds, orchid.state_bytes) == (False, [], [])
    page = (folder / "mixers.md").read_text()
    assert "## B1 T12 D8 float32" in page
    assert "Growth over T = 4, 8; decoding after 3 → 6 tokens." in page
    for name in ("mixers.png", "mixers-cost.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "mixers-cost.png" in printed
    assert "O(T log T)" in printed


def test_a_run_of_some_replaces_only_their_rows(tmp_path):
    for rows in ([_row("gla", 0.5), _row("lru", 0.25)], [_row("gla", 0.75)]):
        records.Record(tmp_path, "mixers", LIMITS).add(rows)
    mixer_page.publish(tmp_path, cli.console())
    assert len(list(tmp_path.glob("mixers-*.json"))) == 2
    page = (tmp_path / "mixers.md").read_text()
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith(("| gla", "| lru"))]
    assert [(line[0], line[2]) for line in lines] == [("| lru", "0.25"), ("| gla", "0.75")]


def test_other_settings_have_their_own_table(tmp_path):
    record = records.Record(tmp_path, "mixers", LIMITS)
    record.add([_row("gla"), _row("lru"), _row("gla", 0.1, dtype="bfloat16")])
    mixer_page.publish(tmp_path, cli.console())
    page = (tmp_path / "mixers.md").read_text()
    assert "## B2 T4096 D256 float32" in page
    assert "## B2 T4096 D256 bfloat16" in page


@pytest.mark.parametrize(
    ("growth", "exponent", "text"),
    [
        ("T", 1.15, "1.15 ≤ 1.15"),
        ("T", 1.16, "1.16 > 1.15 ✗"),
        ("T log T", 1.2, "1.20 ≤ 1.25"),
        ("T √T", 1.61, "1.61 > 1.6 ✗"),
        ("T²", 1.9, "1.90"),
    ],
)
def test_the_table_says_whether_the_bar_holds(growth, exponent, text):
    assert mixer_page._cells(_row(growth=growth, exponent=exponent)) == [
        "gla",
        "500 ms",
        "0.50",
        f"O({growth})",
        text,
        "200 → 210 µs",
        "32.0 KiB",
    ]


def test_what_cannot_be_measured_is_a_row(tmp_path, monkeypatch, capsys):
    def refuse(name, setting, length):
        raise MemoryError("out of memory: 99 GiB")

    monkeypatch.setattr(mixers, "_build", refuse)
    code, folder = _run(tmp_path, "gla")
    assert code == 1
    (run,) = records.read(folder, "mixers", mixers.MixerTiming)
    assert [(row.growth, row.failure) for row in run.rows] == [("T", "out of memory: 99 GiB")]
    assert "gla: out of memory: 99 GiB" in (folder / "mixers.md").read_text()
    assert "gla: out of memory: 99 GiB" in capsys.readouterr().out


def test_every_row_is_written_at_once(tmp_path, monkeypatch):
    def die(self, name):
        if name == "lru":
            raise KeyboardInterrupt
        return _row(name)

    monkeypatch.setattr(mixers.Bench, "measure", die)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, "gla,lru")
    (path,) = tmp_path.glob("benchmarks/*/mixers-*.json")
    assert [row["mixer"] for row in json.loads(path.read_text())["rows"]] == ["gla"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--mixers", "gla,gl"], "--mixers: unknown architecture 'gl': did you mean 'gla'"),
        (["--mixers", "--length", "0"], "--length 0: expected at least 1"),
        (["--mixers", "--prompts", "x"], "--prompts 'x': expected positive numbers"),
        (["--mixers", "--ops"], "not allowed with"),
    ],
)
def test_wrong_requests(argv, message):
    with pytest.raises(ConfigError, match=message):
        command.run(argv)


def test_all_are_measured_by_default():
    assert command._parse(["--mixers"]).mixers == tuple(arch.names())
    assert command._parse(["--mixers", "all"]).mixers == tuple(arch.names())
    assert command._parse(["--mixers"]).lengths == (1024, 2048, 4096, 8192)


def test_a_decoder_starts_again_where_its_state_is_full(monkeypatch):
    monkeypatch.setattr(mixers, "_ROOM", 2)
    setting = dataclasses.replace(mixers.Setting(), d_model=8)
    decoder = mixers._Decoder("attention", setting, 5)
    first, second, third, fourth = (np.asarray(decoder()) for _ in range(4))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(second, fourth)
    assert not np.array_equal(first, second)
    # The parallel form of prompt and tokens; sums of at most 8 · 7 rounded terms of 6e-8.
    mixer = mixers._build("attention", setting, 7)
    (x, _), (token, _) = mixers._inputs(setting, 1, 5), mixers._inputs(setting, 1, 1)
    expected = mixer(jnp.concatenate([x, token, token], axis=1))[:, -1:]
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-5)


def test_names_are_moved_apart_and_stay_in_the_panel():
    heights = [0.99, 0.2, 0.98, 0.21, 1.0]
    placed = mixer_plot._apart(heights)
    assert sorted(range(5), key=placed.__getitem__) == sorted(range(5), key=heights.__getitem__)
    assert np.diff(sorted(placed)).min() > 0.99 * mixer_plot._GAP
    assert max(placed) <= 1
    assert mixer_plot._apart([]) == []


def test_every_counted_growth_has_a_bar_but_attentions():
    assert {*mixers.BARS, complexity.training("attention")} == {"T", "T²", "T log T", "T √T"}
