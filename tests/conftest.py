"""Compiled programs are kept between test processes: most of a test's time is compilation."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "seqbench-test-cache")
)
# The small ones too: what runs outside jit is hundreds of them, and each process needs its own.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
