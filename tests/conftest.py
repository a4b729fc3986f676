"""Most of a test's time is compilation: programs are kept between processes, and not optimised.

Equations are under test here, not LLVM; a third of the time is saved. With optimisations, as users
have them: XLA_FLAGS= python -m pytest.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "seqbench-test-cache")
)
# The small ones too: what runs outside jit is hundreds of them, and each process needs its own.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
