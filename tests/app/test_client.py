"""From call to message: what stands in it, where it goes, what is refused."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

import pytest

from umbel import Queue, Umbel
from umbel.app import request as requests
from umbel.app.sending import publish
from umbel.core.errors import (
    AlwaysEagerIgnored,
    EncodeError,
    EngineBusy,
    ImproperlyConfigured,
    NotSupportedError,
    PublishTimeout,
    QueueNotFound,
    Unroutable,
)
from umbel.core.head_reader import headers_of, read_head
from umbel.core.message import Message
from umbel.core.protocol import read_body


@pytest.fixture
def add(app: Umbel) -> Any:
    @app.task(name="proj.add")
    def add(x: int, y: int = 1) -> int:
        return x + y

    return add


def head_of(message: Message) -> Any:
    return read_head(message.head)


def build(task: Any, args: Any = (1,), kwargs: Any = None, **options: Any) -> Message:
    task.app.ensure_finalized()
    message: Message = task.app.client.build(task, args, kwargs, options)
    return message


def test_a_call_is_stored_before_delay_returns(app: Umbel, add: Any) -> None:
    result = add.delay(1, y=2)
    (delivery,) = app.broker.lease(_lease("celery"), time.time())
    assert (delivery.id, delivery.task) == (result.id, "proj.add")
    payload: Any = read_body(head_of(delivery), delivery.body)
    assert (payload.args, payload.kwargs) == ([1], {"y": 2})


def _lease(*queues: str) -> Any:
    from umbel.engine.seam import Lease

    return Lease(queues, "test", 100, 30.0)


def test_the_head_has_the_headers_of_protocol_2(add: Any) -> None:
    message = build(add, (1, 2))
    headers = headers_of(message.head)
    assert headers["argsrepr"] == "(1, 2)"
    assert headers["root_id"] == message.id
    assert headers["parent_id"] is None
    assert headers["origin"].startswith("gen")
    assert headers["timelimit"] == [None, None]


def test_arguments_that_do_not_fit_fail_at_the_call(add: Any) -> None:
    with pytest.raises(TypeError, match="'x'"):
        add.delay()
    with pytest.raises(TypeError, match="z"):
        add.delay(1, z=3)
    with pytest.raises(TypeError, match="list or tuple"):
        add.apply_async("x")
    with pytest.raises(TypeError, match="mapping"):
        add.apply_async((), [1])


def test_without_typing_any_arguments_are_sent(app: Umbel) -> None:
    @app.task(typing=False)
    def loose(x: int) -> None: ...

    assert loose.apply_async((1, 2, 3)).id


def test_an_unknown_option_names_the_nearest_one(add: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="countdown"):
        add.apply_async((1,), cuontdown=3)


@pytest.mark.parametrize("option", ["producer", "connection", "publisher"])
def test_objects_of_celerys_transport_are_refused(add: Any, option: str) -> None:
    with pytest.raises(NotSupportedError, match=option):
        add.apply_async((1,), **{option: object()})
    assert add.apply_async((1,), **{option: None}, mandatory=True, delivery_mode=2).id


def test_countdown_goes_before_eta_and_both_are_in_message_and_head(add: Any) -> None:
    before = time.time()
    message = build(add, countdown=60, eta=datetime(2099, 1, 1, tzinfo=UTC))
    assert 59 < message.due - before < 62
    assert head_of(message).eta == pytest.approx(message.due, abs=0.001)
    naive = build(add, eta=datetime(2099, 1, 1))
    assert naive.due == datetime(2099, 1, 1, tzinfo=UTC).timestamp()


def test_expiry_takes_seconds_or_a_time_and_the_past_is_now(add: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert build(add, expires=100).expires == pytest.approx(time.time() + 100, abs=2)
    when = datetime.now(UTC) + timedelta(hours=1)
    assert build(add, expires=when).expires == when.timestamp()
    assert build(add, expires=-5).expires == pytest.approx(time.time(), abs=2)
    assert "expires" in caplog.text


def test_options_of_the_task_are_defaults_and_an_explicit_none_clears_them(app: Umbel) -> None:
    @app.task(queue="slow", expires=60, priority=3, time_limit=9)
    def job() -> None: ...

    message = build(job, ())
    assert (message.queue, message.priority) == ("slow", 3)
    assert message.expires and head_of(message).timelimit == (9, None)
    cleared = build(job, (), expires=None, queue="fast", priority=None)
    assert (cleared.queue, cleared.expires, cleared.priority) == ("fast", 0.0, 0)


def test_routes_fill_what_neither_call_nor_task_says(app: Umbel, add: Any) -> None:
    app.conf.task_routes = {"proj.*": {"queue": "routed", "priority": 4}}
    assert (build(add).queue, build(add).priority) == ("routed", 4)
    assert build(add, priority=1).priority == 1
    assert build(add, queue="own").queue == "own"


def test_changed_settings_hold_for_the_next_call(app: Umbel, add: Any) -> None:
    add.delay(1)
    app.conf.task_default_queue = "elsewhere"
    add.delay(1)
    assert set(app.broker.depth([], time.time())) == {"celery", "elsewhere"}


def test_an_unknown_queue_is_refused_where_queues_are_closed(app: Umbel, add: Any) -> None:
    app.conf.update(task_queues=[Queue("celery")], task_create_missing_queues=False)
    with pytest.raises(QueueNotFound, match="nope"):
        add.apply_async((1,), queue="nope")


def test_an_exchange_that_leads_nowhere_is_refused_by_the_broker(app: Umbel, add: Any) -> None:
    with pytest.raises(Unroutable, match="no queue bound for routing key 'k'"):
        add.apply_async((1,), exchange="nowhere", routing_key="k")


@pytest.mark.parametrize("priority", [-1, 256, "5", True])
def test_a_priority_out_of_range_is_refused(add: Any, priority: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="0 to 255"):
        add.apply_async((1,), priority=priority)


def test_a_soft_limit_after_the_hard_one_is_refused(add: Any) -> None:
    with pytest.raises(ValueError, match="soft_time_limit"):
        add.apply_async((1,), soft_time_limit=10, time_limit=5)


def test_links_headers_and_reprs_travel_with_the_call(add: Any) -> None:
    message = build(add, link=add.s(5), link_error=[add.si(1)], headers={"my": "h"}, argsrepr="(hidden)")
    headers = headers_of(message.head)
    assert (headers["my"], headers["argsrepr"]) == ("h", "(hidden)")
    payload: Any = read_body(head_of(message), message.body)
    assert payload.callbacks[0]["args"] == [5]
    assert payload.errbacks[0]["immutable"] is True


def test_stamps_travel_as_given(add: Any) -> None:
    headers = headers_of(build(add, stamped_headers=["tenant"], tenant="a").head)
    assert (headers["stamped_headers"], headers["stamps"]) == (["tenant"], {"tenant": "a"})


def test_a_task_sent_inside_a_task_knows_its_parent_and_root(app: Umbel, add: Any) -> None:
    context = requests.Context(id="p", root_id="r", called_directly=False, delivery_info={"priority": 7})
    token = requests.push(add, context)
    try:
        head = head_of(build(add))
        assert (head.parent_id, head.root_id) == ("p", "r")
        result = add.delay(1)
        assert context.children == [result]
        add.apply_async((1,), add_to_parent=False)
        assert context.children == [result]
        app.conf.task_inherit_parent_priority = True
        assert build(add).priority == 7
    finally:
        requests.pop(token)


def test_retries_are_the_generation_of_the_message(add: Any) -> None:
    message = build(add, retries=2, task_id="same")
    assert (message.id, message.generation, head_of(message).retries) == ("same", 2, 2)


def test_serializer_and_compression_are_named_in_the_head(add: Any) -> None:
    head = head_of(build(add, serializer="msgpack", compression="gzip"))
    assert (head.content_type, head.compression) == ("application/x-msgpack", "application/x-gzip")


def test_a_value_that_cannot_be_sent_is_an_error_at_the_call(add: Any) -> None:
    with pytest.raises(EncodeError, match="object"):
        add.delay(object())


def test_send_task_takes_the_options_of_a_task_that_is_known_here(app: Umbel) -> None:
    @app.task(name="known", queue="slow")
    def known() -> None: ...

    app.send_task("known")
    app.send_task("unknown", (1,))
    assert set(app.broker.depth([], time.time())) == {"slow", "celery"}


def test_eager_calls_go_through_the_serializer_and_send_nothing(app: Umbel) -> None:
    @app.task
    def kind(x: Any) -> str:
        return type(x).__name__

    app.conf.task_always_eager = True
    assert kind.delay((1, 2)).get() == "list"
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("other")
    assert sum(depth.ready for depth in app.broker.depth([], time.time()).values()) == 1


def test_an_ignored_result_is_none_at_once(add: Any) -> None:
    assert add.apply_async((1,), ignore_result=True).get() is None


class _Flaky:
    """A broker that is busy a few times."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls = 0

    def publish(self, messages: Any, now: float) -> list[Any]:
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise EngineBusy("locked")
        return []


