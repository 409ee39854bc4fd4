"""The Lua scripts of the broker: each is one step that Redis takes whole or not at all."""

from __future__ import annotations

from importlib import resources

from umbel.engines.redis.connection import Script

__all__ = [
    "ADOPT",
    "BURY",
    "CLAIM",
    "COMMIT",
    "DEPTH",
    "DROP",
    "EXTEND",
    "GO_ON",
    "HEAR",
    "LEASE",
    "PUBLISH",
    "PURGE",
    "RECOVER",
    "REMOVE",
    "REVIVE",
    "SCHEDULED",
    "START",
]

_FOLDER = resources.files("umbel.engines.redis") / "lua"


def load_script(name: str, *parts: str) -> Script:
    """Return a script, with the parts that it needs in front of it: each function there costs time at every call."""
    texts = [_FOLDER.joinpath(f"{part}.lua").read_text("utf-8") for part in ("prelude", *parts, name)]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return Script(name, "\n".join([line for line in lines if line and not line.startswith("--")]))


LEASE = load_script("lease", "calls", "promote")
CLAIM = load_script("claim", "calls")
START = load_script("start")
EXTEND = load_script("extend", "queues")
REMOVE = load_script("remove", "queues")
HEAR = load_script("hear")
COMMIT = load_script("commit", "schedule", "letters", "put_record", "groups")
GO_ON = load_script("go_on", "put_record")
RECOVER = load_script("recover", "calls", "adopted")
ADOPT = load_script("adopt", "adopted")
PUBLISH = load_script("publish", "schedule")
DEPTH = load_script("depth")
PURGE = load_script("purge")
REVIVE = load_script("revive")
SCHEDULED = load_script("scheduled")
BURY = load_script("bury", "letters")
DROP = load_script("drop")
