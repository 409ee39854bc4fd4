"""Messages as strangers write them, byte by byte and without umbel: straight into Redis' lists or RabbitMQ's queues."""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.process.lab import Lab

#: Left out of the headers or the envelope.
GONE = object()
MEBIBYTE = 1 << 20


class Parcel(NamedTuple):
    """A message before it becomes an envelope or an AMQP frame."""

    id: str
    headers: Any
    body: bytes
    content_type: Any = "application/json"
    content_encoding: Any = "utf-8"
    #: Properties to replace on Redis, or to set on RabbitMQ.
    properties: Any = None


def good(task: str = "lab.work", args: list[Any] | None = None, id: str = "", **headers: Any) -> Parcel:
    """Return a message as Celery sends it, with some headers replaced or (GONE) left out."""
    id = id or str(uuid.uuid4())
    whole: dict[str, Any] = {
        "lang": "py",
        "task": task,
        "id": id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": id,
        "parent_id": None,
        "argsrepr": "(0.0,)",
        "kwargsrepr": "{}",
        "origin": "gen1@stranger",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **headers,
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = json.dumps([[0.0] if args is None else args, {}, embed]).encode()
    return Parcel(id, {name: value for name, value in whole.items() if value is not GONE}, body)


def bomb(mebibytes: int) -> bytes:
    """Compress many blanks to next to nothing."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(b" " * MEBIBYTE) for _ in range(mebibytes)]) + packer.flush()


def protocol_1(**fields: Any) -> Parcel:
    """Return a message of the old protocol, with some fields replaced or left out."""
    id = str(uuid.uuid4())
    whole: dict[str, Any] = {
        "task": "lab.work",
        "id": id,
        "args": [0.0],
        "kwargs": {},
        "group": None,
        "retries": 0,
        "eta": None,
        "expires": None,
        "utc": True,
        "callbacks": None,
        "errbacks": None,
        "timelimit": [None, None],
        "taskset": None,
        "chord": None,
        **fields,
    }
    body = json.dumps({name: value for name, value in whole.items() if value is not GONE}).encode()
    return Parcel(id, {}, body)


#: What is wrong with it → the message. None of these may run, and none may harm its neighbours.
BAD: dict[str, Parcel] = {
    "id missing": good()._replace(headers={"task": "lab.work", "lang": "py"}),
    "id a number": good()._replace(headers={**good().headers, "id": 5}),
    "id of 200 kB": good(id="x" * 200_000),
    "task of 200 kB": good(task="x" * 200_000),
    "header of 200 kB": good(origin="x" * 200_000),
    "id with a line break": good(id="a\r\nERROR forged"),
    "task a list": good(task=["lab.work"]),  # type: ignore[arg-type]
    "limits a number": good(timelimit=5),
    "limits texts": good(timelimit=["a", "b"]),
    "retries a text": good(retries="many"),
    "eta no time": good(eta="0001-01-01T00:00:00+05:00"),
    "eta a list": good(eta=[1]),
    "expires a mapping": good(expires={"at": 1}),
    "body no list": good()._replace(body=b'{"a": 1}'),
    "body a number": good()._replace(body=b"5"),
    "body empty": good()._replace(body=b""),
    "body not JSON": good()._replace(body=b"nonsense"),
    "body not UTF-8": good()._replace(body=b'[["\xff"], {}, {}]'),
    "body one item": good()._replace(body=b"[[]]"),
    "body deep": good()._replace(body=b"[[" + b"[" * 100_000 + b"]" * 100_000 + b"], {}, {}]"),
    "huge integer": good()._replace(body=b"[[" + b"9" * 100_000 + b"], {}, {}]"),
    "foreign type": good()._replace(body=b'[[{"__type__": "os.system", "__value__": "true"}], {}, {}]'),
    "huge decimal": good()._replace(
        body=b'[[{"__type__": "decimal", "__value__": "' + b"9" * MEBIBYTE + b'"}], {}, {}]'
    ),
    "callbacks a number": good()._replace(body=b'[[0.0], {}, {"callbacks": 5, "chain": 5, "errbacks": 5}]'),
    "unknown content type": good()._replace(content_type="application/x-nothing"),
    "pickle": good()._replace(content_type="application/x-python-serialize", content_encoding="binary"),
    "unknown compression": good(compression="application/x-nothing"),
    "compressed by hearsay": good(compression="application/x-gzip"),
    "bomb": good(compression="application/x-gzip")._replace(body=bomb(200)),
    "too large": good(args=["x" * (17 * MEBIBYTE)]),
    "protocol 1 without task": protocol_1(task=GONE),
    "protocol 1 with odd args": protocol_1(args=5, kwargs=[]),
    "protocol 1 with odd limits": protocol_1(timelimit="x", eta=[], expires={}),
}

#: What is no envelope, and no head, of a message at all.
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"not json",
    "half": b'{"headers": {"id": "x", "ta',
    "empty object": b"{}",
    "list": b"[]",
    "null": b"null",
    "number": b"17",
    "not UTF-8": b'{"headers": "\xff\xfe"}',
    "deep": b"[" * 50_000 + b"]" * 50_000,
}
#: Raw elements of a Redis list.
RAW: dict[str, bytes] = {**BROKEN, "binary": bytes(range(256))}


def envelope(parcel: Parcel, queue: str = "celery", **replaced: Any) -> bytes:
    """Return what kombu pushes into a Redis list."""
    whole = {
        "body": base64.b64encode(parcel.body).decode(),
        "content-encoding": parcel.content_encoding,
        "content-type": parcel.content_type,
        "headers": parcel.headers,
        "properties": {
            "correlation_id": parcel.id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
        **replaced,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not GONE}).encode()


def odd_envelopes() -> dict[str, bytes]:
    """Return envelopes of Redis that are JSON and wrong."""
    properties = json.loads(envelope(good()))["properties"]

    def without(name: str, value: Any = GONE) -> dict[str, Any]:
        changed = {**properties, name: value}
        return {key: one for key, one in changed.items() if one is not GONE}

    return {
        "no headers": envelope(good(), headers=GONE),
        "headers a list": envelope(good(), headers=[]),
        "no body": envelope(good(), body=GONE),
        "body a number": envelope(good(), body=5),
        "bad base64": envelope(good(), body="!!!"),
        "much bad base64": envelope(good(), body="!" * 100_000),
        "much text that is no JSON": envelope(good(), body="!" * 100_000, properties=without("body_encoding")),
        "unknown body encoding": envelope(good(), properties=without("body_encoding", "rot13")),
        "properties a text": envelope(good(), properties="none"),
        "no content type": envelope(good(), **{"content-type": GONE}),
        "delivery info a list": envelope(good(), properties=without("delivery_info", [])),
        "unknown encoding": envelope(good()._replace(content_encoding="klingon")),
        "umbel a text": envelope(good(), properties=without("umbel", "x")),
        "umbel with odd counts": envelope(
            good(), properties=without("umbel", {"token": "x", "crashes": -5, "offers": []})
        ),
    }


def push(lab: Lab, elements: list[bytes], queue: str = "celery") -> None:
    """LPUSH straight into the list of a queue."""
    import redis

    with redis.Redis.from_url(lab.deployment.broker) as client:
        for element in elements:
            client.lpush(queue, element)


def redis_publish(lab: Lab, channel: str, payload: bytes) -> int:
    """PUBLISH on a channel of the database; return how many listened."""
    import redis

    with redis.Redis.from_url(lab.deployment.broker) as client:
        database = urlsplit(lab.deployment.broker).path.strip("/") or "0"
        return int(client.publish(channel.format(db=database), payload))


def basic_publish(lab: Lab, parcels: list[Parcel], exchange: str = "", key: str = "celery") -> None:
    """Publish on RabbitMQ with nothing but py-amqp, confirmed."""
    import amqp

    parts = urlsplit(lab.deployment.broker)
    with amqp.Connection(
        f"127.0.0.1:{parts.port}", "guest", "guest", virtual_host=parts.path[1:], confirm_publish=True
    ) as connection:
        channel = connection.channel()
        for parcel in parcels:
            properties = {
                "content_type": parcel.content_type,
                "content_encoding": parcel.content_encoding,
                "delivery_mode": 2,
                "correlation_id": parcel.id[:200],
                **(parcel.properties or {}),
            }
            message = amqp.Message(
                parcel.body,
                channel,
                application_headers=parcel.headers,
                **{name: value for name, value in properties.items() if value is not GONE},
            )
            channel.basic_publish(message, exchange=exchange, routing_key=key)
