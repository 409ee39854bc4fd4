"""Records `messages.json` from a real Celery 5.7.

Run in a scratch environment, never in the project's own:
    python -m venv scratch && scratch/bin/pip install "celery==5.7.*" msgpack pyyaml brotli
    scratch/bin/python tests/core/golden/record.py
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from celery import Celery, chain, chord
from kombu.serialization import dumps
from kombu.transport.memory import Channel

app = Celery("golden", broker="memory://", backend="cache+memory://", set_as_current=True)
recorded: list[dict[str, object]] = []


def keep(self: object, queue: str, message: dict[str, object], **options: object) -> None:
    recorded.append(message)


Channel._put = keep

VALUES = {
    "moment": datetime(2026, 11, 21, 7, 57, 16, 446117, tzinfo=UTC),
    "naive": datetime(2026, 1, 2, 3, 4, 5),
    "day": date(2026, 11, 21),
    "clock": time(7, 57, 16),
    "amount": Decimal("12.50"),
    "key": UUID("6fd6bd4e-5d84-4d42-b21d-b6ab6c2d9a3f"),
    "text": b"caf\xc3\xa9",
    "binary": b"\xff\x00",
}


@app.task(name="t.add")
def add(x: object = 0, y: object = 0, **more: object) -> object:
    return x


def record(name: str, **options: object) -> None:
    recorded.clear()
    add.apply_async((1, 2), options.pop("kwargs", {}), task_id=f"id-{name}", **options)
    out[name] = recorded[-1]


out: dict[str, object] = {}
for serializer in ("json", "pickle", "yaml", "msgpack"):
    record(serializer, serializer=serializer, kwargs={"text": "caf\u00e9", "list": [1, 2.5, None, True]})
record("json types", kwargs=VALUES)
for compression in ("gzip", "bzip2", "lzma", "brotli"):
    record(compression, compression=compression)
record("eta", eta=datetime(2026, 11, 21, 7, 57, 16, 446117, tzinfo=UTC))
record("expires", expires=datetime(2099, 1, 1, tzinfo=UTC))
record("link", link=add.s(5), link_error=add.s(6))
record("headers", headers={"my": "h"}, priority=5, shadow="t.shadow", time_limit=10, soft_time_limit=5)
record("stamps", stamped_headers=["tenant"], tenant="a")
record("no result", ignore_result=True, retries=2)
recorded.clear()
chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()
out["chain"] = recorded[-1]
recorded.clear()
chord([add.s(1, 2), add.s(3, 4)], add.s()).apply_async()
out["chord"] = recorded[0]
app.conf.task_protocol = 1
app.amqp.__dict__.pop("create_task_message", None)
app.amqp.__dict__.pop("send_task_message", None)
record("protocol 1", eta=datetime(2026, 11, 21, 7, 57, 16, 446117, tzinfo=UTC), link=add.s(5))

here = Path(__file__).parent
here.joinpath("messages.json").write_text(json.dumps(out, indent=1) + "\n")
here.joinpath("values.json").write_text(dumps(VALUES, serializer="json")[2] + "\n")
