"""The engine inside one process: the same semantics as the others, for tests and single programs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from umbel.core.errors import ImproperlyConfigured
from umbel.engine.seam import Caps, Engine
from umbel.engines.memory.broker import MemoryBroker
from umbel.engines.memory.state import State
from umbel.engines.memory.store import MemoryBus, MemoryStore

__all__ = ["open_engine"]

_CAPS = Caps(durability="-", durability_text="in memory: nothing outlives this process", shared=False)


_named: weakref.WeakValueDictionary[str, State] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def open_engine(url: str, options: Mapping[str, Any]) -> Engine:
    """Open `memory://` (an engine of its own) or `memory://name` (one for all who say the name in this process)."""
    if options:
        raise ImproperlyConfigured(f"the memory engine has no options; remove {', '.join(map(repr, sorted(options)))}")
    name = url.partition("://")[2].strip("/")
    with _lock:
        state = _named.get(name) or State()
        if name:
            _named[name] = state
    broker = MemoryBroker(state)
    return Engine(
        url=url,
        caps=_CAPS,
        broker=broker,
        store=MemoryStore(state),
        bus=MemoryBus(state),
        dead=broker,
        atomic=broker,
    )
