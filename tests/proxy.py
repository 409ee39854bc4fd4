"""A TCP proxy on loopback that misbehaves on request: one thread, and every order has taken effect when it returns."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

#: Directions.
TO_SERVER = "to server"
TO_CLIENT = "to client"
BOTH = (TO_SERVER, TO_CLIENT)
_CHUNK = 1 << 16
#: Bytes kept per direction before the sender is made to wait, as a full socket buffer would.
_HELD = 1 << 18
_RESET = struct.pack("ii", 1, 0)
_GONE = (ConnectionError, TimeoutError)


class Flow:
    """One direction of one connection: what has been read and not been passed on yet."""

    def __init__(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        self.source = source
        self.target = target
        self.direction = direction
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.passed = 0
        self.ended = False
        self.told_end = False
        #: Bytes vanish without a word to either side.
        self.dropping = False
        #: Nothing more is passed on before this moment (throttling).
        self.idle_until = 0.0

    def wants_read(self) -> bool:
        """Tell whether there is room for more."""
        return not self.ended and self.size < _HELD

    def due(self) -> float | None:
        """Return when something can be passed on; None when there is nothing."""
        return max(self.chunks[0][0], self.idle_until) if self.chunks else None


class Link:
    """A client's connection and the one that was made to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.flows = {
            TO_SERVER: Flow(client, server, TO_SERVER),
            TO_CLIENT: Flow(server, client, TO_CLIENT),
        }


