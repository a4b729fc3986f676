import csv
import io
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

import tasks
from runners.core import store
from runners.leaderboard import __main__ as command
from runners.leaderboard import build, plots, tables

# Those of the task that `make_record` names, best first: the oracle, and what a row must beat.
TASK = tasks.build("mqar", vocab_size=512, length=64, num_kv_pairs=4)
REFERENCES = TASK.reference_scores()
ORACLE, *FLOORS = sorted(REFERENCES, key=REFERENCES.get, reverse=True)
ROOT = pathlib.Path(build.__file__).parents[2]


@pytest.fixture
def study(tmp_path, make_record):
    """A study with three architectures, one of which failed."""
    folder = tmp_path / "mqar"
    for mixer, test, state in (("attention", 0.99, 65536), ("gla", 0.8, 8192)):
        for seed in range(3):
            for rate in (1e-3, 1e-2):
                score = test - 0.01 * seed - rate
                record = make_record(mixer, seed, rate, test=score, state_bytes=state)
                store.write(folder, record)
    store.write(folder, make_record("mamba", 0, 1e-3, status="failed", error="out of\nmemory"))
    return folder


def contents(folder):
    names = ("leaderboard.md", "leaderboard.csv", "plots/state.png", "plots/curves.png")
    return {name: (folder / name).read_bytes() for name in names}


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "runners.leaderboard", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def test_build(study):
    board = build.build(study)
    assert [row.label for row in board.rows] == ["attention", "gla", "mamba"]
    assert [section.judge.reference_scores for section in board.sections] == [REFERENCES]
    assert {str(p.relative_to(study)) for p in board.files} == set(contents(study))
    for path in board.files:
        assert path.is_file()
    for name in ("state", "curves"):
        png = (study / f"plots/{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) > 10_000
    assert not (study / "plots/width.png").exists()  # one width only
    assert not list(study.rglob(".*.tmp"))


def test_same_records_same_bytes(study, tmp_path):
    build.build(study)
    first = contents(study)
    copy = tmp_path / "elsewhere"
    for record in reversed(store.read_all(study)):
        store.write(copy, record)
    build.build(copy)
    build.build(copy)
    assert contents(copy) == first


def test_markdown(study):
    build.build(study)
    text = (study / "leaderboard.md").read_text()
    assert text.startswith("# mqar\n")
    assert "13 trials" in text
    # Scores 0.989, 0.979, 0.969: s = 0.01, so 4.303 · 0.01 / √3 = 0.0248.
    assert "| attention | 64 | 2 | 64.0 KiB | 50k | 0.001 | 0.979 ± 0.025 | 3 |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == [f"*{ORACLE}*", "attention", "gla", "mamba", *(f"*{f}*" for f in FLOORS)]
    (explained,) = (line for line in text.splitlines() if line.startswith("Reference scores: "))
    assert explained.startswith("Reference scores: *oracle*: answers every query; *guess from pos")
    assert all(note in explained for note in TASK.reference_notes().values())
    assert "mamba: 1 of 1 failed: out of memory" in text
    assert "12 of 13 trials are done, 0 diverged, 1 failed." in text
    assert "(plots/state.png)" in text
    assert "`aaaaaaaaaa` (all rows)" in text
    assert "†" not in text
    assert str(study) not in text


def test_rows_from_other_code_are_marked(study, make_record):
    record = make_record("hyena", test=0.3)
    record["provenance"] |= {"git_commit": "b" * 40, "git_dirty": True}
    store.write(study, record)
    build.build(study)
    text = (study / "leaderboard.md").read_text()
    assert "| hyena † |" in text
    assert "| gla |" in text
    assert "`bbbbbbbbbb` with uncommitted changes (hyena)" in text


def test_slices_have_a_table(study, make_record):
    record = make_record("hyena", test=0.3)
    for length, score in ((64, 0.5), (128, 0.1)):
        record["metrics"][f"test/accuracy/length={length}"] = score
    store.write(study, record)
    build.build(study)
    text = (study / "leaderboard.md").read_text()
    assert "| architecture | length=64 | length=128 |" in text
    assert "| hyena (64) | 0.500 | 0.100 |" in text


def test_csv(study):
    build.build(study)
    rows = list(csv.DictReader(io.StringIO((study / "leaderboard.csv").read_text())))
    assert [r["label"] for r in rows] == ["attention", "gla", "mamba", ORACLE, *FLOORS]
    assert [r["kind"] for r in rows] == ["measured"] * 3 + ["reference"] * len(REFERENCES)
    assert float(rows[0]["mean"]) == pytest.approx(0.979)
    assert rows[2]["mean"] == ""
    assert rows[2]["error"] == "out of\nmemory"
    assert float(rows[-1]["mean"]) == REFERENCES[FLOORS[-1]]


def printed(board, **options):
    console = Console(file=io.StringIO(), **options)
    tables.print_table(board, console)
    return console.file.getvalue()


def test_table_without_a_terminal_is_plain(study):
    text = printed(build.build(study), width=40)  # lines of a log are not wrapped
    lines = text.splitlines()
    assert lines[0] == "mqar"
    assert lines[1].split() == [
        "architecture",
        "state",
        "params",
        "lr",
        "test",
        "accuracy",
        "seeds",
        "seconds",
    ]
    names = [ORACLE, "attention", "gla", "mamba", *FLOORS]
    for name, line in zip(names, lines[2:], strict=False):
        assert line.startswith(f"{name} ")
    assert "\x1b" not in text
    assert lines[2 + len(names)].startswith("Reference scores: oracle: answers every query; ")
    assert lines[3 + len(names)] == "mamba: 1 of 1 failed: out of memory"


def test_table_fits_a_terminal(study):
    text = printed(build.build(study), width=80, force_terminal=True, color_system=None)
    assert "0.979 ± 0.025" in text
    assert "1 of 1 failed" in text
    assert max(map(len, text.splitlines()[:10])) <= 80


def test_figure2_panels(tmp_path, make_record):
    for length in (64, 128):
        for width in (64, 128):
            for seed in range(2):
                task = {"vocab_size": 512, "length": length, "num_kv_pairs": 4}
                score = width / (4 * length) + 0.01 * seed
                record = make_record("gla", seed, test=score, d_model=width, task=task)
                store.write(tmp_path, record)
    board = build.build(tmp_path)
    pictures = plots.draw_all(board)
    assert set(pictures) == {"plots/state.png", "plots/width.png", "plots/curves.png"}
    for picture in pictures.values():
        assert [panel.get_title("left") for panel in picture.axes] == ["length=64", "length=128"]
    assert "## length=64" in (tmp_path / "leaderboard.md").read_text()


def test_a_score_of_nan_counts_as_diverged_in_the_table_and_below(tmp_path, make_record):
    store.write(tmp_path, make_record("gla", 0, test=0.5))
    store.write(tmp_path, make_record("gla", 1, test=None, validation=0.5))
    build.build(tmp_path)
    page = (tmp_path / "leaderboard.md").read_text()
    assert "1 of 2 trials are done, 1 diverged, 0 failed." in page
    assert "gla: 1 of 2 diverged" in page


def test_nothing_but_failures(tmp_path, make_record):
    store.write(tmp_path, make_record(status="diverged", state_bytes=None))
    board = build.build(tmp_path)
    assert {p.name for p in board.files} == {"leaderboard.md", "leaderboard.csv"}
    assert "1 of 1 diverged" in (tmp_path / "leaderboard.md").read_text()


def test_pareto():
    points = [(4, 0.5), (1, 0.2), (2, 0.1), (4, 0.9), (8, 0.9), (16, 1.0)]
    assert plots.pareto(points, tasks.Task.metric) == [(1, 0.2), (4, 0.9), (16, 1.0)]
    loss = tasks.Metric("loss", higher_is_better=False)
    assert plots.pareto(points, loss) == [(1, 0.2), (2, 0.1)]


def test_folder_of_studies(study, make_record, capsys):
    (study.parent / "published").mkdir()
    store.write(study.parent / "other", make_record(study="other"))
    assert command.main(["--workdir", str(study.parent)]) == 0
    index = (study.parent / "leaderboard.md").read_text()
    assert "[mqar](mqar/leaderboard.md)" in index
    assert "[other](other/leaderboard.md)" in index
    assert "published" not in index
    assert command.main(["--workdir", str(study.parent), "--check"]) == 0
    (study.parent / "leaderboard.md").write_text("old")
    capsys.readouterr()
    assert command.main(["--workdir", str(study.parent), "--check"]) == 1
    assert str(study.parent / "leaderboard.md") in capsys.readouterr().err


def test_check_writes_nothing(study, make_record, capsys):
    check = ["--workdir", str(study), "--check"]
    assert command.main(check) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 4
    assert "leaderboard.csv is missing" in error
    assert [p.name for p in study.iterdir()] == ["trials"]
    build.build(study)
    assert command.main(check) == 0
    (study / "plots/state.png").unlink()
    assert command.main(check) == 1
    assert "plots/state.png is missing" in capsys.readouterr().err
    build.build(study)
    store.write(study, make_record("hyena"))
    assert command.main(check) == 1
    assert "leaderboard.md does not match the trial files" in capsys.readouterr().err


def test_unwritable(study, capsys):
    (study / "plots").write_text("in the way")
    assert command.main(["--workdir", str(study)]) == 2
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert str(study / "plots") in error
    assert len(error.splitlines()) == 1


def test_command_line(study):
    done = run("--workdir", study)
    assert done.returncode == 0, done.stderr
    assert "attention" in done.stdout
    assert f"wrote {study / 'leaderboard.md'}" in done.stdout
    assert run("--workdir", study, "--check").returncode == 0


def test_command_line_names_what_is_wrong(study, tmp_path):
    empty = tmp_path / "empty"
    (empty / "trials").mkdir(parents=True)
    corrupt = tmp_path / "corrupt"
    (corrupt / "trials").mkdir(parents=True)
    (corrupt / "trials/a.json").write_text('{"id": "a"')
    for workdir, words in (
        (tmp_path / "absent", "No such file or directory"),
        (empty, "no trials in"),
        (corrupt, "a.json: not valid JSON"),
    ):
        done = run("--workdir", workdir)
        assert done.returncode == 2
        assert words in done.stderr
        assert str(workdir) in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""
