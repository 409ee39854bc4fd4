from __future__ import annotations

import json

import pytest

from umbel.core.followers import stands_alone
from umbel.core.protocol import encode_body

NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_a_plain_call_stands_alone_whoever_wrote_it() -> None:
    assert stands_alone(encode_body((1,), {"a": 2}).data)
    assert stands_alone(encode_body((1,), {"a": {1: 2}}, {}).data)
    assert stands_alone(json.dumps([[1], {}, NOTHING]).encode())
    assert stands_alone(b"[[], {}, null]")
    assert stands_alone(b"[[], {}, {}]")


@pytest.mark.parametrize("name", NOTHING)
def test_what_something_follows_from_does_not(name: str) -> None:
    assert not stands_alone(encode_body((1,), {}, {name: [{"task": "next"}]}).data)


@pytest.mark.parametrize("body", [b"", b"\x80\x04", b"{}", b'["x"]', b"[" * 100_000, b"[[],{},3]"])
def test_what_cannot_be_read_is_not_certain(body: bytes) -> None:
    assert not stands_alone(body)


def test_arguments_cannot_pass_for_the_end_of_a_body() -> None:
    text = ',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    assert not stands_alone(encode_body((text,), {}, {"chain": [{"task": "next"}]}).data)
