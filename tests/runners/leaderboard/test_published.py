"""Tables of numbers from papers: the format of their files, and their part of a page."""

import copy
import json

import pytest

from runners.core import store
from runners.core.errors import ResultsError
from runners.leaderboard import __main__ as command
from runners.leaderboard import build, published, published_tables
from runners.leaderboard.selection import select

SMALL = {"vocab_size": 512, "length": 64, "num_kv_pairs": 4}
LARGE = SMALL | {"length": 128}

TABLE = {
    "title": "Recall",
    "description": "Test accuracy in percent.",
    "metric": "accuracy",
    "scale": 100,
    "decimals": 1,
    "better": "higher",
    "missing": {"mark": "✗", "value": 10},
    "columns": {
        "small": {"title": "Short", "task": "mqar", "options": [SMALL]},
        "large": {"title": "Long", "task": "mqar", "options": [LARGE]},
    },
    "averages": {"both": ["small", "large"]},
    "notes": ["Made up."],
    "rows": [
        {
            "name": "GLA",
            "mixer": "gla",
            "source": "A 2024",
            "protocol": "p",
            "scores": {"small": 50.05, "large": None},
        },
        {
            "name": "Best",
            "mixer": None,
            "source": "B 2024",
            "protocol": "q",
            "scores": {"small": 91.0},
            "printed": {"both": 90.25},
        },
    ],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of published tables, to be filled."""
    path = tmp_path / "published"
    path.mkdir()
    monkeypatch.setattr(published, "FOLDER", path)
    return path


def write(folder, table):
    (folder / "recall.json").write_text(json.dumps(table))


def section_of(text):
    """The lines of the page that are about published numbers."""
    return text.partition("## Reported elsewhere")[2].partition("\n## How to read it")[0]


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_task_that_is_no_longer_here_is_not_recognised():
    column = published.PublishedColumn("Gone", "gone", ({},))
    assert not column.holds({"name": "gone", "options": {}, "version": 1})


def test_the_section_of_a_page(folder, tmp_path, make_record):
    write(folder, TABLE)
    study = tmp_path / "study"
    # The narrow GLA is best on validation, the wide one on the test set.
    for width, validation, test in ((32, 0.8, 0.5), (64, 0.7, 0.9)):
        for seed in range(2):
            record = make_record(
                "gla", seed, d_model=width, validation=validation, test=test + 0.01 * seed
            )
            store.write(study, record)
    store.write(study, make_record("gla", test=0.251, task=LARGE, steps=4000))
    store.write(study, make_record("mamba", test=0.95))
    store.write(study, make_record("hyena", status="failed", error="too long"))
    build.build(study)
    text = section_of((study / "leaderboard.md").read_text())
    assert text.startswith(": Recall\n\nTest accuracy in percent.\n")
    assert text.rstrip().endswith("- Made up.")
    measured, reported = text.split("### Reported by papers, not measured here")
    # Scores 50 and 51: s = 0.7071, so 12.706 · 0.7071 / √2 = 6.35. (50.5 + 25.1) / 2 = 37.8.
    assert rows_of(measured) == [
        ["architecture", "Short", "Long", "both", "protocol"],
        ["---", "---:", "---:", "---:", "---"],
        ["gla", "50.5 ± 6.4", "25.1", "37.8", "1 or 2 seeds, 200 to 4.0k steps"],
        ["mamba", "95.0", "–", "–", "1 seed, 200 steps"],
        ["hyena", "1 of 1 failed", "–", "–", "0/1 seeds"],
    ]
    # (50.05 + 10) / 2 = 30.025.
    assert rows_of(reported) == [
        ["reported", "here", "Short", "Long", "both", "protocol", "source"],
        ["---", "---", "---:", "---:", "---:", "---", "---"],
        ["*Best*", "–", "*91.0*", "–", "*90.25*", "*q*", "*B 2024*"],
        ["*GLA*", "`gla`", "*50.05*", "*✗*", "*30.0*", "*p*", "*A 2024*"],
    ]
    assert "B 2024" not in (study / "leaderboard.csv").read_text()


def test_a_study_of_other_settings_shows_no_published_number(folder, tmp_path, make_record):
    write(folder, TABLE)
    study = tmp_path / "study"
    store.write(study, make_record(task=SMALL | {"num_kv_pairs": 2}))
    build.build(study)
    assert section_of((study / "leaderboard.md").read_text()) == ""


def test_a_study_judged_by_another_metric_shows_no_published_number(folder, make_record):
    write(folder, TABLE | {"metric": "perplexity"})
    assert published_tables.to_lines(select([make_record()]), published.read_all()) == []
    write(folder, TABLE)
    assert published_tables.to_lines(select([make_record()]), published.read_all()) != []


def test_a_metric_of_which_less_is_better(folder, tmp_path, make_record):
    table = copy.deepcopy(TABLE) | {"better": "lower", "missing": None}
    table["rows"][0]["scores"]["large"] = 5.0
    write(folder, table)
    study = tmp_path / "study"
    for width, score in ((32, 0.8), (64, 0.7)):
        store.write(study, make_record("gla", d_model=width, test=score))
    store.write(study, make_record("gla", d_model=128, status="diverged"))
    store.write(study, make_record("mamba", test=0.2))
    build.build(study)
    measured, reported = section_of((study / "leaderboard.md").read_text()).split("### Reported")
    assert [row[:2] for row in rows_of(measured)[2:]] == [["mamba", "20.0"], ["gla", "70.0"]]
    assert [row[0] for row in rows_of(reported)[2:]] == ["*GLA*", "*Best*"]
    assert rows_of(measured)[0] == ["architecture", "Short ↓", "Long ↓", "both ↓", "protocol"]


def test_a_table_beside_a_task_is_shown_with_what_was_measured(folder, make_record):
    table = copy.deepcopy(TABLE)
    table["columns"]["other"] = {"title": "Other", "task": None, "options": []}
    write(folder, table | {"beside": ["mqar"]})

    def page(record):
        return "\n".join(published_tables.to_lines(select([record]), published.read_all()))

    measured = page(make_record(task=SMALL))
    assert "Not tasks of Seqbench: Other." in measured
    assert rows_of(measured)[2][:4] == ["gla", "50.0", "–", "–"]
    unmeasured = page(make_record(task=SMALL | {"num_kv_pairs": 2}))
    assert "Measured in this study" not in unmeasured
    assert "B 2024" in unmeasured


def test_check_covers_the_section(folder, tmp_path, make_record, capsys):
    write(folder, TABLE)
    study = tmp_path / "study"
    store.write(study, make_record())
    build.build(study)
    check = ["--workdir", str(study), "--check"]
    assert command.main(check) == 0
    table = copy.deepcopy(TABLE)
    table["rows"][1]["scores"]["small"] = 92.0
    write(folder, table)
    assert command.main(check) == 1
    assert "leaderboard.md does not match" in capsys.readouterr().err
    (folder / "recall.json").write_text("{")
    assert command.main(check) == 2
    assert "recall.json" in capsys.readouterr().err


def broken(path, value):
    """The table with another value at a path; a value of ... takes the key away."""
    table = copy.deepcopy(TABLE)
    *parents, last = path
    place = table
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["metric"], ..., "the file lacks the field 'metric'"),
        (["metrics"], "accuracy", "the file names 'metrics': did you mean 'metric'?"),
        (["scale"], "100", "scale is '100', expected a number"),
        (["scale"], 0, "scale is 0, expected a number above 0"),
        (["decimals"], -1, "decimals is -1"),
        (["decimals"], True, "decimals is 'True', expected a number"),
        (["better"], "more", "better is 'more', expected 'higher' or 'lower'"),
        (["missing"], {}, "missing lacks the field 'mark'"),
        (["missing"], None, "rows[0] (GLA): scores.large is 'None', expected a number"),
        (["columns", "small", "options"], {}, "columns.small.options is '{}', expected a list"),
        (["columns", "small", "options"], [], "columns.small.options is empty"),
        (["columns", "small", "options"], [1], "columns.small.options[0] is '1'"),
        (["columns", "small", "task"], None, "columns.small.options are of no task"),
        (["columns", "small", "task"], 1, "columns.small.task is '1', expected text or null"),
        (["beside"], "mqar", "beside is 'mqar', expected a list"),
        (["beside"], [1], "beside[0] is '1', expected text"),
        (["averages", "both"], [], "averages.both is [], expected a list of columns"),
        (["averages", "both"], ["smal"], "averages.both names 'smal': did you mean 'small'?"),
        (["averages", "both"], [["small"]], "averages.both[0] is \"['small']\", expected text"),
        (["notes"], [None], "notes[0] is 'None', expected text"),
        (["rows", 0], [], "rows[0] is '[]', expected an object"),
        (["rows", 0, "mixer"], "glaa", "did you mean 'gla'?"),
        (["rows", 0, "source"], ..., "rows[0] lacks the field 'source'"),
        (["rows", 0, "scores", "smal"], 1.0, "scores names 'smal': did you mean 'small'?"),
        (["rows", 0, "scores", "small"], "50", "scores.small is '50', expected a number or null"),
        (["rows", 0, "scores", "small"], float("nan"), "scores.small is 'nan'"),
        (["rows", 0, "printed"], {"both": 30.0}, "printed.both can be computed from the scores"),
        (["rows", 1, "printed"], {"all": 30.0}, "printed names 'all'"),
    ],
)
def test_errors_are_one_line_and_name_the_place(folder, path, value, words):
    write(folder, broken(path, value))
    with pytest.raises(ResultsError) as caught:
        published.read_all()
    message = str(caught.value)
    assert words in message
    assert "recall.json" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_not_such_a_file(folder, content):
    (folder / "recall.json").write_bytes(content)
    with pytest.raises(ResultsError, match=r"recall\.json: .+; correct it"):
        published.read_all()


def test_a_folder_without_tables(folder):
    assert published.read_all() == ()