class _App:
    def __init__(self, app: Umbel, broker: Any) -> None:
        self.conf, self.broker, self.engine = app.conf, broker, app.engine


def test_publishing_is_tried_again_as_the_policy_says(app: Umbel) -> None:
    broker = _Flaky(2)
    pauses: list[float] = []
    assert publish(_App(app, broker), [], sleep=pauses.append) == []
    assert (broker.calls, pauses) == (3, [0.2])


def test_the_last_error_says_what_was_tried(app: Umbel) -> None:
    with pytest.raises(EngineBusy, match=r"in 4 attempts .*locked"):
        publish(_App(app, _Flaky(99)), [], sleep=lambda _: None)
    broker = _Flaky(99)
    with pytest.raises(EngineBusy):
        publish(_App(app, broker), [], retry=False)
    assert broker.calls == 1


def test_the_deadline_ends_all_attempts(app: Umbel) -> None:
    app.conf.task_publish_deadline = 1
    with pytest.raises(PublishTimeout):
        publish(_App(app, _Flaky(99)), [], policy={"max_retries": None, "interval_start": 2}, sleep=lambda _: None)


def test_a_call_costs_at_most_sixty_python_calls(add: Any) -> None:
    add.delay(1)
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and "umbel" in frame.f_code.co_filename

    sys.setprofile(profile)
    try:
        add.delay(1, 2)
    finally:
        sys.setprofile(None)
    assert 5 < count <= 60
