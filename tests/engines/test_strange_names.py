"""Ids and names that somebody else has written: whichever broker brings them, they are taken or refused alike."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from umbel.core.head import Quarantined
from umbel.core.limits import DEFAULT_LIMITS
from umbel.engines.rabbitmq.mapping import read_delivery
from umbel.engines.rabbitmq.tables import write_properties
from umbel.engines.redis.envelopes import deliver

BODY = b"[[],{},{}]"


def on_rabbitmq(headers: dict[str, Any]) -> str:
    """Return why a message with these headers is refused; "" when it is taken."""
    arguments = b"\x04ctag" + struct.pack(">QB", 1, 0) + b"\x00" + b"\x06celery"
    content = arguments, write_properties(headers, {}, "application/json", "utf-8"), BODY
    return read_delivery("celery", content).reason


def on_redis(headers: dict[str, Any]) -> str:
    envelope = {
        "body": base64.b64encode(BODY).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
    }
    found = deliver(json.dumps(envelope, ensure_ascii=False).encode(), "celery", 1, b"celery")
    return found.reason if isinstance(found, Quarantined) else ""


@pytest.mark.parametrize("length", [0, 1, DEFAULT_LIMITS.id_length, DEFAULT_LIMITS.id_length + 1, 10_000])
@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f40c"])
@pytest.mark.parametrize("name", ["task", "id"])
def test_names_are_as_long_as_the_limits_say(name: str, letter: str, length: int) -> None:
    headers = {"lang": "py", "task": "t", "id": "i", name: letter * length}
    reason = on_rabbitmq(headers)
    assert bool(reason) is (not 0 < length <= DEFAULT_LIMITS.id_length)
    assert reason == on_redis(headers)
    assert len(reason) < 200


@pytest.mark.parametrize("value", [None, 5, ["a"], {"a": 1}, True])
@pytest.mark.parametrize("name", ["task", "id"])
def test_what_is_no_text_is_no_name(name: str, value: object) -> None:
    headers = {"lang": "py", "task": "t", "id": "i", name: value}
    assert on_rabbitmq(headers)
    assert on_redis(headers)
