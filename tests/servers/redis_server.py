"""A private Redis: `RedisServer(aof=True, maxmemory="8mb", requirepass="secret")`."""

from __future__ import annotations

import socket
import urllib.parse
from typing import ClassVar

from tests.servers.install import program
from tests.servers.process import Server

#: Enough for a database of its own for every test.
DATABASES = 2048


class RedisServer(Server):
    """One redis-server. Keyword arguments are Redis' own settings, with `_` for `-`; `aof=True` keeps every write."""

    START_SECONDS: ClassVar[float] = 15.0

    def __init__(self, *, aof: bool = False, **settings: object) -> None:
        super().__init__()
        self.settings: dict[str, str] = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "databases": str(DATABASES),
            "save": "",
            "daemonize": "no",
            "appendonly": "yes" if aof else "no",
            "appendfsync": "always" if aof else "everysec",
            "unixsocket": str(self.folder / "redis.sock"),
        }
        self.settings |= {name.replace("_", "-"): str(value) for name, value in settings.items()}
        self._databases = 0

    @property
    def url(self) -> str:
        """Address of database 0."""
        return self.url_for(0)

    def url_for(self, database: int | str = 0) -> str:
        """Address of a database, password included."""
        password = self.settings.get("requirepass", "")
        user = f":{urllib.parse.quote(password, safe='')}@" if password else ""
        return f"redis://{user}127.0.0.1:{self.port}/{database}"

    @property
    def socket_path(self) -> str:
        """The Unix socket it also listens on."""
        return self.settings["unixsocket"]

    def fresh_url(self) -> str:
        """Address of an empty database that this object has not given out lately."""
        self._databases = self._databases % (DATABASES - 1) + 1
        self.ask("SELECT", str(self._databases), then=("FLUSHDB",))
        return self.url_for(self._databases)

    def command(self) -> list[str]:
        """What to run."""
        found = program("redis-server") or "redis-server"
        return [found, *(part for name, value in self.settings.items() for part in (f"--{name}", value))]

    def answers(self) -> bool:
        """Tell whether it has read its data and takes commands."""
        return self.ask("PING").startswith("+PONG")

    def ask(self, *words: str, then: tuple[str, ...] = ()) -> str:
        """Send a command, or two on one connection, without a driver; give the first bytes of the last answer."""
        password = self.settings.get("requirepass", "")
        commands = [command for command in (("AUTH", password) if password else (), words, then) if command]
        answer = ""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            for command in commands:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
                connection.sendall(f"*{len(command)}\r\n{parts}".encode())
                answer = connection.recv(65536).decode(errors="replace")
        return answer
