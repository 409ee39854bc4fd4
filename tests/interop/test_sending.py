"""What one side sends, the other runs: serializers, compression, headers, times, priorities, exchanges."""

from __future__ import annotations

import datetime as dt
import decimal
import time
import uuid

import pytest

from tests.interop.kit import Fleet, wait_for
from umbel import Exchange, Queue

SERIALIZERS = ("json", "pickle", "msgpack", "yaml")
VALUES = ([1, -2.5, None, True, "ü ☂"], {"nested": {"deep": [1, [2]]}}, "")
ZONE = dt.timezone(dt.timedelta(hours=2))
#: What json carries beyond JSON, in the form that both sides agree on.
TYPED = (
    dt.datetime(2026, 5, 4, 3, 2, 1, 500, tzinfo=ZONE),
    dt.date(2026, 5, 4),
    decimal.Decimal("1.10"),
    uuid.UUID(int=7),
    b"text",
)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_celery_sends_and_umbel_runs(fleet: Fleet, serializer: str) -> None:
    call = f"echo.apply_async({VALUES!r}, {{'k': 1}}, queue='to_umbel', serializer={serializer!r}).get(timeout=15)"
    assert fleet.celery.ask(call) == {"side": "umbel", "args": list(VALUES), "kwargs": {"k": 1}}


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_umbel_sends_and_celery_runs(fleet: Fleet, serializer: str) -> None:
    sent = fleet.umbel.tasks["fleet.echo"].apply_async(VALUES, {"k": 1}, queue="to_celery", serializer=serializer)
    assert sent.get(timeout=15) == {"side": "celery", "args": list(VALUES), "kwargs": {"k": 1}}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_values_of_many_types_arrive_as_they_were(fleet: Fleet, serializer: str) -> None:
    shown = [f"{type(value).__name__}: {value!r}" for value in TYPED]
    sent = fleet.send("kinds", *TYPED, queue="to_celery", serializer=serializer)
    assert sent.get(timeout=15) == shown
    names = "datetime=__import__('datetime'), decimal=__import__('decimal'), uuid=__import__('uuid')"
    call = f"(lambda {names}: kinds.apply_async({TYPED!r}, queue='to_umbel', serializer={serializer!r}))()"
    expression = call.replace("UUID(", "uuid.UUID(").replace("Decimal(", "decimal.Decimal(")
    assert fleet.celery.ask(f"{expression}.get(timeout=15)") == shown


@pytest.mark.parametrize("compression", ["zlib", "bzip2"])
def test_compressed_messages_are_read_by_both(fleet: Fleet, compression: str) -> None:
    text = "a long text " * 2000
    sent = fleet.send("echo", text, queue="to_celery", compression=compression)
    assert sent.get(timeout=15)["args"] == [text]
    call = f"echo.apply_async(('a long text ' * 2000,), queue='to_umbel', compression={compression!r})"
    assert fleet.celery.ask(f"{call}.get(timeout=15)")["args"] == [text]


@pytest.mark.parametrize("text", ["x" * 50_000, 'Größe \\ \n "' * 5000])
def test_large_messages_are_read_by_both(fleet: Fleet, text: str) -> None:
    sent = fleet.send("echo", text, queue="to_celery")
    assert sent.get(timeout=15) == {"side": "celery", "args": [text], "kwargs": {}}
    call = f"echo.apply_async(({text!r},), queue='to_umbel').get(timeout=15)"
    assert fleet.celery.ask(call) == {"side": "umbel", "args": [text], "kwargs": {}}


def test_messages_of_protocol_1_are_run_with_their_options(fleet: Fleet) -> None:
    sent = "old.send_task('fleet.request', (1,), {'k': 2}, queue='to_umbel', expires=60, headers={'x-own': 'h'})"
    seen = fleet.celery.ask(f"{sent}.get(timeout=15)")
    assert (seen["retries"], seen["routing_key"]) == (0, "to_umbel")
    assert seen["expires"] is not None
    assert seen["hostname"] == "umbel-main@test"
    began = time.time()
    late = fleet.celery.ask("old.send_task('fleet.echo', queue='to_umbel', countdown=1).id")
    wait_for(lambda: fleet.runs("echo", late), "a protocol 1 message with a countdown")
    assert fleet.runs("echo", late)[0].at >= began + 1
    linked = "add.s(10).set(queue='to_celery', task_id=os.environ.setdefault('LINKED', str(uuid.uuid4())))"
    fleet.celery.ask(f"old.send_task('fleet.add', (2, 3), queue='to_umbel', link={linked}).get(timeout=15)")
    assert fleet.celery.ask("result(os.environ['LINKED']).get(timeout=15)") == 15


def test_the_request_shows_what_the_other_side_sent(fleet: Fleet) -> None:
    options = {"headers": {"x-own": "value", "x-number": 7}, "time_limit": 30, "soft_time_limit": 20, "expires": 60}
    celery = fleet.celery.ask(f"request.apply_async((1, 'two'), {{'k': 3}}, queue='to_umbel', **{options!r}).id")
    ours = fleet.umbel.tasks["fleet.request"].apply_async((1, "two"), {"k": 3}, queue="to_celery", **options)
    seen = {"umbel": fleet.umbel.AsyncResult(celery).get(timeout=15), "celery": ours.get(timeout=15)}
    for side, task_id in (("umbel", celery), ("celery", ours.id)):
        assert seen[side]["id"] == seen[side]["root_id"] == seen[side]["correlation_id"] == task_id
        assert seen[side]["headers"] == options["headers"]
        assert seen[side]["timelimit"] == [30, 20]
        assert seen[side]["expires"]
        assert (seen[side]["argsrepr"], seen[side]["kwargsrepr"]) == ("(1, 'two')", "{'k': 3}")
        assert seen[side]["hostname"] == f"{side}-main@test"
        assert seen[side]["routing_key"] == f"to_{side}"
        assert seen[side]["origin"].startswith("gen")


