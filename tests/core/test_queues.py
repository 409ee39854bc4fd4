from __future__ import annotations

from dataclasses import replace

import pytest

from umbel.core.errors import ImproperlyConfigured, NotSupportedError, QueueNotFound
from umbel.core.queues import Broadcast, Exchange, Queue, Queues, binding


def test_queues_are_values() -> None:
    assert Queue("a", Exchange("x"), "k") == Queue("a", "x", "k")
    assert Queue("a", [binding(Exchange("x", "topic"), "k.*")]).routes() == (("x", "topic", "k.*"),)
    assert Queue("a", exclusive=True).auto_delete
    assert Queue("a", max_priority=3).as_dict()["max_priority"] == 3


def test_an_unknown_exchange_type_is_told() -> None:
    with pytest.raises(NotSupportedError, match="direct, topic, fanout"):
        Exchange("x", "headers")


def test_a_missing_queue_is_made_with_its_own_exchange() -> None:
    queues = Queues(create_missing_queue_type="quorum", max_priority=5)
    made = queues["mail"]
    assert (made.exchange.name, made.routing_key) == ("mail", "mail")
    assert made.queue_arguments == {"x-queue-type": "quorum", "x-max-priority": 5}
    assert queues["mail"] is made


def test_a_missing_queue_is_told_with_the_nearest_where_none_may_be_made() -> None:
    queues = Queues([Queue("feeds", alias="news")], create_missing=False)
    assert queues["news"].name == "feeds"
    with pytest.raises(QueueNotFound, match="did you mean 'feeds'"):
        queues["feed"]


def test_queues_are_described_by_dicts() -> None:
    queues = Queues({"a": {"exchange": "x", "exchange_type": "topic", "binding_key": "a.#"}, "b": Queue("b")})
    assert queues["a"].routes() == (("x", "topic", "a.#"),)
    with pytest.raises(ImproperlyConfigured, match="did you mean 'routing_key'|unknown option 'rooting'"):
        Queues({"a": {"rooting": 1}})


def test_what_is_read_can_be_chosen() -> None:
    queues = Queues([Queue("a"), Queue("b"), Queue("c")], Exchange("x"))
    assert set(queues.consume_from) == {"a", "b", "c"}
    queues.select("a,b".split(","))
    queues.deselect("b")
    queues.select_add("d")
    assert set(queues.consume_from) == {"a", "d"}
    assert queues.format(indent=2).startswith("  .> a                exchange=x(direct) key=a")


def test_broadcast_says_that_it_is_not_supported_yet() -> None:
    assert Broadcast("all").exchange == Exchange("all", "fanout")


def test_each_broadcast_is_a_queue_of_its_own_behind_one_name() -> None:
    first, second = Broadcast("all"), Broadcast("all")
    assert first.name.startswith("bcast.")
    assert first.name != second.name
    assert replace(first, no_declare=True).name == first.name
    assert Broadcast("all", queue="mine").name == "mine"
    assert Broadcast("all", queue="mine", unique=True).name.startswith("mine.")
    queues = Queues([first, Queue("plain")], default_routing_key="key")
    assert queues["all"].name == first.name
    assert queues["all"].routing_key == "key"
    queues.deselect("all")
    assert list(queues.consume_from) == ["plain"]
    queues.select("all")
    assert list(queues.consume_from) == [first.name]
