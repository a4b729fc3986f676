"""Makes the task of `text_study` importable, by the tests and by its name in configurations."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
