from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from amqp.basic_message import Message as AmqpMessage
from hypothesis import given
from hypothesis import strategies as st

from umbel.engines.rabbitmq.tables import TableError, read_properties, write_properties

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)


def test_what_py_amqp_writes_is_read_and_the_other_way_round() -> None:
    headers: dict[str, Any] = {
        "task": "t.add",
        "none": None,
        "yes": True,
        "int": -5,
        "long": 2**40,
        "float": 1.5,
        "decimal": Decimal("3.25"),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None),
        "list": [1, "two", [None]],
        "table": {"a": {"b": "ü"}},
    }
    theirs = AmqpMessage(b"", content_type="application/json", priority=3, application_headers=headers)
    properties, read, plain = read_properties(theirs._serialize_properties())
    assert (properties["content_type"], properties["priority"], read, plain) == ("application/json", 3, headers, False)
    ours = AmqpMessage()
    ours._load_properties(60, write_properties(headers, {"correlation_id": "x"}, "application/json", "utf-8"), 0)
    assert ours.properties["application_headers"] == headers
    assert ours.properties["correlation_id"] == "x"


@given(st.dictionaries(st.text(max_size=40), _values, max_size=5))
def test_headers_come_back_as_they_were(headers: dict[str, Any]) -> None:
    assert read_properties(write_properties(headers, {}, None, None))[1] == headers


@given(st.binary(max_size=60))
def test_no_bytes_are_too_strange_to_say_so(data: bytes) -> None:
    try:
        read_properties(data)
    except TableError as error:
        assert str(error)


def test_a_name_that_amqp_cannot_carry_is_refused() -> None:
    with pytest.raises(TableError, match="255"):
        write_properties({"x" * 300: 1}, {}, None, None)
