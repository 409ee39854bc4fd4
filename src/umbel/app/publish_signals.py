"""The signals around publishing: a message is taken apart for them only when somebody listens."""

from __future__ import annotations

from typing import Any

import msgspec

from umbel.app.signals import after_task_publish, before_task_publish, task_sent
from umbel.core import json_types
from umbel.core.message import Message
from umbel.core.protocol import encode_body

__all__ = ["announce_sent", "announced", "somebody_listens"]


def somebody_listens() -> bool:
    """Tell whether any of the publish signals has a receiver."""
    return bool(before_task_publish.receivers or after_task_publish.receivers or task_sent.receivers)


def announced(message: Message, plan: Any, call: tuple[Any, Any, Any]) -> tuple[Message, dict[str, Any]]:
    """Send `before_task_publish` and return the message as its receivers left it, with what to tell afterwards.

    Receivers may change `headers`, `properties` and the items of `body` in place (Celery: the same).
    """
    envelope = json_types.loads(message.head)
    headers, properties = envelope["headers"], envelope["properties"]
    args, kwargs, options = call
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, **(_embed_of(options) or {})}
    body = [list(args), dict(kwargs), embed]
    told = {
        "body": body,
        "headers": headers,
        "exchange": message.exchange,
        "routing_key": message.queue,
    }
    if before_task_publish.receivers:
        was = json_types.dumps([envelope]), repr(body)
        before_task_publish.send(
            sender=plan.name,
            **told,
            properties=properties,
            declare=[plan.route.queue],
            retry_policy=options.get("retry_policy"),
        )
        if was != (json_types.dumps([envelope]), repr(body)):
            message = _rewritten(message, plan, envelope, body)
    return message, told


def _rewritten(message: Message, plan: Any, envelope: dict[str, Any], body: list[Any]) -> Message:
    encoded = encode_body(
        body[0],
        body[1],
        body[2],
        serializer=plan.options.serializer,
        compression=plan.options.compression,
    )
    properties = envelope.pop("properties")
    return msgspec.structs.replace(
        message,
        id=envelope["headers"]["id"],
        task=envelope["headers"]["task"],
        body=encoded.data,
        priority=properties.get("priority") or 0,
        # The properties stand last in a head.
        head=json_types.dumps({**envelope, "properties": properties}),
    )


def announce_sent(message: Message, told: dict[str, Any]) -> None:
    """Send `after_task_publish` and Celery's old `task_sent`."""
    name = message.task
    after_task_publish.send(sender=name, **told)
    if task_sent.receivers:
        args, kwargs, _ = told["body"]
        headers = told["headers"]
        task_sent.send(
            sender=name,
            task_id=message.id,
            task=name,
            args=args,
            kwargs=kwargs,
            eta=headers.get("eta"),
            taskset=headers.get("group"),
        )


def _embed_of(options: Any) -> dict[str, Any] | None:
    names = (("link", "callbacks"), ("link_error", "errbacks"), ("chain", "chain"), ("chord", "chord"))
    found = {}
    for option, name in names:
        value = options.get(option)
        if value:
            found[name] = [value] if isinstance(value, dict) and name != "chord" else value
    return found
