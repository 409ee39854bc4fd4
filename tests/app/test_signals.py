"""Signals: who hears what, and what a failing receiver does."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from umbel import Umbel
from umbel.app import signals
from umbel.app.signals import Signal
from umbel.core.errors import UmbelWarning
from umbel.core.head_reader import headers_of


def test_a_receiver_hears_the_sender_that_it_asked_for() -> None:
    signal, heard = Signal("s"), []

    @signal.connect(sender="a")
    def receiver(sender: str, value: int, **_: Any) -> int:
        heard.append((sender, value))
        return value + 1

    assert signal.send(sender="b", value=1) == []
    assert signal.send(sender="a", value=2) == [(receiver, 3)]
    assert heard == [("a", 2)]
    assert signal.has_listeners("a")
    assert not signal.has_listeners("b")


def test_connecting_twice_counts_once_and_disconnecting_ends_it() -> None:
    signal = Signal("s")

    def receiver(**_: Any) -> None: ...

    signal.connect(receiver)
    signal.connect(receiver)
    signal.connect(lambda **_: None, dispatch_uid="x", weak=False)
    signal.connect(lambda **_: None, dispatch_uid="x", weak=False)
    assert len(signal.receivers) == 2
    assert signal.disconnect(receiver)
    assert not signal.disconnect(receiver)
    assert signal.disconnect(dispatch_uid="x")
    assert signal.receivers == ()


def test_a_weak_receiver_ends_with_its_object() -> None:
    signal = Signal("s")

    class Owner:
        def hear(self, **_: Any) -> str:
            return "heard"

    owner = Owner()
    signal.connect(owner.hear)
    assert [answer for _, answer in signal.send(sender=None)] == ["heard"]
    del owner
    gc.collect()
    assert signal.receivers == ()


def test_a_failing_receiver_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    signal = Signal("s")

    def bad(**_: Any) -> None:
        raise KeyError("x")

    def good(**_: Any) -> str:
        return "fine"

    signal.connect(bad)
    signal.connect(good)
    answers = dict(signal.send(sender=None))
    assert isinstance(answers[bad], KeyError)
    assert answers[good] == "fine"
    assert "a receiver of the signal s failed" in caplog.text


def test_what_import_modules_raises_is_raised() -> None:
    def bad(**_: Any) -> None:
        raise ImportError("broken")

    signals.import_modules.connect(bad)
    try:
        with pytest.raises(ImportError, match="broken"):
            signals.import_modules.send(sender=None)
    finally:
        signals.import_modules.disconnect(bad)


def test_connecting_to_a_signal_that_is_never_sent_warns() -> None:
    with pytest.warns(UmbelWarning, match="beat_init is never sent"):
        signals.beat_init.connect(test_connecting_to_a_signal_that_is_never_sent_warns)
    signals.beat_init.disconnect(test_connecting_to_a_signal_that_is_never_sent_warns)


def test_publish_signals_tell_of_the_message_and_may_change_it(app: Umbel) -> None:
    told: list[tuple[str, Any]] = []

    @app.task(name="proj.add")
    def add(x: int) -> None: ...

    def before(sender: str, headers: dict[str, Any], body: Any, properties: dict[str, Any], **more: Any) -> None:
        told.append(("before", (sender, body[0], sorted(more))))
        headers["trace"] = "t1"
        properties["priority"] = 6

    def after(sender: str, headers: dict[str, Any], routing_key: str, **_: Any) -> None:
        told.append(("after", (sender, headers["trace"], routing_key)))

    signals.before_task_publish.connect(before, sender="proj.add")
    signals.after_task_publish.connect(after)
    try:
        add.delay(5)
    finally:
        signals.before_task_publish.disconnect(before, sender="proj.add")
        signals.after_task_publish.disconnect(after)
    assert told == [
        ("before", ("proj.add", [5], ["declare", "exchange", "retry_policy", "routing_key", "signal"])),
        ("after", ("proj.add", "t1", "celery")),
    ]
    from umbel.engine.seam import Lease

    (delivery,) = app.broker.lease(Lease(("celery",), "test", 10, 30.0), 4e9)
    assert headers_of(delivery.head)["trace"] == "t1"
    assert delivery.priority == 6
