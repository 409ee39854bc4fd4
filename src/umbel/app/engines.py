"""The engines that an app has opened: broker, store, bus and dead letters, by the URLs of its settings."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from umbel.app.connections import backend_options, broker_options, open_urls, shared_options
from umbel.app.waiting import close_waiter
from umbel.core.errors import ImproperlyConfigured
from umbel.engine.seam import Broker, Bus, DeadLetters, Engine, Store
from umbel.engine.splitting import split

__all__ = ["AppEngines"]

_DISABLED = ("disabled", "disabled://")


class AppEngines:
    """The part of an app that opens engines when they are first needed; one URL is opened once."""

    conf: Any
    _lock: threading.RLock

    @property
    def engine(self) -> Engine:
        """What `broker_url` and `result_backend` lead to, as one engine; `atomic` only where both are one database."""
        opened: tuple[Any, Engine] | None = self.__dict__.get("_engine")
        if opened is not None and opened[0] == self.conf.version:
            return opened[1]
        with self._lock:
            return self._open()

    def _open(self) -> Engine:
        conf = self.conf
        reading, writing = self._broker_urls()
        backend = conf.result_backend
        where = None if backend in _DISABLED else backend or reading
        engine = self._opened_at(reading, shared_options if where == reading else broker_options)
        if where is None:
            engine = dataclasses.replace(engine, store=None, atomic=None)
        elif where != reading:
            engine = dataclasses.replace(engine, store=self._opened_at(where, backend_options).store, atomic=None)
        if writing != reading:
            engine = split(engine, self._opened_at(writing, broker_options))
        self.__dict__["_engine"] = (conf.version, engine)
        self.__dict__["_parts"] = (conf.version, engine.broker)
        return engine

    def _opened_at(self, url: str, options: Callable[[Any, str], dict[str, Any]]) -> Engine:
        opened: dict[str, Engine] = self.__dict__.setdefault("_opened", {})
        return opened.get(url) or opened.setdefault(url, open_urls(self.conf, url, options))

    def _broker_urls(self) -> tuple[str, str]:
        """Where messages are consumed, and where they are sent."""
        conf = self.conf
        return str(conf.broker_read_url or conf.broker_url), str(conf.broker_write_url or conf.broker_url)

    @property
    def broker(self) -> Broker:
        """Where messages wait."""
        parts: tuple[Any, Any] | None = self.__dict__.get("_parts")
        if parts is not None and parts[0] == self.conf.version:
            broker: Broker = parts[1]
            return broker
        if self.engine.broker is None:
            raise ImproperlyConfigured("broker_url leads to an engine that keeps no messages: set another one")
        return self.engine.broker

    @property
    def store(self) -> Store | None:
        """Where results are kept; None where they are disabled."""
        return self.engine.store

    backend = store

    @property
    def bus(self) -> Bus | None:
        """Over which workers are told and asked things."""
        return self.engine.bus

    @property
    def dead(self) -> DeadLetters | None:
        """Messages that were given up."""
        return self.engine.dead

    def close(self) -> None:
        """Close every engine of this process; they open again when they are needed."""
        with self._lock:
            opened: dict[str, Engine] = self.__dict__.pop("_opened", {})
            self.__dict__.pop("_engine", None)
            self.__dict__.pop("_parts", None)
        for engine in opened.values():
            if engine.store is not None:
                close_waiter(engine.store)
            engine.close()