class Proxy:
    """Forwards connections to (host, port); `port` is its own.

    `delay`, `throttle`, `freeze` and `refuse` last until `restore`; `cut` and `strand` hit the connections that
    exist now; `drop` hits those that exist and, if told so, new ones; `cut_after` arms a single cut.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._links: set[Link] = set()
        self._delay = 0.0
        self._rate = 0.0
        self._frozen = False
        self._drop_new: tuple[str, ...] = ()
        self._cut_at: dict[str, int] = {}
        #: Bytes passed on, by direction.
        self.passed = dict.fromkeys(BOTH, 0)
        #: Connections accepted so far.
        self.accepted = 0
        self._orders: deque[tuple[Callable[[], object], threading.Event]] = deque()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def url(self, url: str) -> str:
        """Return the URL of the server with the proxy's address in place of its own."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}").geturl()

    # --- orders ------------------------------------------------------------------------------------------------

    def links(self) -> int:
        """Return how many connections there are now."""
        return len(self._links)

    def delay(self, seconds: float) -> None:
        """Pass everything on so much later."""
        self._order(lambda: setattr(self, "_delay", seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Pass on no more than so much, per connection and direction; 0 is no limit."""
        self._order(lambda: setattr(self, "_rate", bytes_per_second))

    def freeze(self) -> None:
        """Accept connections and bytes, and pass nothing on, as a stopped machine does."""
        self._order(lambda: setattr(self, "_frozen", True))

    def cut(self, how: str = "rst") -> int:
        """End every connection, with a reset ("rst") or in order ("fin"); return how many there were."""
        count = len(self._links)
        self._order(lambda: self._end_all(reset=how == "rst"))
        return count

    def cut_after(self, count: int, direction: str = TO_CLIENT) -> None:
        """Reset the connection that has passed so many further bytes in this direction, once.

        With 0 towards the client the next request arrives and its reply is lost.
        """
        self._order(lambda: self._arm(count, direction))

    def strand(self) -> None:
        """Leave the connections that exist open and let all their bytes vanish; new ones work."""
        self._order(lambda: self._drop(BOTH, new=False))

    def drop(self, *directions: str, new: bool = False) -> None:
        """Let bytes of these directions vanish; with `new`, in connections to come as well."""
        self._order(lambda: self._drop(directions, new=new))

    def refuse(self) -> None:
        """Refuse new connections."""
        self._order(self._unlisten)

    def restore(self) -> None:
        """Be a good proxy again; connections that have lost bytes stay lost."""
        self._order(self._mend)

    def close(self) -> None:
        """End all connections and the thread."""
        if self._thread.is_alive():
            self._order(lambda: setattr(self, "_closing", True))
            self._thread.join(5)
        # Not the thread closes these: it may see the order, and end, before the bell rings.
        self._bell.close()
        self._ringer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _order(self, action: Callable[[], object]) -> None:
        done = threading.Event()
        self._orders.append((action, done))
        self._ringer.send(b"x")
        if not done.wait(5):
            raise RuntimeError("the proxy's thread does not answer")

    # --- what orders do, in the thread -------------------------------------------------------------------------

    def _arm(self, count: int, direction: str) -> None:
        for link in self._links:
            link.flows[direction].passed = 0
        self._cut_at[direction] = count

    def _drop(self, directions: tuple[str, ...], *, new: bool) -> None:
        for link in self._links:
            for direction in directions:
                flow = link.flows[direction]
                flow.dropping = True
                flow.chunks.clear()
                flow.size = 0
        if new:
            self._drop_new = directions

    def _mend(self) -> None:
        self._delay = self._rate = 0.0
        self._frozen = False
        self._drop_new = ()
        self._cut_at.clear()
        if self._listener is None:
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            for key, _events in self._selector.select(self._arrange()):
                if key.fileobj is self._bell:
                    self._bell.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            while self._orders:
                action, done = self._orders.popleft()
                action()
                done.set()
            self._pass_on()
        self._end_all(reset=True)
        self._unlisten()
        self._selector.close()

    def _arrange(self) -> float | None:
        """Listen to the sockets that there is room for; return how long nothing else has to be done."""
        now = time.monotonic()
        moments: list[float] = []
        for link in self._links:
            for flow in link.flows.values():
                registered = flow.source.fileno() in self._selector.get_map()
                if flow.wants_read() and not registered:
                    self._selector.register(flow.source, selectors.EVENT_READ, (link, flow))
                elif registered and not flow.wants_read():
                    self._selector.unregister(flow.source)
                due = flow.due()
                if due is not None and not self._frozen:
                    # What is due and still here waits for room at the other end.
                    moments.append(max(due, now + 0.002))
        return max(0.0, min(moments) - now) if moments else None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, timeout=2)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
        link = Link(client, server)
        for direction in self._drop_new:
            link.flows[direction].dropping = True
        self._links.add(link)

    def _read(self, data: tuple[Link, Flow]) -> None:
        link, flow = data
        if link not in self._links:
            return
        try:
            chunk = flow.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if flow.dropping and isinstance(error, _GONE):
                flow.ended = True
            else:
                self._end(link, reset=True)
            return
        if flow.dropping:
            flow.ended = not chunk
        elif chunk:
            flow.chunks.append((time.monotonic() + self._delay, chunk))
            flow.size += len(chunk)
        else:
            flow.ended = True

    def _pass_on(self) -> None:
        now = time.monotonic()
        for link in list(self._links):
            for flow in link.flows.values():
                while link in self._links and not self._frozen and (due := flow.due()) is not None and due <= now:
                    if not self._send(link, flow, now):
                        break
                if link in self._links and flow.ended and not flow.chunks and not self._frozen:
                    self._tell_end(link, flow)

    def _send(self, link: Link, flow: Flow, now: float) -> bool:
        """Pass on the oldest chunk or a part of it; False when the receiver has no room."""
        at, chunk = flow.chunks[0]
        allowed = len(chunk) if not self._rate else max(1, min(len(chunk), int(self._rate / 20)))
        limit = self._cut_at.get(flow.direction)
        if limit is not None:
            allowed = min(allowed, limit - flow.passed)
        try:
            sent = flow.target.send(chunk[:allowed]) if allowed else 0
        except BlockingIOError:
            return False
        except OSError:
            self._end(link, reset=True)
            return False
        flow.passed += sent
        flow.size -= sent
        self.passed[flow.direction] += sent
        if sent == len(chunk):
            flow.chunks.popleft()
        else:
            flow.chunks[0] = (at, chunk[sent:])
        if self._rate:
            flow.idle_until = now + sent / self._rate
        if limit is not None and flow.passed >= limit and (limit or not sent):
            del self._cut_at[flow.direction]
            self._end(link, reset=True)
        return True

    def _tell_end(self, link: Link, flow: Flow) -> None:
        if not flow.told_end and not flow.dropping:
            with suppress(OSError):
                flow.target.shutdown(socket.SHUT_WR)
        flow.told_end = True
        if all(one.ended and not one.chunks for one in link.flows.values()):
            self._end(link, reset=False)

    def _end_all(self, *, reset: bool) -> None:
        for link in list(self._links):
            self._end(link, reset=reset)

    def _end(self, link: Link, *, reset: bool) -> None:
        self._links.discard(link)
        for one in (link.client, link.server):
            if one.fileno() in self._selector.get_map():
                self._selector.unregister(one)
            with suppress(OSError):
                if reset:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.close()
