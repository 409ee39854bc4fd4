"""The result store of a SQLite file, and its watches."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence

from umbel.core.message import Joined, Part, Record
from umbel.engines.sqlite import bells, joins, results
from umbel.engines.sqlite import pieces as stored_pieces
from umbel.engines.sqlite.bells import Bell, Ringer
from umbel.engines.sqlite.database import Database


class SqliteStore:
    """Where results and revocations live: Store of `umbel.engine.seam` over one file."""

    def __init__(self, database: Database, ringer: Ringer) -> None:
        self._database = database
        self._ringer = ringer

    def put(self, records: Sequence[Record], now: float) -> list[str]:
        """Store states; return the ids whose terminal state stays."""
        refused = self._database.write(results.put, records, now)
        self._ringer.ring(bells.RESULT)
        return refused

    def get(self, ids: Sequence[str], now: float) -> dict[str, Record]:
        """Read states; unknown and expired ids are left out."""
        return self._database.read(results.get, ids, now)

    def watch(self) -> SqliteWatch:
        """Open a watch for this process."""
        return SqliteWatch(self._database)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete states."""
        self._database.write(results.forget, ids)

    def expire(self, now: float, limit: int = 1000) -> int:
        """Drop records and revocations whose time is over; return how many."""
        if not self._database.read(results.has_expired, now):
            return 0
        return self._database.write(results.expire, now, limit)

    def revoke(self, records: Sequence[Record], now: float) -> list[str]:
        """Mark tasks as revoked, end those that wait; return the ids that this ended."""
        ended = self._database.write(results.revoke, records, now)
        if ended:
            self._ringer.ring(bells.RESULT)
        return ended

    def revoked(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids are marked as revoked."""
        return self._database.read(results.revoked, ids)

    def join(self, parts: Sequence[Part], now: float, anew: bool = False) -> list[Joined]:
        """Store parts; return the groups that this completed."""
        return self._database.write(joins.join, parts, now, anew)

    def expect(self, sizes: Mapping[str, int], now: float) -> list[Joined]:
        """Store the sizes of groups; return the groups that this completed."""
        return self._database.write(joins.expect, sizes, now)

    def confirm(self, groups: Collection[str]) -> None:
        """Tell nobody again that these groups are complete."""
        self._database.write(joins.confirm, groups)

    def unconfirmed(self, before: float, limit: int = 100) -> list[Joined]:
        """Return groups that were completed before this time and are not confirmed."""
        return self._database.read(joins.unconfirmed, before, limit)

    def joined(self, groups: Collection[str]) -> dict[str, tuple[bytes, ...]]:
        """Return the payloads of those groups that are complete."""
        return self._database.read(joins.payloads, groups)

    def forget_groups(self, groups: Collection[str], expires: float = 0.0) -> None:
        """Delete the parts of groups, which stay closed until `expires`."""
        self._database.write(joins.forget, groups, expires)

    def grow(self, group: str, by: int, now: float, key: str = "") -> int:
        """Let a group have more members; return the index of the first of them."""
        return self._database.write(joins.grow, group, by, now, key)

    def put_plans(self, pieces: Mapping[str, bytes], now: float, expires: float = 0.0) -> None:
        """Keep pieces of workflows; what is there already stays."""
        self._database.write(stored_pieces.put, pieces, now, expires)

    def take_plans(self, keys: Collection[str], now: float, expires: float) -> dict[str, bytes]:
        """Read pieces, which may go at `expires`."""
        return self._database.write(stored_pieces.take, keys, now, expires)

    def save_group(self, group: str, data: bytes, now: float, expires: float) -> None:
        """Keep what `GroupResult.save` writes."""
        del now
        self._database.write(stored_pieces.save, group, data, expires)

    def saved_group(self, group: str, now: float) -> bytes | None:
        """Return what was saved."""
        return self._database.read(stored_pieces.saved, group, now)

    def delete_group(self, group: str) -> None:
        """Delete what was saved."""
        self._database.write(stored_pieces.delete, group)

    def close(self) -> None:
        """Let go of connections."""
        self._ringer.close()
        self._database.close()


class SqliteWatch:
    """One wait for results: a bell tells that some were stored, their numbers tell which."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bell = Bell(database.location.bells, bells.RESULT, secrets.token_hex(16))
        self._ids: set[str] = set()
        self._fresh: set[str] = set()
        self._lock = threading.Lock()
        self._seen = database.read(results.newest)

    def add(self, ids: Collection[str]) -> None:
        """Begin to watch the ids; the next wait ends at once when one of them has a state already."""
        with self._lock:
            self._fresh.update(set(ids) - self._ids)
            self._ids.update(ids)

    def discard(self, ids: Collection[str]) -> None:
        """Stop watching the ids."""
        with self._lock:
            self._ids.difference_update(ids)
            self._fresh.difference_update(ids)

    def wait(self, timeout: float) -> bool:
        """Wait until a watched result may have changed (True) or the time is over or `wake` was called (False)."""
        deadline = time.monotonic() + timeout
        while True:
            woken = self._bell.drain()
            if self._database.read(self._look):
                return True
            left = deadline - time.monotonic()
            if woken or left <= 0:
                return False
            self._bell.wait(left)

    def _look(self, connection: sqlite3.Connection) -> bool:
        changed = results.changed_since(connection, self._seen)
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            if changed:
                self._seen = changed[-1][0]
            hit = any(id_ in self._ids for _, id_ in changed)
        return hit or (bool(fresh) and results.any_known(connection, fresh))

    def wake(self) -> None:
        """End a wait of another thread, or its next one."""
        self._bell.wake()

    def close(self) -> None:
        """Remove the bell."""
        self._bell.close()
