"""Makes the modules beside this file importable by every test, and the PostgreSQL server available to all.

Recording is off here, in this process and in those that ``commands.environment`` describes: a server that records
starts another process, and the tests start hundreds of servers. What is about records turns it on (``--record``,
``record=True``), and a few whole stories run as a person has them, with ``commands.as_it_comes``.

Properties have no deadline: a slow machine finds no fault in the code.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["MODELYARD_RECORD"] = "off"

from hypothesis import HealthCheck, settings

from postgres import postgres_url

__all__ = ["postgres_url"]

settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
