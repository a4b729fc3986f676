"""Trial ids are for ever: those of the committed results, and those of every published study."""

import hashlib
import json
from pathlib import Path

import pytest

from configs import icll
from runners.core.identity import trial_id
from runners.core.naming import mixer_name
from runners.study import config as c

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
STUDIES = {
    "icll": "icll.py",
    "lm": "lm.py:seeds",
    "lm_overnight": "lm.py:overnight",
    "lm_time": "lm.py:laptop_time",
    "lra": "lra.py",
    "mqar": "mqar.py",
    "mqar_every": "mqar.py:every",
    "mqar_patient": "mqar.py:patient",
}
# Rows of an earlier version of the study or of the mixer.
EARLIER = {"base_conv+h3", "base_conv+mamba", "base_conv+titans_mac"}

# Number of trials, and a hash of their sorted ids. Only a new version of a mixer or a task may
# change an entry, or a deliberate change of the study.
PUBLISHED = {
    "icll.py": (27, "b002e7c8d99dec0e"),
    "lm.py": (6, "6c984457268614df"),
    "lm.py:laptop_time": (8, "a915dd25b5402479"),
    "lm.py:overnight": (12, "bcee1527e86fcec3"),
    "lm.py:seeds": (24, "45577716903b0e53"),
    "lra.py": (27, "39d7d04337310c6c"),
    "lra.py:paper": (108, "a25deddfe1b503e9"),
    "masformer.py": (24, "bb8ce0862bc51edc"),
    "masformer.py:paper": (24, "2c2ce5011f18c145"),
    "mqar.py": (45, "6f64c017cdf09918"),
    "mqar.py:based_figure2": (372, "e65cad9119d3b8f0"),
    "mqar.py:figure2": (960, "8e742b1edda81101"),
    "mqar.py:patient": (36, "dbd24278c52df5ca"),
    "sizes.py": (3, "691d52ae1511ea5c"),
    "sizes.py:paper": (15, "fdecf5a80de1c130"),
}


def digest(trials):
    ids = sorted(map(trial_id, trials))
    return len(ids), hashlib.sha256(",".join(ids).encode()).hexdigest()[:16]


def test_every_committed_study_is_tested():
    assert {path.parent.name for path in REFERENCE.glob("*/trials")} == set(STUDIES)


@pytest.mark.parametrize("study", STUDIES)
def test_committed_trials_keep_their_ids(study):
    records = [json.loads(path.read_text()) for path in REFERENCE.glob(f"{study}/trials/*.json")]
    assert records
    for record in records:
        assert trial_id(record["config"]) == record["id"]
    today = set(map(trial_id, c.Study(STUDIES[study]).trials()))
    gone = [record for record in records if record["id"] not in today]
    assert {mixer_name(r["config"]["model"]["mixer"]) for r in gone} == (
        EARLIER if study == "mqar_every" else set()
    )


@pytest.mark.parametrize("spec", PUBLISHED)
def test_published_studies_keep_their_trials(spec):
    assert digest(c.Study(spec).trials()) == PUBLISHED[spec]


def test_the_published_grid_of_icll_keeps_its_trials():
    """One in a hundred of its 14,580."""
    grid = list(icll.sweep(icll.get_config("paper")))[::100]
    trials = [c.Study("icll.py:paper", changes).base_trial() for changes in grid]
    assert digest(trials) == (146, "917b80de15029b06")
