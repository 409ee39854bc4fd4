"""A main broker in memory and a shelf in a file, with a way to make each step fail before or after it took effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from umbel.core.errors import OperationalError
from umbel.core.message import EARLY, Delivery, Message, Settlement
from umbel.engine import failpoints
from umbel.engine.registry import open_engine
from umbel.engine.seam import Broker, Engine, Lease
from umbel.engine.shelf import Shelved

NOW = 1_700_000_000.0
HEAD = b'{"content-type":"application/json","headers":{"task":"project.task"},"properties":{}}'


class Site:
    """One main broker and one shelf, and as many worker processes on them as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.main = open_engine("memory://")
        self.shelf = open_engine(f"sqlite:///{folder}/shelf.db")
        assert self.main.broker is not None
        assert self.shelf.broker is not None
        self.main_broker: Broker = self.main.broker
        self.shelf_broker: Broker = self.shelf.broker

    def process(self, **options: Any) -> Shelved:
        """Return the broker of another worker process."""
        return Shelved(self.main_broker, self.shelf, dead=self.main.dead, scope="test", **options)

    def engine(self) -> Engine:
        """Return an engine whose broker remembers by the shelf."""
        return replace(self.main, broker=self.process(), atomic=None)

    def publish(self, *names: str) -> None:
        self.main_broker.publish([Message(name, "project.task", "q", HEAD, b"[]") for name in names], NOW)

    def at_main(self) -> int:
        """Count what the main broker has: waiting and leased."""
        depth = self.main_broker.depth(["q"], NOW)["q"]
        return depth.ready + depth.scheduled + depth.leased

    def on_shelf(self) -> int:
        depth = self.shelf_broker.depth(["umbel.shelf:test:q"], NOW)["umbel.shelf:test:q"]
        assert (depth.ready, depth.scheduled) == (0, 0)
        return depth.leased

    def close(self) -> None:
        self.main.close()
        self.shelf.close()


def take(broker: Broker, owner: str = "me", now: float = NOW, seconds: float = 10.0) -> list[Delivery]:
    return broker.lease(Lease(("q",), owner, 100, seconds), now)


def begin(
    broker: Broker, deliveries: list[Delivery], owner: str = "me", now: float = NOW, *, early: bool = True
) -> list[Any]:
    return broker.start(owner, [(d.tag, d.token, 8 | (EARLY if early else 0)) for d in deliveries], now)


def end(broker: Broker, delivery: Delivery, owner: str = "me", now: float = NOW, **fields: Any) -> list[Any]:
    return broker.settle(owner, [Settlement(delivery.tag, delivery.token, **fields)], now)


def heirs(broker: Broker, owner: str = "heir", now: float = NOW + 60) -> list[Delivery]:
    return broker.recover(Lease(("q",), owner, 100, 30.0), now)


@contextmanager
def failing(name: str, nth: int = 1) -> Iterator[None]:
    """Have one failpoint raise, once."""
    failpoints._rules.update(failpoints.parse(f"{name}=raise@{nth}"))
    try:
        yield
    finally:
        failpoints._rules.clear()


def until_it_works(call: Callable[[], Any]) -> Any:
    """Call again after a failure, as every caller of a broker does."""
    try:
        return call()
    except OperationalError:
        return call()
