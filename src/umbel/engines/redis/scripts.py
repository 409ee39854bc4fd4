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
    """Return a script of these parts; what they share stands in front of each."""
    texts = [_FOLDER.joinpath(f"{part}.lua").read_text("utf-8") for part in ("prelude", *parts, name)]
    return Script(name, "\n".join(texts))


LEASE = load_script("lease")
CLAIM = load_script("claim")
START = load_script("start")
EXTEND = load_script("extend", "queues")
REMOVE = load_script("remove", "queues")
HEAR = load_script("hear")
COMMIT = load_script("commit", "put_record", "groups")
GO_ON = load_script("go_on", "put_record")
RECOVER = load_script("recover", "adopted")
ADOPT = load_script("adopt", "adopted")
PUBLISH = load_script("publish")
DEPTH = load_script("depth")
PURGE = load_script("purge")
REVIVE = load_script("revive")
SCHEDULED = load_script("scheduled")
BURY = load_script("bury")
DROP = load_script("drop")
