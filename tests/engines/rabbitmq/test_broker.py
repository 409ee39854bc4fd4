from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import amqp
import msgspec
import pytest

from tests.proxy import TO_CLIENT, Proxy
from umbel import Umbel
from umbel.core.errors import EncodeError, OperationalError, Unroutable
from umbel.core.message import EARLY, Delivery, End, Message, Settlement
from umbel.core.queues import Exchange, Queue
from umbel.engine.registry import open_engine
from umbel.engine.seam import Broker, Engine, Lease
from umbel.engine.shelf import Shelved
from umbel.testing.conformance import message
from umbel.testing.conformance_parts import done


@pytest.fixture
def engine(rabbit_url: str) -> Iterator[Engine]:
    engine = open_engine(rabbit_url)
    yield engine
    engine.close()


def broker_of(engine: Engine) -> Broker:
    assert engine.broker is not None
    return engine.broker


def take(engine: Engine, count: int, owner: str = "me", seconds: float = 15.0) -> list[Delivery]:
    """Lease until `count` messages have come; a connection that was cut is tried again."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + seconds
    while len(taken) < count and time.monotonic() < deadline:
        lease = Lease(("q",), owner, count - len(taken), 30.0)
        try:
            taken += broker_of(engine).lease(lease, time.time(), 0.5)
        except OperationalError:
            continue
    return taken


def end(engine: Engine, *deliveries: Delivery, owner: str = "me", how: End = End.DONE) -> list[object]:
    return broker_of(engine).settle(owner, [done(each, end=how) for each in deliveries], time.time())


def raw_channel(url: str) -> tuple[amqp.Connection, amqp.Channel]:
    parts = urlsplit(url)
    connection = amqp.Connection(f"{parts.hostname}:{parts.port}", virtual_host=parts.path[1:])
    connection.connect()
    return connection, connection.channel()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_of_either_type_takes_delays_and_gives_back(engine: Engine, kind: str) -> None:
    broker = broker_of(engine)
    broker.declare([Queue("q", queue_arguments={"x-queue-type": kind})])
    due = time.time() + 2.4
    assert broker.publish([message("now"), message("later", due=due)], time.time()) == []
    (first,) = take(engine, 1)
    assert end(engine, first, how=End.RELEASE) == []
    first, second = take(engine, 2)
    assert (first.id, second.id) == ("now", "later")
    assert time.time() >= due
    assert end(engine, first, second) == []


def test_a_missing_exchange_refuses_its_messages_and_no_others(engine: Engine) -> None:
    broker_of(engine).declare([Queue("q")])
    refused = broker_of(engine).publish([message("a"), message("b", exchange="nowhere"), message("c")], time.time())
    assert [refusal.index for refusal in refused] == [1]
    assert isinstance(refused[0].error, Unroutable)
    assert [each.id for each in take(engine, 2)] == ["a", "c"]


def test_a_full_queue_that_rejects_is_told(engine: Engine) -> None:
    full = Queue("q", max_length=1, queue_arguments={"x-overflow": "reject-publish"})
    broker_of(engine).declare([full])
    broker_of(engine).publish([message("a")], time.time())
    refused = broker_of(engine).publish([message("b")], time.time())
    assert [str(refusal.error) for refusal in refused if "queue is full" in str(refusal.error)]


def test_a_delay_leads_through_a_direct_exchange_too(engine: Engine) -> None:
    broker_of(engine).declare([Queue("q", Exchange("x"), "key")])
    sent = message("a", "key", exchange="x", due=time.time() + 2.3)
    assert broker_of(engine).publish([sent], time.time()) == []
    (got,) = take(engine, 1)
    assert time.time() >= sent.due
    assert end(engine, got) == []


def test_a_queue_that_exists_with_other_arguments_is_named_with_what_differs(engine: Engine) -> None:
    broker_of(engine).declare([Queue("q")])
    with pytest.raises(OperationalError, match="x-max-priority.*task_queue_max_priority"):
        broker_of(engine).declare([Queue("q", max_priority=5)])
    broker_of(engine).publish([message("a")], time.time())
    assert len(take(engine, 1)) == 1


def test_malformed_messages_become_dead_letters_and_stop_nothing(engine: Engine, rabbit_url: str) -> None:
    broker_of(engine).declare([Queue("q")])
    connection, channel = raw_channel(rabbit_url)
    for body, headers in ((b"\xff\x00", {}), (b"{}", {"task": 5, "id": "x"}), (b"[]", {"task": "t", "id": ""})):
        channel.basic_publish(amqp.Message(body, application_headers=headers), "", "q")
    connection.close()
    broker_of(engine).publish([message("good")], time.time())
    assert [each.id for each in take(engine, 1)] == ["good"]
    assert engine.dead is not None
    assert len(engine.dead.browse()) == 3


def test_what_one_does_not_lease_goes_to_another(engine: Engine) -> None:
    broker_of(engine).declare([Queue("q")])
    broker_of(engine).publish([message("first")], time.time())
    (first,) = take(engine, 1, "busy")
    # Its place in the credit is free again, so the next one is pushed to it; but it leases no more.
    end(engine, first, owner="busy")
    broker_of(engine).publish([message("second")], time.time())
    assert [each.id for each in take(engine, 1, "free")] == ["second"]


def test_after_a_cut_running_messages_go_on_and_finished_ones_do_not_run_again(rabbit_url: str) -> None:
    with Proxy(urlsplit(rabbit_url).port or 0) as proxy:
        engine = open_engine(proxy.url(rabbit_url))
        broker_of(engine).declare([Queue("q")])
        broker_of(engine).publish([message(name) for name in ("running", "finishing", "waiting")], time.time())
        running, finishing = take(engine, 2)
        proxy.cut()
        # Told to be stale or not: its acknowledgement may have been written before the cut shows.
        end(engine, finishing)
        (waiting,) = take(engine, 1)
        assert waiting.id == "waiting"
        assert broker_of(engine).lease(Lease(("q",), "me", 9, 30.0), time.time(), 0.3) == []
        assert end(engine, running, waiting) == []
        engine.close()
    after = open_engine(rabbit_url)
    assert broker_of(after).depth(["q"], time.time())["q"].ready == 0
    after.close()


def publish_twice(rabbit_url: str, engine: Engine, id: str) -> None:
    """Publish, lose the confirm, and publish again as every caller does."""
    with Proxy(urlsplit(rabbit_url).port or 0) as proxy:
        producer = open_engine(proxy.url(rabbit_url))
        broker_of(producer).publish([message("first")], time.time())
        end(engine, *take(engine, 1))
        copied = message(id)
        proxy.cut_after(0, TO_CLIENT)
        with pytest.raises(OperationalError):
            broker_of(producer).publish([copied], time.time())
        assert broker_of(producer).publish([copied], time.time()) == []
        producer.close()


@pytest.mark.parametrize("id", ["0199d3f0-7c1e-7aaa-8bbb-0123456789ab", "9b2c1f0e-7c1e-4aaa-8bbb-0123456789ab"])
def test_what_is_published_again_since_its_confirm_was_lost_is_known_to_be_doubtful(
    rabbit_url: str, engine: Engine, id: str
) -> None:
    broker_of(engine).declare([Queue("q")])
    publish_twice(rabbit_url, engine, id)
    taken = take(engine, 2)
    # RabbitMQ may hear of the second before it is done with the connection that was cut.
    assert sorted((each.id, each.doubtful) for each in taken) == [(id, False), (id, True)]
    assert not any(b"umbel-again" in each.head for each in taken)


@pytest.mark.parametrize("back", [End.OFFER, End.CRASHED, End.REQUEUE])
def test_what_is_doubtful_stays_so_when_it_goes_back(rabbit_url: str, engine: Engine, back: End) -> None:
    broker_of(engine).declare([Queue("q")])
    id = "0199d3f0-7c1e-7aaa-8bbb-0123456789ab"
    publish_twice(rabbit_url, engine, id)
    for delivery in take(engine, 2):
        broker_of(engine).settle("me", [Settlement(delivery.tag, delivery.token, back)], time.time())
    assert sorted(each.doubtful for each in take(engine, 2)) == [False, True]


def test_an_id_that_somebody_chose_may_be_used_again(rabbit_url: str, engine: Engine) -> None:
    broker_of(engine).declare([Queue("q")])
    publish_twice(rabbit_url, engine, "nightly")
    assert [each.doubtful for each in take(engine, 2)] == [False, False]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_copy_does_not_start_once_the_first_one_has_ended_here(
    rabbit_url: str, engine: Engine, tmp_path: Path, waiting: bool
) -> None:
    broker_of(engine).declare([Queue("q")])
    publish_twice(rabbit_url, engine, "0199d3f0-7c1e-7aaa-8bbb-0123456789ab")
    shelf = open_engine(f"sqlite:///{tmp_path / 'shelf.db'}")
    worker = replace(engine, broker=Shelved(broker_of(engine), shelf, dead=engine.dead, scope="test"), atomic=None)
    first, *copies = take(worker, 2 if waiting else 1)
    assert broker_of(worker).start("me", [(first.tag, first.token, EARLY)], time.time()) == []
    assert end(worker, first) == []
    copies = copies or broker_of(worker).lease(Lease(("q",), "me", 1, 30.0), time.time(), 0.5)
    stale = broker_of(worker).start("me", [(each.tag, each.token, EARLY) for each in copies], time.time())
    assert stale == [each.tag for each in copies]
    assert broker_of(engine).depth(["q"], time.time())["q"].ready == 0
    shelf.close()


def test_publishing_over_a_silent_network_ends_in_time(rabbit_url: str) -> None:
    with Proxy(urlsplit(rabbit_url).port or 0) as proxy:
        engine = open_engine(proxy.url(rabbit_url), {"read_timeout": 0.5})
        broker_of(engine).publish([message("a")], time.time())
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(OperationalError, match="did not confirm"):
            broker_of(engine).publish([message("b")], time.time())
        assert time.monotonic() - began < 5
        proxy.restore()
        assert broker_of(engine).publish([message("b")], time.time()) == []
        engine.close()


def test_a_large_batch_is_confirmed_whole(engine: Engine) -> None:
    batch: list[Message] = [message(str(n)) for n in range(500)]
    assert broker_of(engine).publish(batch, time.time()) == []
    assert broker_of(engine).depth(["q"], time.time())["q"].ready == 500
    assert broker_of(engine).purge(["q"]) == 500


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("guest:guest@", "guest:wrong@"), "wrong user name or password"),
        (("/v", "/no-such-v"), "there is no vhost"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(rabbit_url: str, change: tuple[str, str], words: str) -> None:
    engine = open_engine(rabbit_url.replace(*change))
    with pytest.raises(OperationalError, match=words) as caught:
        broker_of(engine).publish([message("a")], time.time())
    assert "guest:" not in str(caught.value)
    engine.close()


def test_the_first_sender_makes_a_queue_with_its_arguments(rabbit_url: str) -> None:
    app = Umbel("sender", broker_url=rabbit_url, result_backend="disabled")
    app.conf.task_queues = [Queue("urgent", max_priority=5), Queue("safe", queue_arguments={"x-queue-type": "quorum"})]
    for name in ("urgent", "safe"):
        app.send_task("project.task", queue=name)
        # Elsewhere described otherwise: what is there is used.
        other = Umbel("other", broker_url=rabbit_url, result_backend="disabled")
        other.conf.task_queues = [Queue(name, max_length=9)]
        other.send_task("project.task", queue=name)
        other.close()
    engine = open_engine(rabbit_url)
    for name, wrong in (("urgent", "x-max-priority"), ("safe", "x-queue-type")):
        with pytest.raises(OperationalError, match=f"{name}.*{wrong}"):
            broker_of(engine).declare([Queue(name, queue_arguments={"x-queue-type": "classic"})])
        assert broker_of(engine).depth([name], time.time())[name].ready == 2
    engine.close()
    app.close()


@pytest.mark.parametrize("theirs", ["quorum", "classic"])
def test_delay_levels_are_quorum_queues_unless_somebody_has_made_others(
    engine: Engine, rabbit_url: str, theirs: str
) -> None:
    if theirs == "classic":
        other = open_engine(rabbit_url, {"delay_queue_type": "classic"})
        broker_of(other).publish([message("first", due=time.time() + 60)], time.time())
        other.close()
    assert broker_of(engine).publish([message("later", due=time.time() + 2.7)], time.time()) == []
    (got,) = take(engine, 1)
    assert got.id == "later"
    connection, channel = raw_channel(rabbit_url)
    arguments = {"x-queue-type": theirs, "x-overflow": "reject-publish", "x-message-ttl": 8000}
    arguments["x-dead-letter-exchange"] = "celery_delayed_2"
    if theirs == "quorum":
        arguments["x-dead-letter-strategy"] = "at-least-once"
    # As Celery's worker declares them; the server closes the channel over any difference.
    channel.queue_declare("celery_delayed_3", durable=True, auto_delete=False, arguments=arguments)
    connection.close()
    assert end(engine, got) == []


def test_a_wake_that_comes_before_the_first_wait_ends_it(engine: Engine) -> None:
    broker_of(engine).declare([Queue("q")])
    broker_of(engine).wake()
    began = time.monotonic()
    assert broker_of(engine).lease(Lease(("q",), "me", 1, 30.0), time.time(), 20.0) == []
    assert time.monotonic() - began < 15


def test_names_that_are_too_long_are_refused_alone_and_what_comes_next_is_sent_at_once(engine: Engine) -> None:
    broker = broker_of(engine)
    broker.declare([Queue("q")])
    now = time.time()
    batch = [
        message("first"),
        message("long", queue="q" * 256),
        message("late", queue="q" * 200, due=now + 60),
        message("last"),
    ]
    refusals = broker.publish(batch, now)
    assert [(refusal.index, type(refusal.error)) for refusal in refusals] == [(1, EncodeError), (2, EncodeError)]
    assert "has at most 199" in str(refusals[1].error)
    begun = time.monotonic()
    assert broker.publish([message("next")], now) == []
    assert time.monotonic() - begun < 5
    assert sorted(delivery.id for delivery in take(engine, 3)) == ["first", "last", "next"]


def test_publishing_that_a_signal_cuts_off_leaves_nothing_behind_for_the_next(rabbit_url: str) -> None:
    class Interrupted(Exception):
        """What the handler of the signal raises, as that of a soft time limit does."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    with Proxy(urlsplit(rabbit_url).port or 0) as proxy, closing(open_engine(proxy.url(rabbit_url))) as engine:
        broker = broker_of(engine)
        broker.declare([Queue("q")])
        assert broker.publish([message("first")], time.time()) == []
        large = msgspec.structs.replace(message("large"), body=b'[["' + b"x" * 20_000_000 + b'"], {}, {}]')
        proxy.freeze()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(Interrupted):
                broker.publish([large], time.time())
        finally:
            signal.signal(signal.SIGALRM, before)
            proxy.restore()
        begun = time.monotonic()
        assert broker.publish([message("next")], time.time()) == []
        assert time.monotonic() - begun < 5
