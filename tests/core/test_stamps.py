from __future__ import annotations

from typing import Any

import pytest

from umbel.core.head import HeadFields, HeadTemplate
from umbel.core.stamps import marks_for, marks_of


def head(stamps: dict[str, Any] | None) -> bytes:
    fields = HeadFields("id", stamps=stamps or {}, stamped_headers=None if stamps is None else list(stamps))
    return HeadTemplate("task", routing_key="q").write(fields)


def test_a_message_has_the_marks_of_its_stamps() -> None:
    assert marks_of(head({"tenant": "a", "batch": [1, 2]})) == [
        *marks_for({"tenant": "a"}),
        *marks_for({"batch": [1, 2]}),
    ]
    assert marks_of(head(None)) == []
    assert marks_of(head({})) == []


@pytest.mark.parametrize(("one", "other"), [({"a": "1"}, {"a": 1}), ({"a": "x"}, {"b": "x"}), ({"a": None}, {"a": ""})])
def test_different_stamps_have_different_marks(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(marks_of(head(one))).isdisjoint(marks_for(other))


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"headers": {"stamps": 3, "stamped_headers": 4}}', b"\xff"])
def test_what_cannot_be_read_has_none(raw: bytes) -> None:
    assert marks_of(raw) == []


def test_the_marks_of_one_message_are_bounded() -> None:
    assert len(marks_of(head({"batch": list(range(10_000))}))) == 100
