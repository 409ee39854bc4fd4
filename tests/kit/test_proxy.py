"""The proxy of the test kit does to connections what it was told, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.proxy import TO_CLIENT, TO_SERVER, Proxy


class Echo:
    """Sends back whatever comes, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.ends: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._sockets: list[socket.socket] = []

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._sockets.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                self.heard += data
                connection.sendall(data)
            self.ends.append("fin")
        except ConnectionResetError:
            self.ends.append("rst")
        except OSError:
            self.ends.append("closed")
        connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def dial(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send, and read as many bytes back."""
    threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
    received = b""
    while len(received) < len(data):
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return received


def is_silent(connection: socket.socket, seconds: float = 0.2) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def test_what_goes_in_comes_out_in_both_directions(
    proxy: Proxy, dial: Callable[[], socket.socket], wait_until: Callable[..., None]
) -> None:
    data = bytes(range(256)) * 8192
    assert exchange(dial(), data) == data
    assert exchange(dial(), b"again") == b"again"
    wait_until(lambda: proxy.passed == {TO_SERVER: len(data) + 5, TO_CLIENT: len(data) + 5})
    assert (proxy.links(), proxy.accepted) == (2, 2)


def test_an_end_in_order_is_passed_on(
    dial: Callable[[], socket.socket], echo: Echo, wait_until: Callable[..., None], proxy: Proxy
) -> None:
    connection = dial()
    connection.sendall(b"last words")
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == b"last words"
    assert connection.recv(100) == b""
    assert echo.ends == ["fin"]
    wait_until(lambda: proxy.links() == 0)


def test_delayed_bytes_come_later_and_in_order(proxy: Proxy, dial: Callable[[], socket.socket]) -> None:
    connection = dial()
    proxy.delay(0.2)
    began = time.monotonic()
    assert exchange(connection, b"slow") == b"slow"
    assert 0.4 <= time.monotonic() - began < 2.0
    proxy.restore()
    began = time.monotonic()
    assert exchange(connection, b"fast") == b"fast"
    assert time.monotonic() - began < 0.2


def test_a_throttled_connection_is_no_faster_than_told(proxy: Proxy, dial: Callable[[], socket.socket]) -> None:
    connection = dial()
    proxy.throttle(100_000)
    began = time.monotonic()
    assert exchange(connection, b"x" * 40_000) == b"x" * 40_000
    assert 0.3 <= time.monotonic() - began < 3.0


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_cut_ends_every_connection_at_both_ends(
    proxy: Proxy, dial: Callable[[], socket.socket], echo: Echo, how: str, wait_until: Callable[..., None]
) -> None:
    connections = [dial(), dial()]
    for connection in connections:
        exchange(connection, b"hello")
    assert proxy.cut(how) == 2
    for connection in connections:
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        else:
            assert connection.recv(1) == b""
    wait_until(lambda: echo.ends == [how, how])
    assert exchange(dial(), b"new") == b"new"


def test_after_so_many_bytes_the_connection_is_cut_once(proxy: Proxy, dial: Callable[[], socket.socket]) -> None:
    connection = dial()
    exchange(connection, b"before")
    proxy.cut_after(3, TO_CLIENT)
    connection.sendall(b"abcdef")
    received = []
    with pytest.raises(ConnectionResetError):
        received.extend(iter(lambda: connection.recv(1), None))
    assert b"abc".startswith(b"".join(received))  # a reset may overtake what was sent before it
    assert exchange(dial(), b"abcdef") == b"abcdef"


def test_a_request_may_arrive_and_its_reply_be_lost(
    proxy: Proxy, dial: Callable[[], socket.socket], echo: Echo
) -> None:
    connection = dial()
    proxy.cut_after(0, TO_CLIENT)
    connection.sendall(b"request")
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert echo.heard == b"request"


def test_a_frozen_proxy_accepts_everything_and_passes_it_on_when_it_thaws(
    proxy: Proxy, dial: Callable[[], socket.socket], echo: Echo
) -> None:
    old = dial()
    exchange(old, b"before ")
    proxy.freeze()
    new = dial()
    new.sendall(b"new ")
    old.sendall(b"old ")
    assert is_silent(old)
    assert is_silent(new, 0.05)
    assert echo.heard == b"before "
    proxy.restore()
    assert old.recv(100) == b"old "
    assert new.recv(100) == b"new "


def test_stranded_connections_are_dead_without_a_word_and_new_ones_work(
    proxy: Proxy, dial: Callable[[], socket.socket], echo: Echo
) -> None:
    old = dial()
    exchange(old, b"before ")
    proxy.strand()
    old.sendall(b"into the void")
    assert is_silent(old)
    assert exchange(dial(), b"new") == b"new"
    assert echo.heard == b"before new"
    proxy.restore()
    old.sendall(b"still")
    assert is_silent(old)


@pytest.mark.parametrize(("direction", "arrives"), [(TO_SERVER, b""), (TO_CLIENT, b"hello")])
def test_one_direction_can_be_dropped_in_new_connections_too(
    proxy: Proxy, dial: Callable[[], socket.socket], echo: Echo, direction: str, arrives: bytes
) -> None:
    proxy.drop(direction, new=True)
    connection = dial()
    connection.sendall(b"hello")
    assert is_silent(connection)
    assert echo.heard == arrives


def test_new_connections_are_refused_until_all_is_well_again(proxy: Proxy, dial: Callable[[], socket.socket]) -> None:
    old = dial()
    exchange(old, b"before")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial()
    assert exchange(old, b"still here") == b"still here"
    proxy.restore()
    assert exchange(dial(), b"back") == b"back"


def test_a_server_that_is_away_is_a_connection_reset(
    proxy: Proxy, echo: Echo, dial: Callable[[], socket.socket]
) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError):
        dial().recv(1)
    assert proxy.links() == 0


def test_addresses_are_replaced_in_urls(proxy: Proxy) -> None:
    assert proxy.url("redis://127.0.0.1:6379/3?x=1") == f"redis://127.0.0.1:{proxy.port}/3?x=1"
    assert proxy.url("amqp://guest:guest@localhost:5672/v%2Fh") == f"amqp://guest:guest@127.0.0.1:{proxy.port}/v%2Fh"
