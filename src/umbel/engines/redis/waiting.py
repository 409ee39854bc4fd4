"""How an idle consumer waits: for each list one connection blocks in BLMOVE into the owner's own staging list.

A message wakes exactly one waiting connection and is safe from the moment it is moved: `recover` finds what is staged.
The others go on waiting while the consumer takes that message, if it says that it comes back (`Lease.again`). Before it
goes busy they are disarmed, so that none of them takes what another could run.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

from umbel.core.errors import OperationalError
from umbel.engines.redis.connection import NOTHING, Client, Link
from umbel.engines.redis.keys import DUE_CHANNEL, Keys

__all__ = ["LONGEST_BLOCK", "Place", "Places"]

#: The longest that the server lets a connection block (seconds); a dead owner's connections take nothing after that.
LONGEST_BLOCK = 30.0
#: How long the reply of a disarmed connection is waited for (seconds).
_DISARM = 2.0


class Place:
    """Where one owner waits in this process. Used by one thread, but for `wake`."""

    def __init__(self, client: Client, keys: Keys, owner: str) -> None:
        self._client = client
        self._keys = keys
        self._owner = owner
        self._links: dict[bytes, Link] = {}
        self._armed: dict[bytes, Link] = {}
        self._news: Link | None = None
        self._poller = select.poll()
        #: Descriptor of each connection → its list.
        self._names: dict[int, bytes] = {}
        self._bell = os.pipe()
        for end in self._bell:
            os.set_blocking(end, False)
        self._poller.register(self._bell[0], select.POLLIN)
        self._woken = False
        self._lock = threading.Lock()
        self._closed = False
        #: When the connections were made.
        self._since = time.monotonic()
        #: Whether anything may ever have been staged here.
        self.staged = False
        #: Until when its owner need not look (monotonic): when it last did, nothing was left that was ready.
        self.quiet_until = 0.0
        #: The queues that it looked at then.
        self.queues: tuple[str, ...] = ()

    # --- waiting -------------------------------------------------------------------------------------------

    @property
    def armed(self) -> bool:
        """Whether any connection waits."""
        return bool(self._armed)

    def idle(self, lists: Sequence[bytes]) -> list[bytes]:
        """Return those of the lists for which no connection waits: in the others a message does not stay."""
        return [name for name in lists if name not in self._armed]

    def wait(self, lists: Sequence[bytes], seconds: float) -> bool:
        """Block until a message has been staged, a new earliest due time is told, `wake` or the time is over.

        True when nothing but the first has happened.
        """
        try:
            if self._client.doubted > self._since:
                self.drop()
            self._listen()
            self._arm(lists, seconds)
            return self._poll(seconds)
        except OperationalError:
            self.drop()
            raise

    def _listen(self) -> None:
        if self._news is None:
            self._news = self._client.open()
            self._poller.register(self._news.fileno(), select.POLLIN)
            self._news.send("SUBSCRIBE", self._keys.key(DUE_CHANNEL))
            # Its confirmation: what is published from now on is heard.
            self._news.receive(_DISARM)

    def _arm(self, lists: Sequence[bytes], seconds: float) -> None:
        for name in [name for name in self._links if name not in lists]:
            self._close(name)
        self.staged = True
        block = f"{min(seconds + 1.0, LONGEST_BLOCK):.3f}"
        for name in lists:
            if name in self._armed:
                continue
            link = self._links.get(name)
            if link is None:
                link = self._links[name] = self._client.open()
                self._names[link.fileno()] = name
                self._poller.register(link.fileno(), select.POLLIN)
            self._armed[name] = link
            staged = self._keys.staged(self._owner, name)
            link.send("BLMOVE", self._keys.key(name), staged, "RIGHT", "LEFT", block)

    def _poll(self, seconds: float) -> bool:
        if self._woken:
            return False
        if self._client.location.tls is not None:
            # What came before the poll began may have been decrypted already.
            if self._heard():
                return False
            if self._arrived(self._armed):
                return True
        staged, other = False, False
        for fd, _ in self._poller.poll(max(0.0, min(seconds, LONGEST_BLOCK)) * 1000):
            name = self._names.get(fd)
            if name is not None:
                staged = self._arrived((name,)) or staged
            else:
                other = True
                if fd != self._bell[0]:
                    self._heard()
        return staged and not other

    def _close(self, name: bytes) -> None:
        """Close the connection of a list."""
        link = self._links.pop(name, None)
        self._armed.pop(name, None)
        if link is not None:
            self._names.pop(link.fileno(), None)
            with contextlib.suppress(KeyError, ValueError):
                self._poller.unregister(link.fileno())
            link.close()

    def _heard(self) -> bool:
        heard = False
        while self._news is not None and self._news.take():
            heard = True
        return heard

    def _arrived(self, names: Collection[bytes]) -> bool:
        """Take the replies that have come; those links are not armed any more."""
        came = False
        for name in tuple(names):
            link = self._armed.get(name, self._links[name])
            if link.take():
                self._armed.pop(name, None)
                came = True
        return came

    # --- disarming -----------------------------------------------------------------------------------------

    def unblock(self) -> list[tuple[Any, ...]]:
        """Return the commands that end what blocks at the server; send them in front of the lease."""
        return [("CLIENT", "UNBLOCK", link.id) for link in self._armed.values()]

    def disarmed(self, answers: Sequence[Any]) -> bool:
        """Take in the answers to `unblock`; True when something may have been staged after the lease."""
        late = False
        # Of connections that may be dead no reply is waited for.
        patience = _DISARM if self._client.doubted <= self._since else 0.0
        for name, answer in zip(list(self._armed), answers, strict=True):
            link = self._armed.pop(name)
            try:
                if answer == 1:
                    reply = link.receive(patience)
                else:
                    # Its reply is on the way, or the server has not read its BLMOVE yet.
                    reply = link.receive(0.0)
                    late = late or reply is NOTHING
                    reply = self._insist(link, patience) if reply is NOTHING else reply
            except OperationalError:
                reply = NOTHING
            if reply is NOTHING:
                late = True
                self._close(name)
        return late

    def _insist(self, link: Link, patience: float) -> Any:
        until = time.monotonic() + patience
        while time.monotonic() < until:
            reply = link.receive(0.005)
            if reply is not NOTHING:
                return reply
            self._client.call("CLIENT", "UNBLOCK", link.id)
        return NOTHING

    # --- other threads, and the end ------------------------------------------------------------------------

    def wake(self) -> None:
        """End the wait, or the next one; safe from any thread."""
        self._woken = True
        with self._lock, contextlib.suppress(OSError):
            if not self._closed:
                os.write(self._bell[1], b"!")

    def woken(self) -> bool:
        """Tell, once, whether `wake` was called."""
        if not self._woken:
            return False
        with contextlib.suppress(OSError):
            os.read(self._bell[0], 4096)
        self._woken = False
        return True

    def drop(self) -> None:
        """Close the connections; the next wait opens others."""
        links = [*self._links.values(), *([self._news] if self._news is not None else [])]
        self._poller, self._names = select.poll(), {}
        if not self._closed:
            self._poller.register(self._bell[0], select.POLLIN)
        self._links, self._armed, self._news = {}, {}, None
        self.quiet_until = 0.0
        self._since = time.monotonic()
        for link in links:
            link.close()

    def close(self) -> None:
        """Close everything."""
        self.drop()
        with self._lock:
            if not self._closed:
                self._closed = True
                for end in self._bell:
                    os.close(end)


class Places:
    """The places of all owners in this process; after a fork the child has none of its parent's."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._places: dict[str, Place] = {}

    def of(self, owner: str) -> Place:
        """Return the place of an owner."""
        with self._lock:
            if self._pid != os.getpid():
                # The connections belong to the parent: closing our ends of them says nothing to the server.
                for inherited in self._places.values():
                    inherited.close()
                self._places, self._pid = {}, os.getpid()
            place = self._places.get(owner)
            if place is None:
                place = self._places[owner] = Place(self._client, self._keys, owner)
            return place

    def wake(self) -> None:
        """End every wait of this process, or the next one."""
        for place in list(self._places.values()):
            place.wake()

    def close(self) -> None:
        """Close every place."""
        with self._lock:
            for place in self._places.values():
                place.close()
            self._places = {}
