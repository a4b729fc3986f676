import pytest


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """A folder of stored data for each test."""
    monkeypatch.setenv("SEQBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
