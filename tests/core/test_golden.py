"""Messages recorded from Celery 5.7 (golden/record.py) mean the same here."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from umbel.core import json_types
from umbel.core.protocol import (
    Head,
    HeadFields,
    HeadTemplate,
    Payload,
    custom_headers,
    headers_of,
    read_body,
    read_envelope,
    read_head,
)

GOLDEN = Path(__file__).parent / "golden"
MESSAGES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "messages.json").read_text())
EVERYTHING = frozenset({"json", "msgpack", "yaml", "pickle"})
ETA = datetime(2026, 11, 21, 7, 57, 16, 446117, tzinfo=UTC)


def read(name: str) -> tuple[Head, Payload]:
    found = read_envelope(json.dumps(MESSAGES[name]).encode(), EVERYTHING)
    assert isinstance(found, tuple), found
    head = read_head(found[0])
    assert isinstance(head, Head), head
    payload = read_body(head, found[1], EVERYTHING)
    assert isinstance(payload, Payload), payload
    return head, payload


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_recorded_message_is_read(name: str) -> None:
    head, payload = read(name)
    assert head.task == "t.add"
    assert payload.args[:2] == [1, 2]
    assert head.routing_key == "celery"


@pytest.mark.parametrize("name", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_brings_the_same_arguments(name: str) -> None:
    _, payload = read(name)
    assert payload.kwargs == {"text": "caf\u00e9", "list": [1, 2.5, None, True]}


def test_tagged_json_types_come_back_as_themselves_and_are_written_byte_for_byte() -> None:
    expected = {
        "moment": ETA,
        "naive": datetime(2026, 1, 2, 3, 4, 5),
        "day": date(2026, 11, 21),
        "clock": time(7, 57, 16),
        "amount": Decimal("12.50"),
        "key": UUID("6fd6bd4e-5d84-4d42-b21d-b6ab6c2d9a3f"),
        "text": b"caf\xc3\xa9",
        "binary": b"\xff\x00",
    }
    assert read("json types")[1].kwargs == expected
    assert json_types.dumps(expected) == (GOLDEN / "values.json").read_bytes().strip()


def test_times_limits_and_options_are_read() -> None:
    assert read("eta")[0].eta == ETA.timestamp()
    assert read("expires")[0].expires == datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    head, _ = read("headers")
    assert (head.timelimit, head.priority, head.shadow) == ((10, 5), 5, "t.shadow")
    assert custom_headers(MESSAGES["headers"]["headers"]) == {"my": "h"}
    head, _ = read("no result")
    assert (head.ignore_result, head.retries) == (True, 2)
    head, _ = read("stamps")
    assert (head.stamped_headers, head.stamps) == (["tenant"], {"tenant": "a"})


def test_signatures_in_the_body_are_read() -> None:
    _, payload = read("link")
    assert payload.callbacks
    assert payload.callbacks[0]["args"] == [5]
    assert payload.errbacks
    assert payload.errbacks[0]["args"] == [6]
    _, payload = read("chain")
    assert payload.chain
    assert [step["args"] for step in payload.chain] == [[4], [3]]
    head, payload = read("chord")
    assert payload.chord
    assert payload.chord["options"]["group_id"] == head.group


def test_protocol_1_comes_out_as_a_head_of_protocol_2() -> None:
    head, payload = read("protocol 1")
    assert (head.protocol, head.id, head.eta) == (1, "id-protocol 1", ETA.timestamp())
    assert payload.callbacks
    assert payload.callbacks[0]["args"] == [5]


def test_a_written_head_has_the_same_keys_in_the_same_order_as_celerys() -> None:
    theirs = MESSAGES["headers"]
    template = HeadTemplate("t.add", routing_key="celery", priority=5, headers={"my": "h"})
    fields = HeadFields("id-headers", shadow="t.shadow", timelimit=(10, 5), argsrepr="(1, 2)", kwargsrepr="{}")
    fields.origin = theirs["headers"]["origin"]
    head = template.write(fields, reply_to=theirs["properties"]["reply_to"])
    assert list(headers_of(head).items()) == list(theirs["headers"].items())
    ours = json.loads(head)["properties"]
    assert ours == {k: v for k, v in theirs["properties"].items() if k not in ("body_encoding", "delivery_tag")}
    assert list(ours) == [k for k in theirs["properties"] if k in ours]
