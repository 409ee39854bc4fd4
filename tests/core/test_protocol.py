"""The readers of messages are total functions, and what is written is read back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umbel.core.envelope import plain_body
from umbel.core.errors import EncodeError
from umbel.core.limits import Limits
from umbel.core.protocol import (
    Head,
    HeadFields,
    HeadTemplate,
    Payload,
    Quarantined,
    encode_body,
    format_time,
    headers_of,
    read_body,
    read_envelope,
    read_head,
    upgrade_head,
    write_envelope,
)

RECORDED = json.loads((Path(__file__).parent / "golden" / "messages.json").read_text())
VALID = json.dumps(RECORDED["headers"]).encode()
EVERYTHING = frozenset({"json", "msgpack", "yaml"})
TEMPLATE = HeadTemplate("t.add", routing_key="celery")


def whole(data: bytes) -> Payload | Quarantined:
    found = read_envelope(data, EVERYTHING)
    if isinstance(found, Quarantined):
        return found
    head = read_head(found[0])
    return head if isinstance(head, Quarantined) else read_body(head, found[1], EVERYTHING)


def changed(part: str, **values: Any) -> bytes:
    message = json.loads(VALID)
    message[part] = {key: value for key, value in {**message[part], **values}.items() if value != "DROP"}
    return json.dumps(message).encode()


def with_body(body: bytes, **top: Any) -> bytes:
    message = json.loads(VALID)
    message["body"] = base64.b64encode(body).decode()
    return json.dumps({**message, **top}).encode()


REFUSED = {
    "not json": b"junk",
    "empty": b"",
    "empty mapping": b"{}",
    "list": b"[]",
    "number": b"7",
    "deep": b'{"headers":' + b"[" * 50_000,
    "no id": changed("headers", id="DROP"),
    "null id": changed("headers", id=None),
    "numeric id": changed("headers", id=7),
    "id with a newline": changed("headers", id="x\nforged line"),
    "long id": changed("headers", id="x" * 200_000),
    "no task": changed("headers", task="DROP"),
    "task is a list": changed("headers", task=["t.add"]),
    "long task": changed("headers", task="x" * 300),
    "time limit is a number": changed("headers", timelimit=5),
    "time limits are texts": changed("headers", timelimit=["a", "b"]),
    "negative time limit": changed("headers", timelimit=[-1, None]),
    "retries is a text": changed("headers", retries="many"),
    "negative retries": changed("headers", retries=-1),
    "huge retries": changed("headers", retries=10**300),
    "huge priority": changed("properties", priority=2**40),
    "eta before time": changed("headers", eta="0001-01-01T00:00:00+05:00"),
    "eta is nonsense": changed("headers", eta="soon"),
    "eta is a number": changed("headers", eta=5),
    "expires is nonsense": changed("headers", expires="never"),
    "bad base64": json.dumps({**RECORDED["json"], "body": "%%%"}).encode(),
    "body is a mapping": json.dumps({**RECORDED["json"], "body": {}}).encode(),
    "unknown body encoding": changed("properties", body_encoding="rot13"),
    "headers are a list": json.dumps({**RECORDED["json"], "headers": []}).encode(),
    "properties are a list": json.dumps({**RECORDED["json"], "properties": []}).encode(),
    "body is not a list of three": with_body(b"[[],{}]"),
    "body is a number": with_body(b"5"),
    "body is not json": with_body(b"\xff\xfe"),
    "args is a text": with_body(b'["ab",{},null]'),
    "kwargs is a list": with_body(b"[[],[],null]"),
    "embed is a list": with_body(b"[[],{},[1]]"),
    "callbacks are numbers": with_body(b'[[],{},{"callbacks":[1]}]'),
    "chord is a text": with_body(b'[[],{},{"chord":"x"}]'),
    "unknown type tag": with_body(b'[[{"__type__":"os.system","__value__":"id"}],{},null]'),
    "type tag is a list": with_body(b'[[{"__type__":[],"__value__":"id"}],{},null]'),
    "deep body": with_body(b"[" * 101 + b"]" * 101),
    "very deep body": with_body(b"[" * 200_000),
    "huge number": with_body(b"[[" + b"9" * 5000 + b"],{},null]"),
    "pickle": with_body(b"\x80\x04N.", **{"content-type": "application/x-python-serialize"}),
    "unknown content type": with_body(b"x", **{"content-type": "text/evil"}),
    "unknown compression": changed("headers", compression="application/x-rar"),
    "not compressed": changed("headers", compression="application/x-gzip"),
    "headers too large": changed("headers", extra="x" * 70_000),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_malformed_message_is_quarantined_with_a_short_printable_reason(name: str) -> None:
    outcome = whole(REFUSED[name])
    assert isinstance(outcome, Quarantined)
    assert outcome.reason.isprintable()
    assert 10 < len(outcome.reason) < 600


def test_harmless_differences_of_other_producers_are_read() -> None:
    for data in (
        changed("headers", retries=None, timelimit=None, group_index=None, stamps=None),
        changed("headers", lang="DROP", origin="DROP", stamps="DROP", ignore_result="DROP"),
        changed("headers", retries=1.0, ignore_result=0),
        changed("properties", delivery_tag="DROP", priority="3"),
        changed("headers", eta="2026-11-21T07:57:16", nan=float("nan")),
        with_body(b"[[NaN],{},null]"),
        with_body(b'{"args":[1],"kwargs":{}}'),
    ):
        assert isinstance(whole(data), Payload), data


def test_a_version_1_message_without_offset_is_in_utc() -> None:
    fields = {"task": "t", "id": "1", "args": [], "kwargs": {}, "eta": "2026-01-01T00:00:00", "utc": True}
    head = upgrade_head(b'{"content-type":"application/json","headers":{}}', json.dumps(fields).encode())
    assert isinstance(head, bytes)
    view = read_head(head)
    assert isinstance(view, Head)
    assert view.protocol == 1
    assert view.eta is not None
    assert format_time(view.eta) == "2026-01-01T00:00:00+00:00"


def test_a_body_larger_than_the_limit_is_refused_on_both_sides() -> None:
    small = Limits(message_bytes=100)
    with pytest.raises(EncodeError, match="limit of 100"):
        encode_body(("x" * 200,), {}, limits=small)
    head = read_head(TEMPLATE.write(HeadFields("1")))
    assert isinstance(head, Head)
    assert isinstance(read_body(head, b"x" * 200, limits=small), Quarantined)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b'{"headers":{"task":"x","id":"y"},"properties":null,"body":null}')
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_a_reader_raise(data: bytes) -> None:
    whole(data)
    read_head(data)
    headers_of(data)
    upgrade_head(data, data)
    upgrade_head(b'{"headers":{},"content-type":"application/json"}', data)
    read_body(Head(task="t", id="1", content_type="application/json"), data)
    read_body(Head(task="t", id="1", content_type="application/x-msgpack"), data, EVERYTHING)


@given(st.integers(0, len(VALID) - 1), st.integers(0, 4), st.binary(max_size=6))
@settings(max_examples=200, deadline=None)
def test_no_mutation_of_a_valid_message_makes_a_reader_raise(at: int, drop: int, put: bytes) -> None:
    assert isinstance(whole(VALID[:at] + put + VALID[at + drop :]), (Payload, Quarantined))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
SHORT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(
    st.sampled_from(["json", "msgpack", "yaml"]),
    st.sampled_from([None, "gzip", "bzip2"]),
    st.lists(st.none() | st.integers(-(2**63), 2**63) | st.text('abc\u00e9\u4e16[]{}"\\', max_size=9), max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_a_body_comes_back_as_it_was(serializer: str, compression: str | None, args: list[Any]) -> None:
    body = encode_body(args, {"x": args}, serializer=serializer, compression=compression)
    template = HeadTemplate(
        "t",
        content_type=body.content_type,
        content_encoding=body.content_encoding,
        compression=body.compression,
    )
    head = read_head(template.write(HeadFields("1")))
    assert isinstance(head, Head)
    assert read_body(head, body.data, EVERYTHING) == Payload(args, {"x": args})


@given(SHORT, SHORT | st.none(), st.integers(0, 9), st.dictionaries(SHORT, JSON_VALUES, max_size=2), st.text())
@settings(max_examples=150, deadline=None)
def test_the_fast_and_the_general_writer_agree(
    id: str, group: str | None, retries: int, headers: dict[str, Any], text: str
) -> None:
    fields = HeadFields(id, group=group, retries=retries, argsrepr=text, eta=format_time(1.5))
    static = HeadTemplate("t.add", routing_key="q", headers=headers).write(fields, expiration="5")
    called = HeadTemplate("t.add", routing_key="q").write(fields, expiration="5", headers=headers)
    assert json.loads(static) == json.loads(called)
    head = read_head(static)
    if not headers:
        assert isinstance(head, Head)
        assert (head.id, head.group, head.retries, head.eta, head.root_id) == (id, group, retries, 1.5, id)


def test_an_envelope_comes_apart_as_it_was_put_together() -> None:
    body = encode_body((1,), {}).data
    found = read_envelope(write_envelope(TEMPLATE.write(HeadFields("1")), body, "tag"))
    assert isinstance(found, tuple)
    assert found[1] == body
    assert json.loads(found[0])["properties"]["delivery_tag"] == "tag"


# --- bodies in their envelopes -----------------------------------------------------------------------------

SENTENCE = "Größe \u2602 \\ \x00 'quoted' \"once\" \U0001f600 "


@pytest.mark.parametrize("text_from", [None, 0, 16_384])
@pytest.mark.parametrize(
    "value", ["", "x" * 100_000, SENTENCE, SENTENCE * 2000, "ü" * 20_000 + '"', "\ud800" * 9000, ["a"] * 9000]
)
def test_a_body_comes_out_of_its_envelope_as_it_went_in(value: Any, text_from: int | None) -> None:
    head = TEMPLATE.write(HeadFields("1"))
    body = encode_body((value,), {}).data
    data = write_envelope(head, body, "tag", text_from)
    assert json.loads(data)["properties"]["delivery_tag"] == "tag"
    found = read_envelope(data)
    assert isinstance(found, tuple)
    assert found[1] == body


def test_large_json_is_text_in_its_envelope_and_everything_else_is_base64() -> None:
    head = TEMPLATE.write(HeadFields("1"))
    large = encode_body(("x" * 20_000,), {}).data
    assert json.loads(write_envelope(head, large, "tag"))["body"] == large.decode()
    assert "body_encoding" not in json.loads(write_envelope(head, large, "tag"))["properties"]
    squeezed = HeadTemplate("t.add", compression="application/x-gzip").write(HeadFields("1"))
    packed = HeadTemplate("t.add", content_type="application/x-msgpack").write(HeadFields("1"))
    many_quotes = encode_body((["a"] * 9000,), {}).data
    for other, body in ((head, b"[[]]"), (squeezed, b"\x1f\x8b" * 9000), (packed, large), (head, many_quotes)):
        envelope = json.loads(write_envelope(other, body, "tag"))
        assert (envelope["properties"]["body_encoding"], base64.b64decode(envelope["body"])) == ("base64", body)
    assert len(write_envelope(head, large, "tag", None)) > len(write_envelope(head, large, "tag")) * 1.3


@given(st.binary() | st.text().map(lambda text: json.dumps(text).encode()), st.sampled_from(["", "base64", "utf-8"]))
@example(b"!!!", "base64")
@example(b'"half', "utf-8")
@example(b'"\\ud800"', "utf-8")
def test_whatever_stands_in_an_envelope_is_a_body_or_the_reason_why_not(body: bytes, encoding: str) -> None:
    found = plain_body(body, encoding)
    assert isinstance(found, bytes) or found.reason.isprintable()


@given(st.text())
@example('"' * 100)
@example("\\" * 3 + '"')
def test_text_is_taken_out_of_its_quotes(text: str) -> None:
    for quoted in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        assert plain_body(quoted.encode("utf-8", "surrogatepass"), "utf-8") == text.encode("utf-8", "surrogatepass")
