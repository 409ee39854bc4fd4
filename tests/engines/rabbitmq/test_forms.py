"""Headers in a form that is known are read as any other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from umbel.engines.rabbitmq.forms import Forms
from umbel.engines.rabbitmq.tables import TableError, read_properties, write_properties

_CONSTANTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.lists(st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
_NAMES = st.lists(st.text(max_size=12), max_size=8, unique=True)
_PROPERTIES = ("correlation_id", "reply_to", "message_id", "expiration", "app_id")


def read(data: bytes) -> Any:
    try:
        return read_properties(data)
    except TableError as error:
        return str(error)


def read_known(forms: Forms, data: bytes) -> Any:
    try:
        return forms.read(data, 100)
    except TableError as error:
        return str(error)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Several messages with the same names and constants, and texts of their own."""
    names = draw(_NAMES)
    constants = {name: draw(_CONSTANTS) for name in names if draw(st.booleans())}
    own = draw(st.sets(st.sampled_from(_PROPERTIES)))
    written = []
    for _ in range(4):
        headers = {name: constants[name] if name in constants else draw(st.text(max_size=9)) for name in names}
        properties: dict[str, Any] = {name: draw(st.text(min_size=1, max_size=9)) for name in own}
        written.append(write_properties(headers, {"priority": 3, **properties}, "application/json", "utf-8"))
    return written


@given(messages())
def test_what_comes_in_a_form_that_is_known_is_read_as_by_the_table(written: list[bytes]) -> None:
    forms = Forms()
    for data in written:
        found = forms.read(data, 100)
        assert found == read(data)
        assert list(found[1]) == list(read(data)[1])


@given(messages(), st.data())
def test_so_is_what_is_damaged(written: list[bytes], data: st.DataObject) -> None:
    forms = Forms()
    forms.read(written[0], 100)
    for good in written[1:]:
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes((data.draw(st.integers(0, 255)),)) + good[at + 1 :]
        assert read_known(forms, bad) == read(bad)
        cut = good[: data.draw(st.integers(0, len(good)))]
        assert read_known(forms, cut) == read(cut)


def test_messages_in_many_forms_are_read_however_they_alternate() -> None:
    forms = Forms()
    for turn in range(400):
        headers = {"id": str(turn), **dict.fromkeys(map(str, range(turn % 11))), "retries": turn % 3}
        data = write_properties(headers, {"correlation_id": str(turn)}, "application/json", "utf-8")
        assert forms.read(data, 100) == read_properties(data)


def test_what_a_reader_adds_to_headers_is_its_own() -> None:
    forms = Forms()
    data = write_properties({"id": "a", "eta": None}, {"correlation_id": "a"}, None, None)
    for _ in range(3):
        properties, headers, _ = forms.read(data, 100)
        headers["eta"] = properties["reply_to"] = "mine"
    assert forms.read(data, 100) == read_properties(data)
