"""What every broker does with exchanges, as tests."""
# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

from dataclasses import replace

from umbel.core.errors import Unroutable
from umbel.core.queues import Broadcast, Exchange, Queue, binding
from umbel.engine.seam import Engine
from umbel.testing.conformance_parts import Suite, ids, message


class ExchangeSuite(Suite):
    """What every broker does with exchanges."""

    def test_exchanges_lead_to_the_bound_queues(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        news, every = Exchange("news", "topic"), Exchange("every", "fanout")
        names = ["of a", "of b", "of c", "of d"]
        broker.declare(
            [
                Queue(names[0], news, "sport.*"),
                Queue(names[1], news, "#"),
                Queue(names[2], every),
                Queue(names[3], every),
            ]
        )
        broker.declare([Queue("of e", Exchange("direct"), "key")])
        sent = [
            message("1", "sport.ski", exchange="news"),
            message("2", "other", exchange="news"),
            message("3", exchange="every"),
            message("4", "key", exchange="direct"),
        ]
        assert broker.publish(sent, now) == []
        got = {name: ids(self.take(engine, now=now, queues=(name,))) for name in [*names, "of e"]}
        assert got == {"of a": ["1"], "of b": ["1", "2"], "of c": ["3"], "of d": ["3"], "of e": ["4"]}

    def test_a_queue_may_be_bound_in_several_ways_and_still_gets_one_copy(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        parts = Exchange("parts", "topic")
        broker.declare([Queue("many", bindings=(binding(parts, "x.#"), binding(parts, "*.y"), binding(parts, "z")))])
        sent = [message("1", "x.y", exchange="parts"), message("2", "z", exchange="parts")]
        assert broker.publish(sent, now) == []
        got = self.take(engine, now=now, queues=("many",))
        assert [(item.id, item.queue) for item in got] == [("1", "many"), ("2", "many")]

    def test_a_message_that_no_queue_is_bound_for_is_refused_alone(self, engine: Engine) -> None:
        now = self.now(engine)
        broker = self.broker(engine)
        broker.declare([Queue("bound", Exchange("somewhere"), "here")])
        sent = [message("a", "there", exchange="somewhere"), message("b"), message("c", "here", exchange="somewhere")]
        refused = broker.publish(sent, now)
        assert [(item.index, type(item.error)) for item in refused] == [(0, Unroutable)]
        assert ids(self.take(engine, now=now)) == ["b"]
        assert ids(self.take(engine, now=now, queues=("bound",))) == ["c"]

    def test_a_message_for_an_exchange_that_nobody_declared_is_refused_alone(self, engine: Engine) -> None:
        now = self.now(engine)
        refused = self.broker(engine).publish([message("a", exchange="nowhere"), message("b")], now)
        assert [(item.index, type(item.error)) for item in refused] == [(0, Unroutable)]
        assert ids(self.take(engine, now=now)) == ["b"]

    def test_every_copy_of_a_broadcast_gets_a_message_until_it_is_removed(self, engine: Engine) -> None:
        broker, now = self.broker(engine), self.now(engine)
        first, second = Broadcast("notices"), Broadcast("notices")
        broker.declare([first, second])
        broker.declare([replace(Broadcast("notices"), no_declare=True)])
        assert broker.publish([message("1", exchange="notices")], now) == []
        assert ids(self.take(engine, now=now, queues=(first.name,))) == ["1"]
        assert broker.publish([message("2", exchange="notices")], now) == []
        broker.remove([first])
        assert broker.publish([message("3", exchange="notices")], now) == []
        assert ids(self.take(engine, now=now, queues=(second.name,))) == ["1", "2", "3"]
        broker.declare([first])
        assert ids(self.take(engine, now=now, queues=(first.name,))) == []
        broker.remove([first, second])
        (refused,) = broker.publish([message("4", exchange="notices")], now)
        assert isinstance(refused.error, Unroutable)
