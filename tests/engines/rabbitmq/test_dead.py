from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from umbel.core.message import DeadLetter, Delivery, End, Message, Settlement
from umbel.engine.registry import open_engine
from umbel.engine.seam import Broker, DeadLetters, Engine, Lease

NOW = 1_700_000_000.0
HEAD = (
    b'{"content-type":"application/json","content-encoding":"utf-8","headers":{"task":"t","id":"%s"},"properties":{}}'
)


@pytest.fixture
def engine(rabbit_url: str) -> Iterator[Engine]:
    engine = open_engine(rabbit_url)
    yield engine
    engine.close()


@pytest.fixture
def dead(engine: Engine) -> DeadLetters:
    assert engine.dead is not None
    return engine.dead


@pytest.fixture
def broker(engine: Engine) -> Broker:
    assert engine.broker is not None
    return engine.broker


def message(id_: str, **fields: object) -> Message:
    return Message(id_, "t", "q", HEAD % id_.encode(), b"[[],{},{}]", **fields)  # type: ignore[arg-type]


def names(letters: list[DeadLetter]) -> list[str]:
    return [letter.message.id for letter in letters]


def test_letters_are_browsed_in_pages_picked_and_dropped(dead: DeadLetters) -> None:
    assert dead.browse() == []
    for n in range(5):
        dead.bury(message(f"id{n}"), f"reason {n}", NOW)
    page = dead.browse(limit=2)
    rest = dead.browse(after=page[-1].number, limit=100)
    assert names(page + rest) == [f"id{n}" for n in range(5)]
    assert [letter.reason for letter in dead.pick([page[0].number], ["id4"])] == ["reason 0", "reason 4"]
    assert dead.pick([], []) == []
    assert names(dead.pick(None, None)) == [f"id{n}" for n in range(5)]
    assert dead.drop([page[0].number, page[1].number, 10**9]) == 2
    assert dead.revive([page[0].number], NOW) == 0
    assert names(dead.browse()) == ["id2", "id3", "id4"]


def test_a_letter_keeps_the_message_and_its_counts(dead: DeadLetters) -> None:
    given = message("a", priority=3, expires=NOW + 9, generation=2)
    fields = {name: getattr(given, name) for name in given.__struct_fields__}
    dead.bury(Delivery(**fields, crashes=3), "it died", NOW)
    dead.bury(Message("\ud800", "", "q", b"\xff", b"\xfe", priority=2**70), "malformed", NOW + 1)
    first, second = dead.browse()
    assert (first.message, first.reason, first.buried, first.crashes) == (given, "it died", NOW, 3)
    assert (second.message.id, second.message.head, second.message.body) == ("\\ud800", b"\xff", b"\xfe")


def test_what_is_revived_runs_again_as_a_fresh_message(dead: DeadLetters, broker: Broker) -> None:
    broker.publish([message("a"), message("b")], NOW)
    lease = Lease(("q",), "me", 2, 30.0)
    deliveries: list[Delivery] = []
    while len(deliveries) < 2:
        deliveries += broker.lease(lease._replace(limit=2 - len(deliveries)), NOW, 5.0)
    ends = [Settlement(d.tag, d.token, End.DEAD, reason="given up") for d in deliveries]
    assert broker.settle("me", ends, NOW) == []
    letters = dead.browse()
    assert dead.revive([letters[0].number], NOW) == 1
    (again,) = broker.lease(lease, NOW, 5.0)
    assert (again.id, again.crashes, again.body) == (letters[0].message.id, 0, b"[[],{},{}]")
    assert names(dead.browse()) == [letters[1].message.id]


def test_a_letter_that_cannot_be_routed_stays(dead: DeadLetters) -> None:
    dead.bury(message("a", exchange="amq.direct"), "unroutable", NOW)
    (letter,) = dead.browse()
    assert dead.revive([letter.number], NOW) == 0
    assert names(dead.browse()) == ["a"]


def test_readers_take_turns_and_each_sees_everything(dead: DeadLetters) -> None:
    for n in range(200):
        dead.bury(message(f"{n:03}"), "x" * 100, NOW)
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(names(dead.pick(None, None)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [[f"{n:03}" for n in range(200)]] * 3


def test_a_bus_message_of_a_stranger_in_the_queue_is_left_alone(dead: DeadLetters, broker: Broker) -> None:
    broker.publish([Message("x", "t", "umbel.dead", HEAD % b"x", b"[]")], NOW)
    dead.bury(message("a"), "reason", NOW)
    assert names(dead.browse()) == ["a"]
    assert broker.depth(["umbel.dead"], NOW)["umbel.dead"].ready == 2
