"""Protocol 1 messages in other serializers than json: their names are in bodies that have to be decoded."""

from __future__ import annotations

import pytest

from tests.interop.kit import Fleet


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
def test_a_protocol_1_message_is_run_in_every_serializer_that_is_accepted(fleet: Fleet, serializer: str) -> None:
    call = f"old.send_task('fleet.echo', (1, 'ä'), {{'k': 2}}, queue='to_umbel', serializer={serializer!r}).id"
    found = fleet.umbel.AsyncResult(fleet.celery.ask(call)).get(timeout=15)
    assert found == {"side": "umbel", "args": [1, "ä"], "kwargs": {"k": 2}}
