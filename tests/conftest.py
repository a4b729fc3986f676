"""Most of a test's time is compilation: programs are kept between processes, and not optimised.

Equations are under test here, not LLVM; a third of the time is saved. With optimisations, as users
have them: XLA_FLAGS= python -m pytest.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "seqbench-test-cache")
)
# The small ones too: what runs outside jit is hundreds of them, and each process needs its own.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Not among the data of the one who runs the tests.
os.environ["SEQBENCH_DATA"] = str(Path(tempfile.gettempdir()) / "seqbench-test-data")


@pytest.fixture
def texts(tmp_path):
    """A folder of 60 documents of different lengths, one of a single byte."""
    folder = tmp_path / "texts"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        size = 1 if i == 7 else int(rng.integers(2, 400))
        words = rng.choice(["alpha ", "beta ", "gämma ", "\n", "δ"], size)
        (folder / f"{i:02}.txt").write_text("".join(words), encoding="utf-8")
    return folder
