"""Makes `kit`, the vocabulary of these tests, importable however pytest imports test modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
