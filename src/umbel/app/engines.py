"""The engines that an app has opened: broker, store, bus and dead letters, by the URLs of its settings."""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from umbel.app.connections import backend_options, broker_options, is_rabbitmq, open_urls, shared_options
from umbel.app.waiting import close_waiter
from umbel.core.errors import ImproperlyConfigured, NotSupportedError
from umbel.core.urls import mask_url
from umbel.engine.registry import scheme_of
from umbel.engine.seam import Broker, Bus, DeadLetters, Engine, Store
from umbel.engine.shelf import shelve
from umbel.engine.splitting import split

__all__ = ["AppEngines", "Asker"]

_DISABLED = ("disabled", "disabled://")
_RPC = "rpc"
#: Unread results that a process may have in RabbitMQ when nobody has said that it wants any: it may never ask.
_IMPLIED_MOST = 10_000


class Asker(NamedTuple):
    """In whose name results are asked for, by which process, after how many `close` of the app, until when."""

    name: str
    pid: int
    closings: int
    #: Monotonic time when it has to be said again.
    until: float = math.inf


class AppEngines:
    """The part of an app that opens engines when they are first needed; one URL is opened once."""

    conf: Any
    _lock: threading.RLock
    #: How often the engines were closed.
    _closings = 0

    @property
    def engine(self) -> Engine:
        """What `broker_url` and `result_backend` lead to, as one engine; `atomic` only where both are one database."""
        opened: tuple[Any, Engine] | None = self.__dict__.get("_engine")
        if opened is not None and opened[0] == self.conf.version:
            return opened[1]
        with self._lock:
            return self._open()

    def _open(self) -> Engine:
        reading, writing = self._broker_urls()
        where = self._backend_url(reading)
        engine = self._opened_at(reading, shared_options if where == reading else broker_options)
        results: Engine | None = engine
        if where != reading:
            results = self._opened_at(where, backend_options) if where not in ("", _RPC) else None
            engine = (
                self._with_replies(engine, reading)
                if where == _RPC
                else dataclasses.replace(
                    engine, store=results.store if results is not None else None, atomic=None, replies=None
                )
            )
        engine = shelve(engine, results)
        if writing != reading:
            if engine.replies is not None:
                engine = dataclasses.replace(engine, replies=partial(_expect_at_once, engine))
            engine = split(engine, self._opened_at(writing, broker_options))
        self.__dict__["_engine"] = (self.conf.version, engine)
        self.__dict__["_parts"] = (self.conf.version, engine.broker)
        return engine

    def _with_replies(self, engine: Engine, url: str) -> Engine:
        """Return the engine of a broker with results that travel as messages: they are the broker's."""
        if not is_rabbitmq(url):
            raise NotSupportedError(
                f"{mask_url(url)} carries no results as messages: name a Redis or SQLite URL in result_backend"
            )
        replies: Any = engine.replies
        if not self.conf.result_backend:
            replies = partial(replies, most=_IMPLIED_MOST)
        return dataclasses.replace(engine, atomic=None, replies=replies)

    def _new_asker(self) -> Asker:
        """Return who asks for results in this thread; where results are messages it is the whole process."""
        expect, pid = self.engine.replies, os.getpid()
        if expect is None:
            return Asker(str(uuid.uuid4()), pid, self._closings)
        with self._lock:
            known: Asker | None = self.__dict__.get("_asker")
            mine = known is not None and known.pid == pid and known.closings == self._closings
            if known is None or not mine or known.until < time.monotonic():
                expires = self.conf.result_expires or 0.0
                name = known.name if known is not None and mine else str(uuid.uuid4())
                expect(name, expires)
                # Long before RabbitMQ takes it for unused: not every process that sends reads what comes back.
                until = time.monotonic() + expires / 4 if expires else math.inf
                known = self.__dict__["_asker"] = Asker(name, pid, self._closings, until)
            return known

    def _backend_url(self, broker_url: str) -> str:
        """Where results are: a URL, "rpc" for messages of the broker, or "" for nowhere."""
        backend = self.conf.result_backend
        if backend in _DISABLED:
            return ""
        if not backend or backend == self.conf.broker_url:
            # Celery keeps no results unless told to; here they are where messages are, or messages themselves.
            return _RPC if is_rabbitmq(broker_url) else broker_url
        if scheme_of(str(backend)) == _RPC:
            return _RPC
        if is_rabbitmq(str(backend)):
            raise ImproperlyConfigured(
                f"{mask_url(str(backend))} in result_backend: RabbitMQ stores no results; say rpc:// for results as "
                "messages of the broker, or name a Redis or SQLite URL"
            )
        return str(backend)

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
            whole: tuple[Any, Engine] | None = self.__dict__.pop("_engine", None)
            self.__dict__.pop("_parts", None)
            self._closings += 1
        if whole is not None:
            # What was put around the engines may have opened something of its own.
            whole[1].close()
        for engine in opened.values():
            if engine.store is not None:
                close_waiter(engine.store)
            engine.close()


def _expect_at_once(engine: Engine, name: str, expires: float) -> None:
    """Have a queue for results made now: messages, before which it would be made, are sent elsewhere."""
    assert engine.replies is not None
    assert engine.broker is not None
    engine.replies(name, expires)
    engine.broker.publish([], time.time())
