"""Serializers write what Celery's peers read, and refuse what they may not read."""

from __future__ import annotations

import enum
import json
import math
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.core import json_types, serialization
from umbel.core.errors import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MessageRefused,
)
from umbel.core.safe_repr import arguments_repr, safe_repr

TAGGED = st.dates() | st.datetimes() | st.times() | st.decimals(allow_nan=False) | st.uuids() | st.binary(max_size=9)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.recursive(
    PLAIN | TAGGED,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert json_types.loads(json_types.dumps(value)) == value


NESTED = st.recursive(
    st.sampled_from([1, "[", "]", '"', "\\", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["[", "}", "k"]), inner),
    max_leaves=20,
)


@given(NESTED, st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_depth_is_counted_exactly_whatever_brackets_the_texts_hold(value: Any, depth: int) -> None:
    data = json.dumps(value).encode()
    if json_types.depth_exceeds(value, depth):
        with pytest.raises(MessageRefused):
            json_types.loads(data, depth)
    else:
        assert json_types.loads(data, depth) == value


class Shade(str, enum.Enum):  # noqa: UP042 - its str() differs from its value
    DARK = "dark"


class Point:
    def __json__(self) -> list[int]:
        return [1, 2]


def test_values_that_msgspec_would_write_its_own_way_are_written_as_celery_does() -> None:
    assert json_types.loads(json_types.dumps([Shade.DARK, Point(), {1: 2}])) == ["dark", [1, 2], {"1": 2}]
    assert math.isnan(json_types.loads(json_types.dumps(float("nan"))))
    assert json_types.loads(json_types.dumps("\ud800")) == "\ud800"
    for refused in ({1}, object(), 10**5000):
        with pytest.raises(EncodeError):
            json_types.dumps(refused)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeError):
        json_types.dumps(loop)


def test_a_registered_json_type_comes_back_until_it_is_unregistered() -> None:
    json_types.register_type(complex, "complex", str, complex)
    try:
        assert json_types.loads(json_types.dumps([1 + 2j])) == [1 + 2j]
    finally:
        json_types.unregister_type(complex)
    with pytest.raises(EncodeError, match="register_type"):
        json_types.dumps(1j)


@pytest.mark.parametrize("name", ["json", "msgpack", "yaml", "pickle"])
def test_content_is_read_only_when_it_is_accepted_by_name_or_mime_type(name: str) -> None:
    data, content_type, encoding = serialization.dumps({"a": [1, "b"]}, name)
    for accept in ({name}, {content_type}, serialization.accept_set([name])):
        assert serialization.loads(data, content_type, encoding, accept) == {"a": [1, "b"]}
    with pytest.raises(ContentDisallowed, match=name):
        serialization.loads(data, content_type, encoding, {"other"})


def test_msgpack_refuses_what_other_msgpack_libraries_would_not_understand() -> None:
    with pytest.raises(EncodeError, match="datetime"):
        serialization.dumps([datetime(2026, 1, 1)], "msgpack")
    data = serialization.dumps([Shade.DARK, b"x"], "msgpack").data
    assert serialization.loads(data, "application/x-msgpack", "binary", {"msgpack"}) == ["dark", b"x"]


def test_raw_content_passes_as_it_is() -> None:
    assert serialization.dumps(b"\xff", "raw") == (b"\xff", "application/data", "binary")
    assert serialization.loads(b"\xff", "application/data", "binary", ()) == b"\xff"
    assert serialization.dumps("a", "raw") == (b"a", "text/plain", "utf-8")
    with pytest.raises(EncodeError):
        serialization.dumps(5, "raw")
    with pytest.raises(DecodeError):
        serialization.loads(b"\xff", "application/data", "utf-8", ())


def test_a_registered_serializer_works_until_it_is_unregistered() -> None:
    serialization.register("upper", lambda value: value.upper(), lambda data: data.decode().lower(), "x/upper")
    try:
        assert serialization.dumps("a", "upper") == (b"A", "x/upper", "utf-8")
        assert serialization.loads(b"A", "x/upper", "utf-8", {"upper"}) == "a"
    finally:
        serialization.unregister("upper")
    with pytest.raises(EncodeError, match="unknown serializer 'upper'"):
        serialization.dumps("a", "upper")
    with pytest.raises(ImproperlyConfigured):
        serialization.accept_set(["upper"])


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_argument_reprs_are_bounded_and_never_raise() -> None:
    assert arguments_repr((1, "a"), {}) == ("(1, 'a')", "{}")
    assert arguments_repr([1], {"x": None}) == ("[1]", "{'x': None}")
    assert safe_repr((Hostile(), 10**5000))[:13] == "(<unprintable"
    assert safe_repr([[[[1]]]]) == "[[[[...]]]]"
    loop: list[Any] = []
    loop.append(loop)
    assert safe_repr(loop) == "[[...]]"
    for huge in (["x" * 10**6] * 10, list(range(10**5)), {"k" * 10**6: 1}, b"x" * 10**6):
        assert len(safe_repr(huge)) < 1100
    assert "\n" not in safe_repr(["\n", "y" * 100])


@pytest.mark.parametrize("text", ["x" * 10_000, "_" * 10_000, "__type_" * 2000, 'a_b"__' * 2000])
def test_a_typed_value_is_found_wherever_it_stands_in_a_long_text(text: str) -> None:
    moment = datetime(2026, 5, 4, 3, 2, 1)
    for value in ([text, moment], [moment, text], [text, moment, text], [text]):
        assert json_types.loads(json_types.dumps(value)) == value
