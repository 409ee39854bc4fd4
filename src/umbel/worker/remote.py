"""Remote control: answers commands that come over the bus, in the form that Celery's mailbox uses."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from umbel.app.registry import is_quiet
from umbel.core.errors import OperationalError, UmbelError
from umbel.core.stamps import marks_for, marks_of
from umbel.engine.seam import Bus, Listener
from umbel.worker import inspection, namesakes
from umbel.worker.service import Service

if TYPE_CHECKING:
    from umbel.worker.consumer import Consumer

logger = logging.getLogger("umbel.worker")

TOPIC = "control"
_WAIT = 5.0
#: A command larger than this is not looked at (bytes).
_MAX_COMMAND = 1 << 20

#: JSON without the `Infinity` that Python's own encoder would write; what JSON has no form for goes as text.
_encode = msgspec.json.Encoder(enc_hook=str).encode

Handler = Callable[["RemoteControl", dict[str, Any]], Any]


class RemoteControl(Service):
    """Listens on the bus for as long as the consumer lives."""

    name = "remote control"

    def __init__(self, consumer: Consumer, bus: Bus) -> None:
        super().__init__()
        self.consumer = consumer
        self._bus = bus
        self._listener: Listener | None = None
        self._namesakes = namesakes.Namesakes(consumer.options.hostname)

    def wake(self) -> None:
        """End the wait for commands."""
        if self._listener is not None:
            self._listener.wake()

    def run(self) -> None:
        """Answer commands until told to stop."""
        while not self.stopping.is_set():
            try:
                if self._listener is None:
                    self._listener = self._bus.listen([TOPIC])
                    self._greet()
                for _topic, payload in self._listener.receive(_WAIT):
                    self._handle(payload)
            except OperationalError as exc:
                self.troubles.tell("Remote control is out of order, trying again", exc)
                self.stopping.wait(1.0)
        if self._listener is not None:
            self._listener.close()

    def _handle(self, payload: bytes) -> None:
        """Carry out one command; whatever is wrong with it is that command's fault."""
        try:
            command = read_command(payload)
            if command is None or not is_addressed(command, self.consumer.options.hostname):
                return
            if command["method"] == namesakes.METHOD:
                if self._namesakes.is_answer_due(command.get("arguments") or {}):
                    self._greet(answers=True)
                return
            reply = self._carry_out(command)
            if reply is not None and command.get("reply_to"):
                self._reply(command, reply)
        except OperationalError:
            raise
        except Exception:
            logger.exception("A remote control command could not be carried out")

    def _greet(self, *, answers: bool = False) -> None:
        self._namesakes.greet(self._bus, TOPIC, self.consumer.clock.now(), answers=answers)

    def _carry_out(self, command: dict[str, Any]) -> Any:
        handler = COMMANDS.get(command["method"])
        if handler is None:
            return {"error": f"unknown command {command['method']!r}; this worker knows {', '.join(sorted(COMMANDS))}"}
        self.consumer.catch_up()
        try:
            return handler(self, command.get("arguments") or {})
        except (UmbelError, TypeError, ValueError, KeyError) as exc:
            return {"error": f"{type(exc).__name__}: {exc}"}

    def _reply(self, command: dict[str, Any], reply: Any) -> None:
        address = command["reply_to"]
        key = address.get("routing_key") if isinstance(address, dict) else address
        body = {"ticket": command.get("ticket"), "reply": {self.consumer.options.hostname: reply}}
        self._bus.send(f"reply:{key}", [_encode(body)], self.consumer.clock.now())


def read_command(payload: bytes) -> dict[str, Any] | None:
    """Return a command from the bus, or None (and a line in the log) if it is none."""
    try:
        command = json.loads(payload) if len(payload) <= _MAX_COMMAND else None
    except ValueError:
        command = None
    if not isinstance(command, dict) or not isinstance(command.get("method"), str):
        logger.warning("Ignored something on the control channel that is not a command (%d bytes)", len(payload))
        return None
    if not isinstance(command.get("arguments") or {}, dict):
        return None
    return command


def is_addressed(command: dict[str, Any], hostname: str) -> bool:
    """Tell whether a command is for this node: by list of names, or by pattern (glob or pcre)."""
    destination, pattern = command.get("destination"), command.get("pattern")
    if pattern:
        if command.get("matcher") == "pcre":
            try:
                return re.match(pattern, hostname) is not None
            except re.error:
                return False
        return fnmatch.fnmatchcase(hostname, str(pattern))
    return not destination or hostname in destination


# --- the commands -------------------------------------------------------------------------------------------


