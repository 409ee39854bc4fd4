from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.app import exceptions_io
from umbel.app.conf import Settings
from umbel.app.exceptions_io import from_dict, register_exception, to_dict
from umbel.app.records import decode_meta, iso, record_of, result_of
from umbel.app.request import Context
from umbel.core import errors

NOW = 1_700_000_000.25


class FakeApp:
    """Only what records ask of an app: its settings."""

    def __init__(self, **settings: Any) -> None:
        self.conf = Settings(settings)


def read(app: FakeApp, data: bytes) -> Any:
    return result_of(decode_meta(app.conf, data))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain, st.none() | st.uuids().map(str))
def test_what_is_stored_comes_back(value: Any, parent: str | None) -> None:
    app = FakeApp()
    record = record_of(app, "id", "SUCCESS", value, now=NOW, request=Context(id="id", parent_id=parent))
    meta = decode_meta(app.conf, record.meta)
    assert result_of(meta) == value
    assert meta.get("parent_id") == parent
    assert (meta["status"], meta["task_id"]) == ("SUCCESS", "id")


@given(st.floats(0, 4e9))
def test_times_are_written_as_the_standard_library_reads_them(now: float) -> None:
    assert abs(datetime.fromisoformat(iso(now)).timestamp() - now) < 1e-5


def test_the_meta_is_what_celerys_backends_keep() -> None:
    record = record_of(FakeApp(), "id", "SUCCESS", 3, now=NOW, request=Context(id="id"))
    assert json.loads(record.meta) == {
        "status": "SUCCESS",
        "result": 3,
        "traceback": None,
        "children": [],
        "date_done": "2023-11-14T22:13:20.250000+00:00",
        "task_id": "id",
    }
    assert record.expires == NOW + 86400


def test_the_extended_meta_names_the_call() -> None:
    request = Context(
        id="id", task="t.add", args=[1], kwargs={"y": 2}, hostname="w@h", retries=1, delivery_info={"routing_key": "q"}
    )
    record = record_of(FakeApp(result_extended=True), "id", "SUCCESS", 3, now=NOW, request=request)
    meta = json.loads(record.meta)
    assert (meta["name"], meta["args"], meta["kwargs"]) == ("t.add", [1], {"y": 2})
    assert (meta["worker"], meta["retries"], meta["queue"]) == ("w@h", 1, "q")


def test_a_result_without_expiry_never_expires() -> None:
    assert record_of(FakeApp(result_expires=None), "id", "SUCCESS", 3, now=NOW).expires == 0


@pytest.mark.parametrize("value", [datetime(2024, 1, 2, tzinfo=UTC), Decimal("1.5"), UUID(int=7), b"\xff\x00"])
def test_celerys_tagged_types_come_back(value: Any) -> None:
    app = FakeApp()
    assert read(app, record_of(app, "id", "SUCCESS", value, now=NOW).meta) == value


@pytest.mark.parametrize("name", ["gzip", "bzip2", "lzma"])
def test_compressed_results_carry_celerys_mark(name: str) -> None:
    app = FakeApp(result_compression=name)
    data = record_of(app, "id", "SUCCESS", "x" * 1000, now=NOW).meta
    assert data.startswith(b"\x00celery-compressed\x00application/x-")
    assert read(app, data) == "x" * 1000
    assert read(FakeApp(), data) == "x" * 1000


def test_pickled_results_need_to_be_accepted() -> None:
    app = FakeApp(result_serializer="pickle", accept_content=["json", "pickle"])
    data = record_of(app, "id", "SUCCESS", {1, 2}, now=NOW).meta
    assert read(app, data) == {1, 2}
    failure = record_of(app, "id", "FAILURE", ValueError(frozenset({1})), now=NOW).meta
    assert read(app, failure).args == (frozenset({1}),)
    with pytest.raises(errors.ContentDisallowed):
        decode_meta(FakeApp(result_serializer="pickle", accept_content=["json"]).conf, pickle.dumps({"status": "X"}))


def test_custom_states_keep_their_meta_and_have_no_end() -> None:
    app = FakeApp()
    meta = decode_meta(app.conf, record_of(app, "id", "PROGRESS", {"done": 3}, now=NOW).meta)
    assert (result_of(meta), meta["date_done"]) == ({"done": 3}, None)


def test_a_failure_fits_whatever_its_exception_holds() -> None:
    app = FakeApp(result_max_bytes=4096)
    error = ValueError("x" * 10_000, object())
    record = record_of(app, "id", "FAILURE", error, now=NOW, traceback="t" * 100_000)
    back = read(app, record.meta)
    assert isinstance(back, ValueError)
    assert len(record.meta) < 4096


# --- exceptions -------------------------------------------------------------------------------------------


class Outer:
    class Inner(Exception):
        pass


class Picky(Exception):
    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code)
        self.text = text


def round_trip(exc: BaseException) -> Exception:
    return from_dict(json.loads(json.dumps(to_dict(exc, lambda value: isinstance(value, (str, int))))))


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("a", 1),
        KeyError("k"),
        Outer.Inner("x"),
        errors.TaskRevokedError("r"),
        errors.MaxRetriesExceededError("m"),
    ],
)
def test_known_exceptions_come_back_as_themselves(exc: Exception) -> None:
    back = round_trip(exc)
    assert type(back) is type(exc)
    assert back.args == exc.args


def test_errors_of_celery_have_celerys_module_on_the_wire() -> None:
    assert to_dict(errors.WorkerLostError("x"), lambda _: True)["exc_module"] == "celery.exceptions"
    foreign = {"exc_type": "WorkerLostError", "exc_message": ["x"], "exc_module": "billiard.exceptions"}
    assert isinstance(from_dict(foreign), errors.WorkerLostError)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "SystemExit"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "GeneratorExit"),
        ("builtins", "eval"),
        ("builtins", "ValueError.mro"),
        ("os", "system"),
        ("no.such.module", "Error"),
        ("antigravity", "Error"),
        ("", "ValueError"),
        (None, "ValueError"),
    ],
)
def test_a_class_that_is_unknown_or_unsafe_is_a_remote_error(module: Any, name: str) -> None:
    back = from_dict({"exc_type": name, "exc_message": ["hello"], "exc_module": module})
    assert type(back) is errors.RemoteError
    assert "hello" in str(back)


@given(st.none() | st.integers() | st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()))
def test_any_stored_error_is_an_exception_again(data: Any) -> None:
    assert isinstance(from_dict(data), Exception)


def test_a_class_with_other_arguments_comes_back_or_is_remote() -> None:
    back = round_trip(Picky(3, text="t"))
    assert back.args == (3,)
    assert isinstance(back, Picky)


def test_a_registered_class_needs_no_module() -> None:
    cls = register_exception(type("Lost", (Exception,), {"__module__": "gone.away"}))
    assert type(from_dict({"exc_type": "Lost", "exc_message": [], "exc_module": "gone.away"})) is cls
    with pytest.raises(TypeError):
        register_exception(SystemExit)  # type: ignore[arg-type]


def test_a_remote_error_passed_on_stays_what_it_was() -> None:
    first = from_dict({"exc_type": "Odd", "exc_message": ["x"], "exc_module": "far.away"})
    again = round_trip(first)
    assert str(again) == str(first) == "far.away.Odd: x"


def test_long_tracebacks_keep_both_ends() -> None:
    try:
        raise ValueError("x" * 200_000 + "end")
    except ValueError as exc:
        text = exceptions_io.traceback_text(exc)
    assert len(text) < exceptions_io.MAX_TRACEBACK + 100
    assert text.startswith("Traceback")
    assert "end" in text[-10:]