def test_children_know_their_parent_across_the_sides(fleet: Fleet) -> None:
    parent = fleet.send("parent", "to_umbel", queue="to_celery")
    child = fleet.umbel.AsyncResult(parent.get(timeout=15)).get(timeout=15)
    assert (child["parent_id"], child["root_id"], child["hostname"]) == (parent.id, parent.id, "umbel-main@test")
    parent_id = fleet.celery.ask("parent.apply_async(('to_celery',), queue='to_umbel').id")
    child_id = fleet.umbel.AsyncResult(parent_id).get(timeout=15)
    child = fleet.celery.ask(f"result({child_id!r}).get(timeout=15)")
    assert (child["parent_id"], child["root_id"], child["hostname"]) == (parent_id, parent_id, "celery-main@test")
    assert fleet.celery.ask(f"[child.id for child in result({parent_id!r}).children]") == [child_id]
    assert [one.id for one in parent.children] == [fleet.umbel.AsyncResult(parent.id).result]


def test_countdowns_are_kept_by_both(fleet: Fleet) -> None:
    began = time.time()
    theirs = fleet.celery.ask("echo.apply_async((1,), queue='to_umbel', countdown=1.5).id")
    ours = fleet.send("echo", 2, queue="to_celery", countdown=1.5)
    for task_id in (theirs, ours.id):
        wait_for(lambda task_id=task_id: fleet.runs("echo", task_id), "a task with a countdown")
        (run,) = fleet.runs("echo", task_id)
        assert 1.45 <= run.at - began < 6


def test_an_expired_task_is_revoked_by_either_side(fleet: Fleet) -> None:
    theirs = fleet.celery.ask("echo.apply_async((1,), queue='to_umbel', countdown=1.2, expires=0.6).id")
    ours = fleet.send("echo", 2, queue="to_celery", countdown=1.2, expires=0.6)
    for task_id in (theirs, ours.id):
        outcome = fleet.outcome(task_id)
        assert outcome["state"] == "REVOKED"
        assert outcome["value"]["error"] == "TaskRevokedError"
        assert fleet.umbel.AsyncResult(task_id).state == "REVOKED"
        assert fleet.runs("echo", task_id) == []


@pytest.mark.parametrize("kind", ["topic", "direct"])
def test_messages_through_exchanges_arrive_at_the_other_side(fleet: Fleet, kind: str) -> None:
    through_an_exchange(fleet, kind)


def test_messages_through_fanout_exchanges_arrive_at_the_other_side(rabbitmq_fleet: Fleet) -> None:
    rabbitmq_fleet.celery_worker.wait_ready()
    rabbitmq_fleet.umbel_worker.wait_ready()
    through_an_exchange(rabbitmq_fleet, "fanout")


def through_an_exchange(fleet: Fleet, kind: str) -> None:
    """Send from either side through an exchange of a kind, to the other side's queue."""
    bound, key = {"topic": ("news.#", "news.of.today"), "direct": ("key", "key"), "fanout": ("", "")}[kind]
    short = "fan" if kind == "fanout" else kind
    queue = f"Queue('{short}_to_umbel', Exchange('{kind}_of_umbel', {kind!r}), {bound!r})"
    named = f"exchange='{kind}_of_umbel', routing_key={key!r}"
    theirs = fleet.celery.ask(f"echo.apply_async((1,), queue={queue}, exchange_type={kind!r}, {named}).id")
    assert fleet.umbel.AsyncResult(theirs).get(timeout=15)["side"] == "umbel"
    into = Queue(f"{short}_to_celery", Exchange(f"{kind}_of_celery", kind), bound)
    ours = fleet.send("echo", 1, queue=into, exchange=into.exchange, routing_key=key)
    assert ours.get(timeout=15)["side"] == "celery"


def test_both_sides_write_priorities_that_the_other_reads(fleet: Fleet) -> None:
    priorities = (0, 9, 4)
    highest = ", max_priority=10" if fleet.kind == "rabbitmq" else ""
    order = sorted(priorities, reverse=fleet.kind == "rabbitmq")
    mine = f"ranked{time.time_ns()}"
    fleet.celery.ask(f"drain({mine!r}, 0, priorities={fleet.kind == 'rabbitmq'})")
    fleet.umbel.amqp.queues.add(mine, max_priority=10) if highest else None
    ours = {fleet.send("note", queue=mine, priority=priority).id: priority for priority in priorities}
    seen = fleet.celery.ask(f"drain({mine!r}, 3, priorities={fleet.kind == 'rabbitmq'})")
    assert [ours[task_id] for task_id in seen] == order
    theirs = {
        fleet.celery.ask(f"note.apply_async((), queue=Queue({mine!r}{highest}), priority={priority}).id"): priority
        for priority in priorities
    }
    taken = fleet.lease(mine, 3)
    assert [theirs[got.id] for got in taken] == order
    assert [got.priority for got in taken] == order