def _ping(_control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    return {"ok": "pong"}


def _revoke(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    """Drop waiting deliveries and, with terminate, kill running ones. The revocation itself is in the store."""
    given = arguments.get("task_id") or []
    ids = {given} if isinstance(given, str) else {str(item) for item in given}
    return _drop(control, ids, arguments) or {"ok": f"tasks {', '.join(sorted(ids))} flagged as revoked"}


def _revoke_by_stamped_headers(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    """The same for the deliveries here that have one of the stamps."""
    headers = arguments.get("headers") or {}
    if not isinstance(headers, dict):
        raise TypeError("headers must be a mapping of stamps to values")
    marks = set(marks_for(headers))
    consumer = control.consumer
    held = [item.delivery for item in list(consumer.feeder.backlog)]
    held += [a.delivery for member in list(consumer.crew.members.values()) for a in list(member.assigned.values())]
    ids = {delivery.id for delivery in held if not marks.isdisjoint(marks_of(delivery.head))}
    return _drop(control, ids, arguments) or {"ok": f"headers {headers} flagged as revoked"}


def _drop(control: RemoteControl, ids: set[str], arguments: dict[str, Any]) -> Any:
    """Drop what waits here; with terminate kill what runs, and return the answer about that."""
    consumer = control.consumer
    consumer.feeder.drop(ids)
    consumer.overseer.recall()
    consumer.feeder.wake()
    if not arguments.get("terminate"):
        return None
    name = str(arguments.get("signal") or "SIGTERM").upper()
    signum = signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    found = consumer.overseer.terminate(ids, signum)
    return {"ok": f"terminate: {', '.join(found)}" if found else "terminate: tasks unknown"}


def _shutdown(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    control.consumer.ask_for_shutdown()
    return None


def _active(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    return inspection.active(control.consumer.crew)


def _reserved(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    return inspection.reserved(control.consumer.crew, control.consumer.feeder)


def _scheduled(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    return inspection.scheduled(control.consumer.feeder)


def _query_task(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    given = arguments.get("ids") or []
    ids = [given] if isinstance(given, str) else [str(item) for item in given]
    return inspection.query(control.consumer.crew, control.consumer.feeder, ids)


def _registered(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    app, builtins = control.consumer.app, bool(arguments.get("builtins"))
    items = arguments.get("taskinfoitems") or ("exchange", "routing_key", "rate_limit")
    names = sorted(app.tasks) if builtins else app.tasks.own()
    return [inspection.task_line(app.tasks[name], name, items) for name in names]


def _conf(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    return control.consumer.app.conf.table(with_defaults=bool(arguments.get("with_defaults")))


def _report(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    return {"ok": control.consumer.app.bugreport()}


def _active_queues(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    queues = control.consumer.app.amqp.queues
    return [inspection.queue_row(queues[name]) for name in control.consumer.options.queues]


def _stats(control: RemoteControl, _arguments: dict[str, Any]) -> Any:
    consumer = control.consumer
    return {
        "total": {name: count for name, count in dict(consumer.totals).items() if not is_quiet(name)},
        "pid": os.getppid(),
        "uptime": int(time.monotonic() - consumer.started),
        "pool": {
            "implementation": f"umbel.worker:{consumer.options.pool}",
            "max-concurrency": consumer.options.concurrency,
            "processes": [member.pid for member in list(consumer.crew.members.values())],
            "max-tasks-per-child": consumer.options.max_tasks_per_child or "N/A",
            "timeouts": [consumer.options.soft_time_limit or 0, consumer.options.time_limit or 0],
        },
        "prefetch_count": consumer.crew.capacity()[0],
        "rusage": _usage(),
    }


def _usage() -> dict[str, Any]:
    """What this process has used; empty where the system does not tell."""
    try:
        import resource
    except ImportError:
        return {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}


def _rate_limit(control: RemoteControl, arguments: dict[str, Any]) -> Any:
    name, value = arguments["task_name"], arguments.get("rate_limit")
    if name not in control.consumer.app.tasks:
        return {"error": "unknown task"}
    control.consumer.feeder.set_rate(name, value)
    return {"ok": "new rate limit set successfully" if value else "rate limit disabled successfully"}


#: Command name → what carries it out, some under the second name that Celery's workers know them by.
#: Celery: celery.worker.control.
COMMANDS: dict[str, Handler] = {
    "ping": _ping,
    "revoke": _revoke,
    "revoke_by_stamped_headers": _revoke_by_stamped_headers,
    "shutdown": _shutdown,
    "active": _active,
    "dump_active": _active,
    "reserved": _reserved,
    "dump_reserved": _reserved,
    "scheduled": _scheduled,
    "dump_schedule": _scheduled,
    "query_task": _query_task,
    "registered": _registered,
    "dump_tasks": _registered,
    "conf": _conf,
    "dump_conf": _conf,
    "report": _report,
    "active_queues": _active_queues,
    "stats": _stats,
    "rate_limit": _rate_limit,
}
