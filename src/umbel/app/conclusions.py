"""What the end of a message means to others where nobody runs it: it is unknown, cannot be read, or is purged.

What follows it stands in its body. That is read here only if anything does; errbacks and later steps are left to
`umbel.fail`, which an executor runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from umbel.app import request as requests
from umbel.app.canvas.publishing import keeps_plans
from umbel.app.following import Source, full
from umbel.app.kept import keep_task
from umbel.app.parts import Place, content_type_of, encode_part, part_of, place_of
from umbel.app.settlement import fail_message, failed_parts
from umbel.core import protocol, serialization, states
from umbel.core.errors import NotSupportedError
from umbel.core.flow.dooming import doomed
from umbel.core.followers import stands_alone
from umbel.core.limits import DEFAULT_LIMITS, Limits
from umbel.core.message import Message, Part
from umbel.core.protocol import Head, Payload, Quarantined

__all__ = ["Consequences", "consequences", "keep_unrun", "reading_rules"]


class Consequences(NamedTuple):
    """Messages and parts of chords that go with an end."""

    publish: tuple[Message, ...] = ()
    parts: tuple[Part, ...] = ()


_NONE = Consequences()


def reading_rules(app: Any) -> tuple[frozenset[str], Limits]:
    """Return which content an app reads and up to which limits."""
    conf = app.conf
    limits = replace(
        DEFAULT_LIMITS,
        message_bytes=conf.message_max_bytes,
        decompressed_bytes=conf.message_max_bytes,
        depth=conf.message_max_depth,
    )
    return serialization.accept_set(conf.accept_content), limits


def consequences(app: Any, message: Any, exc: Exception, state: str = states.FAILURE) -> Consequences:
    """Return what follows when a message ends in `state` without a run; `message` has id, head, body, generation.

    Never raises for what the message holds: of one that cannot be read nothing follows but a part of its chord, if its
    head names one.
    """
    if stands_alone(message.body):
        return _NONE
    accept, limits = reading_rules(app)
    head = protocol.read_head(message.head, limits)
    if isinstance(head, Quarantined):
        return _NONE
    payload = protocol.read_body(head, message.body, accept, limits)
    if isinstance(payload, Quarantined):
        return _of_unreadable(app, message, head, exc, state)
    if not (payload.errbacks or payload.chain or payload.chord):
        return _NONE
    return _of_followed(app, message, head, payload, (exc, state))


def keep_unrun(app: Any, job: Any) -> None:
    """Keep the message of a task that failed without a run, for `retry_failed`; one that cannot be read is not."""
    accept, limits = reading_rules(app)
    head = protocol.read_head(job.head, limits)
    payload = head if isinstance(head, Quarantined) else protocol.read_body(head, job.body, accept, limits)
    if isinstance(head, Quarantined) or isinstance(payload, Quarantined):
        return
    values = {"chain": payload.chain, "chord": payload.chord}
    keep_task(app, job, requests.Context.adopt(values, None, head))


def _of_unreadable(app: Any, message: Any, head: Head, exc: Exception, state: str) -> Consequences:
    """Of a body that cannot be read: the others of its group may know what waits for them."""
    if not keeps_plans(app) or not head.group or head.group_index is None:
        return _NONE
    payload = encode_part(app.conf, message.id, state, exc)
    return Consequences((), (Part(head.group, head.group_index, payload, member=message.id),))


def _of_followed(app: Any, message: Any, head: Head, payload: Payload, end: tuple[Exception, str]) -> Consequences:
    exc, state = end
    values = {name: getattr(payload, name) for name in ("args", "kwargs", "callbacks", "errbacks", "chain", "chord")}
    request = requests.Context.adopt(values, None, head)
    nesting = head.replaced_task_nesting or 0
    source = Source(app, message.id, message.generation, nesting, head.root_id or message.id, message.id)
    steps = [full(step) for step in reversed(payload.chain or ())]
    parts = failed_parts(app, doomed(steps).memberships, exc, content_type_of(request)) if steps else []
    place = place_of(request)
    if place is not None:
        parts, steps = _with_own(app, message, (place, exc, state), (parts, steps))
    if not payload.errbacks and not (steps and app.store is not None):
        return Consequences((), tuple(parts))
    told = fail_message(source, steps, exc, request=request, errbacks=bool(payload.errbacks))
    return Consequences((told,), tuple(parts))


def _with_own(
    app: Any, message: Any, ended: tuple[Place, Exception, str], found: tuple[list[Part], list[dict[str, Any]]]
) -> tuple[list[Part], list[dict[str, Any]]]:
    """Add the message's own part; a member without a place ends the body itself."""
    place, exc, state = ended
    parts, steps = found
    try:
        return [*parts, part_of(app, place, message.id, state, exc)], steps
    except NotSupportedError:
        return parts, [*steps, full(place.chord)]
