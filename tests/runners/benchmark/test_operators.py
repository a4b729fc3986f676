"""The benchmark: what it measures, keeps, shows and refuses. No test asserts a time."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from pallas_kernels import shapes
from runners.benchmark import __main__ as command
from runners.benchmark import machine, operator_page, operators, records, timing
from runners.core import cli
from runners.core.errors import ConfigError, ResultsError

LIMITS = machine.Limits(copy=1e9, matmul={"float32": 1e12, "bfloat16": 1e12})


@pytest.fixture
def tiny(monkeypatch):
    """Two tiny shapes in place of the real ones."""
    sizes = {
        "linear_scan": {"B": 2, "T": 16, "D": 4},
        "gated_linear_attention": {"B": 1, "T": 16, "H": 1, "K": 4, "V": 4},
    }
    found = tuple(
        dataclasses.replace(example, name="typical", sizes=sizes[example.operator], large=False)
        for example in shapes.EXAMPLES
        if example.operator in sizes and example.name == "small"
    )
    monkeypatch.setattr(command, "EXAMPLES", found)
    monkeypatch.setattr(operator_page, "EXAMPLES", found)
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 1e-6)
    monkeypatch.setattr(machine.Limits, "measure", classmethod(lambda cls, dtypes: LIMITS))
    return found


def _row(**fields):
    base = {
        "operator": "linear_scan",
        "shape": "typical",
        "sizes": {"B": 2, "T": 16, "D": 4},
        "dtype": "float32",
        "candidate": "xla",
        "is_default": True,
        "direction": "forward+backward",
        "seconds": 1e-3,
        "ratio": 1.0,
        "compile_seconds": 0.1,
        "temporary_bytes": 2**20,
        "bytes_per_second": 1e9,
        "copy_share": 0.5,
        "flops_per_second": 1e9,
        "matmul_share": 0.1,
        "error": 1e-7,
    }
    return operators.Row(**base | fields)


def test_a_run_leaves_record_page_and_plot(tiny, tmp_path, capsys):
    argv = ["--ops", "--lengths", "8,16", "--rounds", "1", "--workdir", str(tmp_path)]
    assert command.run(argv) == 0
    (folder,) = (tmp_path / "benchmarks").iterdir()
    assert folder.name == machine.slug()
    (path,) = folder.glob("ops-*.json")
    record = json.loads(path.read_text())
    assert record["limits"] == {"copy": 1e9, "matmul": {"float32": 1e12, "bfloat16": 1e12}}
    assert record["provenance"]["git_commit"]
    rows = [operators.Row(**row) for row in record["rows"]]
    assert {row.sizes["T"] for row in rows} == {8, 16}
    for operator in ("linear_scan", "gated_linear_attention"):
        mine = [row for row in rows if row.operator == operator and row.sizes["T"] == 16]
        candidates = {row.candidate for row in mine}
        assert candidates >= {"xla", "reference", "lax.associative_scan"}
        assert {row.direction for row in mine} == set(operators.PASSES)
        assert {row.candidate for row in mine if row.is_default} == {"xla"}
        for row in mine:
            assert row.skipped is None
            assert row.error is None if row.candidate == "reference" else row.error < 1e-5
    page = (folder / "ops.md").read_text()
    assert "## linear_scan, typical (B2 T16 D4), float32" in page
    assert "T8" not in page  # other lengths are in the plot
    assert (folder / "ops.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "lax.associative_scan" in printed
    assert "ops.png" in printed


def test_a_later_run_replaces_figures_and_deletes_nothing(tiny, tmp_path):
    for seconds in (1e-3, 2e-3):
        record = records.Record(tmp_path, operator_page.KIND, LIMITS)
        record.add([_row(seconds=seconds), _row(candidate=f"reference{seconds}")])
    written = operator_page.publish(tmp_path, cli.console())
    assert len(list(tmp_path.glob("ops-*.json"))) == 2
    page = written[1].read_text()
    assert "2 ms" in page
    assert "| xla • | – | – | 1 ms" not in page
    assert "reference0.001" in page  # measured in the first run alone


def test_a_skipped_candidate_says_why():
    line = operator_page._line(
        "reference", {"forward": _row(skipped="needs 99.0 GiB", seconds=None)}
    )
    assert "needs 99.0 GiB" in line
    assert len(line) == len(operator_page._COLUMNS)


def test_a_dear_candidate_and_one_that_does_not_compile_are_skipped(monkeypatch, tiny):
    def broken(**arrays):
        @jax.custom_jvp
        def fail(x):
            return jax.pure_callback(lambda x: x, x, x, vmap_method="sequential")

        return fail(arrays["x"]), arrays["h0"] + jax.lax.axis_index("nowhere")

    monkeypatch.setitem(operators.ALTERNATIVES, "linear_scan", {"broken": broken})
    monkeypatch.setattr(operators, "_count", lambda names, *rest: {n: 1 for n in names})
    rows = list(operators.measure(tiny[0], "float32", LIMITS, rounds=1))
    reasons = {row.candidate: row.skipped for row in rows}
    assert reasons["broken"].startswith("does not compile: ")
    assert reasons["xla"] is None
    dear = {"reference": 100}
    monkeypatch.setattr(
        operators, "_count", lambda names, *rest: {n: dear.get(n, 1) for n in names}
    )
    rows = list(operators.measure(tiny[0], "float32", LIMITS, rounds=1))
    reasons = {row.candidate: row.skipped for row in rows}
    assert reasons["reference"] == "100 times the operations of xla"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ops", "linear_scn"], "--ops 'linear_scn': did you mean 'linear_scan'"),
        (["--ops", "--shapes", "smal"], "--shapes 'smal': did you mean 'small'"),
        (["--ops", "--dtypes", "float16"], "--dtypes 'float16': did you mean"),
        (["--ops", "--lengths", "0"], "--lengths '0': expected positive numbers"),
        (["--ops", "--lengths", "x"], "--lengths 'x': expected positive numbers"),
        (["--ops", "--rounds", "0"], "--rounds 0: expected at least 1"),
        ([], "--ops --mixers is required"),
    ],
)
def test_wrong_requests(argv, message):
    with pytest.raises(ConfigError, match=message):
        command.run(argv)


def test_large_shapes_are_for_accelerators():
    options = command._parse(["--ops", "linear_scan"])
    assert "large" not in {e.name for e in command._examples(options)}
    options = command._parse(["--ops", "linear_scan", "--shapes", "large"])
    assert {e.name for e in command._examples(options)} == {"large"}


def test_a_corrupt_record_is_named(tmp_path):
    (tmp_path / "ops-1.json").write_text('{"rows": [{"colour": 1}]}')
    with pytest.raises(ResultsError, match=r"ops-1\.json: no record of a benchmark"):
        operator_page.publish(tmp_path, cli.console())


def test_candidates_take_turns(monkeypatch):
    calls = []
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 0.0)
    samples = timing.alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3
    )
    # A first call and a trial, then rounds, in which a call to warm up goes before the sample.
    assert calls == [*"aabb", *(3 * "aabb")]
    assert [len(times) for times in samples.values()] == [3, 3]


def test_a_slow_candidate_is_measured_less_often(monkeypatch):
    monkeypatch.setattr(timing, "_BUDGET_SECONDS", 0.0)
    assert len(timing.alternate({"a": lambda: None}, rounds=3)["a"]) == 1


def test_ratio_pairs_rounds():
    assert timing.ratio([2.0, 40.0, 6.0], [1.0, 20.0, 2.0]) == 2.0
    assert timing.ratio([3.0], [1.0, 9.0]) == 3.0


def test_the_slope_is_the_exponent():
    lengths = [1024, 2048, 4096]
    assert np.isclose(timing.slope(lengths, [1e-9 * t**1.5 for t in lengths]), 1.5)


def test_the_compiler_counts_temporary_memory():
    x = jax.ShapeDtypeStruct((1024, 1024), "float32")
    program = timing.compiled(lambda x: (x @ x) @ x, x)
    assert program.temporary_bytes >= 4 * 1024**2
    assert program.compile_seconds > 0


def test_the_peers_rows_are_named_by_shape(monkeypatch):
    example = next(e for e in shapes.EXAMPLES if e.name == "large64")
    asked = []

    def fla_times(sizes):
        asked.extend(sizes)
        row = {"operator": example.operator, "sizes": dict(example.sizes), "dtype": "bfloat16"}
        row |= {"candidate": "fla", "direction": "forward", "seconds": 1e-3, "device": "a GPU"}
        return [row, row | {"operator": "gated_delta_rule"}]

    monkeypatch.setattr(command.peers, "fla_times", fla_times)
    (row,) = command._peers([example])
    assert asked == [(8, 4096, 16, 64, 64)]
    assert (row.shape, row.candidate, row.ratio) == ("large64", "fla", None)
    line = operator_page._line("fla", {"forward": row})
    assert line == ["fla", "1 ms", "–", "–", "–", "–", "–", "–", "–", "–"]
