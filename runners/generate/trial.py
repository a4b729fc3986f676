"""The trials whose models are asked for."""

from pathlib import Path

from runners.core import store
from runners.core.errors import ResultsError, nearest
from runners.core.store import Record
from runners.leaderboard.selection import representatives
from runners.training import weights


def find(workdir: Path, prefix: str) -> Record:
    """The trial of a workdir with this id, or with an id that begins so.

    Raises:
      ResultsError: there is none, or more than one.
    """
    records = {record["id"]: record for record in store.read_all(workdir)}
    if prefix in records:
        return records[prefix]
    found = [trial for trial in records if prefix and trial.startswith(prefix)]
    if len(found) == 1:
        return records[found[0]]
    if found:
        shown = ", ".join(found[:5]) + ", …" * (len(found) > 5)
        raise ResultsError(
            f"--trial {prefix!r} begins the ids of {len(found)} trials: {shown}; give more digits"
        )
    if not records:
        raise ResultsError(f"no trials in {str(workdir)!r}: name a study's folder with --workdir")
    hint = nearest(prefix, records) if len(records) <= 20 else f"{len(records)} others are there"
    raise ResultsError(f"--trial {prefix!r}: no such trial in {str(workdir)!r}; {hint}")


def best(workdir: Path) -> list[Record]:
    """One trial with weights of each row of the leaderboard, best first; at least one.

    Raises:
      ResultsError: there is none.
    """
    records = store.read_all(workdir)
    done = (record["id"] for record in records if record["status"] == "done")
    found = representatives(records, weights.kept(workdir, done))
    if not found:
        raise ResultsError(
            f"no trial with weights in {str(workdir)!r} has a score: name one with --trial"
        )
    return [record for _, record in found]
