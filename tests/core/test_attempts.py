from __future__ import annotations

import json

from umbel.core.attempts import attempt_of, with_attempt


def test_the_attempt_is_written_into_the_headers_and_read_back() -> None:
    head = b'{"content-type":"application/json","headers":{"task":"t","id":"1"},"properties":{"priority":3}}'
    written = with_attempt(with_attempt(head, 3), 4)
    assert (attempt_of(head), attempt_of(written)) == (0, 4)
    whole = json.loads(written)
    assert whole["headers"] == {"task": "t", "id": "1", "umbel-attempt": 4}
    assert (whole["content-type"], whole["properties"]) == ("application/json", {"priority": 3})


def test_heads_of_strangers_are_read_without_harm() -> None:
    for head in (
        b"", b"{", b"[]", b'{"headers":[],"x":"umbel-attempt"}', b'"umbel-attempt"',
        b'{"headers":{"umbel-attempt":"many"}}', b'{"headers":{"umbel-attempt":-1}}',
        b'{"headers":{"umbel-attempt":1e99}}', b'{"headers":{"umbel-attempt":true}}',
    ):  # fmt: skip
        assert attempt_of(head) in (0, 1)
        with_attempt(head, 2)
    assert attempt_of(with_attempt(b'{"headers":{"x":NaN}}', 2)) == 2
