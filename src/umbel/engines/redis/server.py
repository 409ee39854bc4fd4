"""What a Redis says about itself: what its settings mean for messages and results."""

from __future__ import annotations

from dataclasses import dataclass

from umbel.engines.redis import failures
from umbel.engines.redis.connection import Client

__all__ = ["Facts", "look"]


@dataclass(frozen=True)
class Facts:
    """The server as it runs now; None where it does not tell."""

    version: str = ""
    replica: bool = False
    #: Every write goes into the append-only file.
    appendonly: bool | None = None
    #: When that reaches the disk: always, everysec or no.
    appendfsync: str | None = None
    #: Whether snapshots are taken by themselves.
    snapshots: bool | None = None
    maxmemory: int = 0
    policy: str = ""

    @property
    def durability(self) -> str:
        """One line: what a crash of Redis may take."""
        if self.appendonly is None:
            return "memory first: what a crash of Redis may take is not known, since it does not tell its settings"
        if self.appendonly:
            return {
                "always": "memory first: every write is on disk before it is answered (appendfsync always)",
                "no": "memory first: a power cut may take what the system has not written yet (appendfsync no)",
            }.get(self.appendfsync or "", "memory first: a power cut may take the last second (appendonly yes)")
        if self.snapshots:
            return "memory first: a crash of Redis takes everything since its last snapshot (appendonly no)"
        return "memory first: a crash or restart of Redis may take everything (appendonly no)"

    def warnings(self, where: str) -> list[str]:
        """What somebody who relies on this server should know, with what to do; [] if all is well."""
        lines = []
        if self.appendonly is False:
            lines.append(f"{where}: {self.durability}; set `appendonly yes` so that messages outlive it")
        elif self.appendfsync == "no":
            lines.append(f"{where}: {self.durability}; set `appendfsync everysec`")
        if self.maxmemory and self.policy not in ("", "noeviction"):
            what = "results before their time" if self.policy.startswith("volatile") else "messages and results"
            lines.append(
                f"{where} throws away {what} when its memory is full (maxmemory-policy {self.policy}): "
                "set `maxmemory-policy noeviction`, so that publishing fails instead"
            )
        if self.replica:
            lines.append(f"{where} is a replica: name the master in the URL, or use sentinel://")
        return lines


def look(client: Client) -> Facts:
    """Ask the server. What it does not tell to this user stays unknown; raises only when it cannot be reached."""
    info, config = client.pipeline([("INFO",), ("CONFIG", "GET", "*")])
    if isinstance(info, failures.Unreachable):
        raise info
    facts = _lines(info) if isinstance(info, bytes) else {}
    settings: dict[str, str] = {}
    if isinstance(config, list):
        texts = [item.decode("utf-8", "replace") for item in config]
        settings = dict(zip(texts[::2], texts[1::2], strict=True))
    aof = facts.get("aof_enabled") or {"yes": "1", "no": "0"}.get(settings.get("appendonly", ""))
    return Facts(
        version=facts.get("valkey_version") or facts.get("redis_version", ""),
        replica=facts.get("role") == "slave",
        appendonly=None if aof is None else aof == "1",
        appendfsync=settings.get("appendfsync"),
        snapshots=bool(settings["save"]) if "save" in settings else None,
        maxmemory=_number(facts.get("maxmemory", settings.get("maxmemory", ""))),
        policy=facts.get("maxmemory_policy", settings.get("maxmemory-policy", "")),
    )


def _lines(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
