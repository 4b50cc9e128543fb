"""Makes the modules beside this file importable by every test, and the PostgreSQL server available to all."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from postgres import postgres_url

__all__ = ["postgres_url"]
