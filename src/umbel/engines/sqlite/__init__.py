"""The embedded engine: broker, store and bus in one SQLite file that any number of processes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.engine.seam import Caps, Engine
from umbel.engines.sqlite.bells import Ringer
from umbel.engines.sqlite.broker import SqliteBroker
from umbel.engines.sqlite.bus import SqliteBus
from umbel.engines.sqlite.database import Database
from umbel.engines.sqlite.location import locate
from umbel.engines.sqlite.store import SqliteStore

__all__ = ["open_engine"]

_TEXT = {
    "normal": "every commit survives kill -9; a power cut may take the last ones (?synchronous=full keeps them)",
    "full": "every commit survives kill -9 and a power cut",
}


def open_engine(url: str, options: Mapping[str, Any]) -> Engine:
    """Open the file that `url` names (see `location.locate`); the file itself is made at first use."""
    location = locate(url, options)
    database = Database(location)
    ringer = Ringer(location.bells)
    broker = SqliteBroker(database, ringer)
    return Engine(
        url=url,
        caps=Caps(durability="A", durability_text=f"transactional: {_TEXT[location.synchronous]}"),
        broker=broker,
        store=SqliteStore(database, ringer),
        bus=SqliteBus(database, ringer),
        dead=broker,
        atomic=broker,
    )
