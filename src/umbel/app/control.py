"""Tell workers things and ask them: revoke, ping, inspect, shut down (Celery: `app.control`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from umbel.app.ids import new_id
from umbel.app.purging import purge, purged_queues
from umbel.app.records import record_of
from umbel.core import states
from umbel.core.errors import DecodeError, NotSupportedError, TaskRevokedError
from umbel.core.stamps import marks_for

__all__ = ["CONTROL_TOPIC", "NOT_ANSWERED", "Control", "Inspect", "reply_topic"]

#: The topic of the bus on which workers listen for commands.
CONTROL_TOPIC = "control"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def reply_topic(oid: str) -> str:
    """Return the topic on which the asker `oid` hears the replies."""
    return f"reply:{oid}"


class Control:
    """Commands to all workers, or to those named in `destination`; replies are gathered for `timeout` seconds."""

    def __init__(self, app: Any = None) -> None:
        self.app = app

    def inspect(self, destination: Any = None, timeout: float = 1.0, **more: Any) -> Inspect:
        """Return what asks workers and changes nothing."""
        return Inspect(self.app, destination=destination, timeout=timeout, **more)

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Any = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **more: Any,
    ) -> list[dict[str, Any]] | None:
        """Send a command; with `reply` return `[{node: answer}, …]`, as many as come within `timeout` or `limit`.

        `destination` is a list of node names; `pattern` with `matcher` (glob, pcre) chooses nodes by name.
        """
        for name, value in more.items():
            if value is not None and name not in ("connection", "channel"):
                raise TypeError(f"broadcast() got an unexpected keyword argument {name!r}")
            if value is not None:
                raise NotSupportedError(f"broadcast({name}=…) is not supported: commands travel over app.bus")
        bus = self.app.bus
        if bus is None:
            raise NotSupportedError("the engine of broker_url has no bus, so workers cannot be reached")
        ticket = new_id() if reply else None
        asker = new_id()
        message = {
            "method": command,
            "arguments": dict(arguments or {}),
            "destination": [destination] if isinstance(destination, str) else destination,
            "pattern": pattern,
            "matcher": matcher,
            "ticket": ticket,
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": asker} if reply else None,
        }
        if not reply:
            bus.send(CONTROL_TOPIC, [_encode(message)], time.time())
            return None
        listener = bus.listen([reply_topic(asker)])
        try:
            bus.send(CONTROL_TOPIC, [_encode(message)], time.time())
            most = limit if limit is not None else len(message["destination"] or ()) or None
            return _gather(listener, str(ticket), timeout, most, callback)
        finally:
            listener.close()

    def ping(self, destination: Any = None, timeout: float = 1.0, **more: Any) -> list[dict[str, Any]]:
        """Ask who is there: `[{"celery@host": {"ok": "pong"}}, …]`."""
        return self.broadcast("ping", None, destination, reply=True, timeout=timeout, **more) or []

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        reply: bool = False,
        timeout: float = 1.0,
        **more: Any,
    ) -> Any:
        """End tasks before they start, for good: the mark is stored, and a message that waits is removed at once.

        With `terminate` a worker that runs one kills it with `signal`. Where results are messages (`rpc://`), no mark
        can be kept: then that is all that happens, and without `terminate` it is a NotSupportedError.
        """
        ids = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
        self._mark(ids, terminate=terminate)
        arguments = {"task_id": ids, "terminate": terminate, "signal": str(signal)}
        return self.broadcast("revoke", arguments, destination, reply=reply, timeout=timeout, **more)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        reply: bool = False,
        timeout: float = 1.0,
        **more: Any,
    ) -> Any:
        """Revoke every task with one of these stamps: `{"header": value}`, or a list of values of which one has to fit.

        Tasks that are sent later with the stamp are revoked too, as long as revocations are kept (`result_expires`).
        """
        self._mark(marks_for(headers), terminate=terminate)
        arguments = {"headers": dict(headers), "terminate": terminate, "signal": str(signal)}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, reply=reply, timeout=timeout, **more)

    def terminate_by_stamped_headers(
        self, headers: Mapping[str, Any], destination: Any = None, signal: str = "SIGTERM", **more: Any
    ) -> Any:
        """Revoke tasks by stamps and kill those that run."""
        return self.revoke_by_stamped_headers(headers, destination=destination, terminate=True, signal=signal, **more)

    def _mark(self, ids: Sequence[str], *, terminate: bool) -> None:
        """Store revocations; a store that cannot keep them will do where running tasks are to be killed."""
        store = self.app.store
        if store is None:
            return
        now = time.time()
        error = TaskRevokedError("revoked")
        try:
            store.revoke([record_of(self.app, one, states.REVOKED, error, now=now) for one in ids], now)
        except NotSupportedError:
            if not terminate:
                raise

    def terminate(
        self, task_id: str | Iterable[str], destination: Any = None, signal: str = "SIGTERM", **more: Any
    ) -> Any:
        """Revoke tasks and kill those that run."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **more)

    def shutdown(self, destination: Any = None, **more: Any) -> Any:
        """Tell workers to stop warm."""
        return self.broadcast("shutdown", None, destination, **more)

    def rate_limit(self, task_name: str, rate_limit: int | str, destination: Any = None, **more: Any) -> Any:
        """Let each worker start so many of a task: `"10/s"`, `"100/m"`; 0 lifts the limit. Until the worker stops."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **more)

    def purge(self, connection: Any = None) -> int:
        """Delete all waiting messages of the queues that this app knows; return how many.

        Steps of chains and members of chords count as revoked, so that nothing waits for them.
        """
        if connection is not None:
            raise NotSupportedError("purge(connection=…) is not supported: the queues of app.broker are purged")
        return purge(self.app, purged_queues(self.app))

    discard_all = purge

    def __getattr__(self, name: str) -> Any:
        if name in _LATER:
            raise NotSupportedError(f"app.control.{name} is not supported yet: umbel's workers do not know the command")
        raise AttributeError(f"app.control has no attribute {name!r}")


_LATER = frozenset(
    {
        "add_consumer", "autoscale", "cancel_consumer", "disable_events", "election", "enable_events", "heartbeat",
        "pool_grow", "pool_restart", "pool_shrink", "time_limit",
    }
)  # fmt: skip


class Inspect:
    """Questions to workers; each answers `{node: answer}`, or None where no worker answered in time."""

    def __init__(
        self,
        app: Any,
        destination: Any = None,
        timeout: float = 1.0,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        callback: Any = None,
        connection: Any = None,
    ) -> None:
        if connection is not None:
            raise NotSupportedError("inspect(connection=…) is not supported: commands travel over app.bus")
        self.app = app
        self.callback = callback
        self.destination = destination
        self.timeout = timeout
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """Return the answers by node; where `destination` is one node's name, that node's answer alone (as Celery)."""
        replies = self.app.control.broadcast(
            command,
            arguments,
            self.destination,
            reply=True,
            timeout=self.timeout,
            limit=self.limit,
            pattern=self.pattern,
            matcher=self.matcher,
            callback=self.callback,
        )
        answers = {node: answer for reply in replies or () for node, answer in reply.items()}
        if isinstance(self.destination, str):
            answer: dict[str, Any] | None = answers.get(self.destination)
            return answer
        return answers or None

    def ping(self, destination: Any = None) -> dict[str, Any] | None:
        """Who is there."""
        if destination:
            self.destination = destination
        return self._ask("ping")

    def active(self, safe: Any = None) -> dict[str, Any] | None:
        """What runs."""
        del safe
        return self._ask("active")

    def reserved(self, safe: Any = None) -> dict[str, Any] | None:
        """What a worker holds and has not started."""
        del safe
        return self._ask("reserved")

    def registered(self, *taskinfoitems: str) -> dict[str, Any] | None:
        """Which tasks a worker knows."""
        return self._ask("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def scheduled(self, safe: Any = None) -> dict[str, Any] | None:
        """What a worker holds back because of a rate limit. Tasks with an eta wait in the broker, not here."""
        del safe
        return self._ask("scheduled")

    def query_task(self, *ids: Any) -> dict[str, Any] | None:
        """What a worker does with these tasks: `{node: {id: [state, info]}}`; ids, or one list of them."""
        given = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self._ask("query_task", ids=[str(one) for one in given])

    def conf(self, with_defaults: bool = False) -> dict[str, Any] | None:
        """The settings of a worker, secrets hidden."""
        return self._ask("conf", with_defaults=with_defaults)

    def report(self) -> dict[str, Any] | None:
        """Versions and settings of a worker, for reports of errors: `{node: {"ok": text}}`."""
        return self._ask("report")

    def stats(self) -> dict[str, Any] | None:
        """Counters and processes."""
        return self._ask("stats")

    def active_queues(self) -> dict[str, Any] | None:
        """Which queues a worker takes from."""
        return self._ask("active_queues")

    def __getattr__(self, name: str) -> Any:
        if name in NOT_ANSWERED:
            raise NotSupportedError(f"inspect().{name} is not supported: {NOT_ANSWERED[name]}")
        raise AttributeError(f"inspect() has no attribute {name!r}")


_MEMORY = "look at a worker's processes with a memory profiler; `inspect().stats()` tells how much they use"
#: What Celery's workers answer and umbel's do not, and what to do instead.
NOT_ANSWERED = {
    "clock": "umbel orders nothing by logical clocks",
    "hello": "workers share revocations through the result store and need not greet each other",
    "memdump": _MEMORY,
    "memsample": _MEMORY,
    "objgraph": _MEMORY,
    "revoked": "revocations are in the result store, which lists none; ask for the state of a task by its id",
}


def _gather(listener: Any, ticket: str, timeout: float, limit: int | None, callback: Any) -> list[dict[str, Any]]:
    deadline = time.monotonic() + timeout
    replies: list[dict[str, Any]] = []
    while (left := deadline - time.monotonic()) > 0:
        for _topic, payload in listener.receive(left):
            reply = _reply(payload, ticket)
            if reply is not None:
                replies.append(reply)
                if callback is not None:
                    callback(reply)
        if limit is not None and len(replies) >= limit:
            break
    return replies


def _reply(payload: bytes, ticket: str) -> dict[str, Any] | None:
    """Return one worker's reply; None for what is not an answer to this question."""
    try:
        reply = _decode(payload)
    except (msgspec.MsgspecError, DecodeError):
        return None
    if not isinstance(reply, dict) or reply.get("ticket") != ticket:
        return None
    answer = reply.get("reply")
    return answer if isinstance(answer, dict) else None
