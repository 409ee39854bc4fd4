"""What an executor does with a job: decode it, run the task, and report what has to happen next.

A `Runner` lives in every executor, whatever the pool: `run` for plain functions, `arun` for `async def` tasks
on an event loop, `conclude` for jobs that end without being run (lost, timed out, revoked, unknown).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec

from umbel.app import request as requests
from umbel.app import running, signals
from umbel.app.conclusions import consequences, keep_unrun, reading_rules
from umbel.app.exceptions_io import ExceptionInfo, text_of, traceback_text
from umbel.app.flow_tasks import FlowTask
from umbel.app.job_reader import JobReader, unpack_body
from umbel.app.outcome_lines import is_expected, line_of
from umbel.app.records import record_of
from umbel.app.retry import retry_task
from umbel.app.running import Call, Guard
from umbel.app.settlement import settle_outcome
from umbel.app.stored_ends import stored_outcome
from umbel.app.traits import traits_of
from umbel.core import protocol, states
from umbel.core.errors import (
    InvalidTaskError,
    NotRegistered,
    OperationalError,
    Retry,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from umbel.core.flow.late import LateSteps
from umbel.core.head_reader import reply_to_of
from umbel.core.message import End, Message, Part, Record
from umbel.core.outcome import Kind, Outcome
from umbel.core.protocol import Head, Payload, Quarantined
from umbel.engine.clock import Clock

__all__ = ["Job", "Report", "Runner"]

logger = logging.getLogger("celery.worker")


class Job(msgspec.Struct, array_like=True, gc=False):
    """What a consumer gives an executor: the message of a delivery and what is known about its past."""

    number: int
    id: str
    task: str
    queue: str
    exchange: str
    head: bytes
    body: bytes
    generation: int
    #: How often a process died while it may have been running this message.
    crashes: int
    #: The fencing token; 1 is the first delivery.
    token: int
    priority: int
    #: "" to run it, else how it ended: lost, timeout, revoked, expired, unknown, terminated.
    verdict: str = ""
    verdict_text: str = ""
    #: How `body` is written; see `Delivery.body_encoding`.
    body_encoding: str = ""
    #: The handle of its lease (`FollowUps.pack_tag`) where the executor may go on by itself; else b"".
    held: bytes = b""
    #: Where `body` lies, and its size, if it does not go with the job but lies in shared memory (`worker.bodies`).
    place: int = 0
    size: int = 0


class Report(msgspec.Struct, array_like=True, gc=False):
    """What an executor gives back: the effects of an outcome, to be settled with the lease of `number`."""

    number: int
    end: int
    record: Record | None = None
    publish: list[Message] = []
    due: float = 0.0
    reason: str = ""
    kind: str = ""
    #: Seconds that the task's own code took.
    runtime: float = 0.0
    #: A line for the log about the outcome; "" for none.
    log: str = ""
    #: The failure is one of those that the task names in `throws`: ordinary, logged as INFO.
    expected: bool = False
    #: What chords hear of it.
    parts: tuple[Part, ...] = ()
    #: Not 0: the executor stores this itself, and goes on under this number with what follows.
    next: int = 0


_SUCCESS = Kind.SUCCESS.value
_REVOKED = frozenset({"revoked", "expired", "terminated"})
#: Its process ended while it ran, or just after it had: where broker and store are two its result may be stored.
_CUT_OFF = frozenset({"lost", "timeout", "terminated"})


class Runner(Guard):
    """Runs jobs of one app. `in_task` is true while the task's own code runs in the thread of `run`.

    A signal handler for soft time limits raises SoftTimeLimitExceeded only then. In the threads pool each
    thread needs a Runner of its own.
    """

    __slots__ = ("_accept", "_app", "_clock", "_hostname", "_limits", "_on_start", "_reader", "_rng", "_tasks")

    def __init__(self, app: Any, hostname: str, *, clock: Clock, rng: random.Random) -> None:
        super().__init__()
        self._app = app
        self._tasks = app.tasks
        self._hostname = hostname
        self._clock = clock
        self._rng = rng
        self._accept, self._limits = reading_rules(app)
        self._reader = JobReader(self._accept, self._limits)
        self._on_start: Callable[[Call], None] = self._store_started

    @property
    def app(self) -> Any:
        """The app whose jobs it runs."""
        return self._app

    def is_async(self, task_name: str) -> bool:
        """Tell whether a task has to be run with `arun`."""
        task = self._tasks.get(task_name)
        return task is not None and traits_of(task).is_async

    def prepare(self, job: Job) -> Call | None:
        """Return the call of a job that `run` is soon asked for; None where that is to say what is wrong with it."""
        task = self._tasks.get(job.task)
        read = None if task is None else self._reader.read(job)
        return None if read is None or isinstance(read, Quarantined) else self._call(job, *read, task)

    def run(self, job: Job, prepared: Call | None = None) -> Report:
        """Run the job here; whatever goes wrong with it is in the report."""
        try:
            if job.verdict:
                return self._conclude(job)
            call = self._prepare(job) if prepared is None else prepared
            return call if isinstance(call, Report) else running.run(call, self._report, self)
        except Exception as exc:  # noqa: BLE001 - one message must not end the executor
            return self._internal_error(job, exc)

    async def arun(self, job: Job) -> Report:
        """Run the job on the current event loop; a plain cancellation of the asyncio task goes through."""
        try:
            if job.verdict:
                return self._conclude(job)
            call = self._prepare(job)
            return call if isinstance(call, Report) else await running.arun(call, self._report)
        except Exception as exc:  # noqa: BLE001 - one message must not end the executor
            return self._internal_error(job, exc)

    def conclude(self, job: Job) -> Report:
        """Say what follows from a verdict: handlers and errbacks of the task, but not its body."""
        try:
            return self._conclude(job)
        except Exception as exc:  # noqa: BLE001 - one message must not end the executor
            return self._internal_error(job, exc)

    # --- before the run ---------------------------------------------------------------------------------

    def _prepare(self, job: Job) -> Call | Report:
        unreadable = unpack_body(job) if job.body_encoding else ""
        if unreadable:
            return self._quarantine(job, unreadable)
        task = self._tasks.get(job.task)
        if task is None:
            head = protocol.read_head(job.head, self._limits)
            return self._quarantine(job, head.reason) if isinstance(head, Quarantined) else self._unknown(job, head, "")
        read = self._reader.read(job)
        if isinstance(read, Quarantined):
            return self._quarantine(job, read.reason)
        return self._call(job, *read, task)

    def _call(self, job: Job, known: Head, head: Any, payload: Payload, task: Any) -> Call:
        traits = traits_of(task)
        args, kwargs = payload.args, payload.kwargs
        values = {
            "args": args,
            "kwargs": kwargs,
            "callbacks": payload.callbacks,
            "errbacks": payload.errbacks,
            "chain": LateSteps(payload.steps) if payload.steps else payload.chain,
            "chord": payload.chord,
            "hostname": self._hostname,
            "called_directly": False,
            # These three are asked for at the end of every task.
            "ignore_result": known.ignore_result,
            "parent_id": known.parent_id,
            "group": known.group,
        }
        request = requests.Context.adopt(values, job, head)
        on_start = self._on_start if traits.track_started else None
        return Call(
            self._app, task, traits, request, job.id, tuple(args), kwargs, job, self._clock, self._rng, on_start
        )

    def _store_started(self, call: Call) -> None:
        store = self._app.store
        if store is None or call.traits.policy(call.request.ignore_result).ignore_result:
            return
        now = self._clock.now()
        where = {"pid": os.getpid(), "hostname": self._hostname}
        try:
            record = record_of(self._app, call.id, states.STARTED, where, now=now, request=call.request)
            store.put([record], now)
        except Exception as exc:  # noqa: BLE001 - worth a line, not the task
            logger.warning("cannot store that %s[%s] has started: %s", call.traits.name, call.id, exc)

    # --- after the run ----------------------------------------------------------------------------------

    def _report(self, call: Call, outcome: Outcome) -> Report:
        job = call.job
        settled = settle_outcome(call, outcome, job.crashes)
        if outcome.kind is Kind.SUCCESS and not logger.isEnabledFor(logging.INFO):
            return Report(
                job.number,
                settled.end,
                settled.record,
                settled.publish,
                kind=_SUCCESS,
                runtime=outcome.runtime,
                parts=settled.parts,
            )
        return Report(
            job.number,
            settled.end,
            settled.record,
            settled.publish,
            settled.due,
            settled.reason,
            outcome.kind,
            outcome.runtime,
            line_of(call, outcome),
            is_expected(call, outcome),
            settled.parts,
        )

    def _conclude(self, job: Job) -> Report:
        unpack_body(job)
        head = protocol.read_head(job.head, self._limits)
        if isinstance(head, Quarantined):
            return self._quarantine(job, head.reason)
        task = self._tasks.get(job.task)
        if task is None or job.verdict == "unknown":
            return self._unknown(job, head, job.verdict_text)
        payload = protocol.read_body(head, job.body, self._accept, self._limits)
        if isinstance(payload, Quarantined):
            payload = Payload([], {})
        call = self._call(job, head, head, payload, task)
        token = requests.push(task, call.request)
        try:
            if job.verdict == "ended" or (job.verdict in _CUT_OFF and self._app.engine.atomic is None):
                stored = self._stored_end(call)
                if stored is not None:
                    return stored
            outcome = self._verdict(call)
            report = running.end(call, outcome, self._report)
            if outcome.kind is Kind.REVOKED and signals.task_revoked.receivers:
                signals.task_revoked.send(
                    sender=task,
                    request=call.request,
                    terminated=job.verdict == "terminated",
                    signum=job.verdict_text or None,
                    expired=job.verdict == "expired",
                )
            return report
        finally:
            requests.pop(token)

    def _stored_end(self, call: Call) -> Report | None:
        """Send again what follows from the state that is stored; None where none is final, and the verdict counts.

        Whoever ran the task died, or was cut off, before all of that was known to be sent. Handlers and signals were
        called then.
        """
        job, name = call.job, f"Task {call.traits.name}[{call.id}]"
        try:
            outcome = stored_outcome(self._app, call.id, self._clock.now())
            if outcome is not None:
                settled = settle_outcome(call, outcome, job.crashes)
                log = f"{name} had ended ({outcome.kind.value}) and came again: its worker died or was cut off"
                return Report(
                    job.number,
                    settled.end,
                    None,
                    settled.publish,
                    0.0,
                    settled.reason,
                    "ended",
                    log=log,
                    parts=settled.parts,
                )
        except OperationalError as exc:
            logger.warning("%s: its state cannot be read now: %s", name, exc)
        return Report(job.number, End.RELEASE, kind="ended") if job.verdict == "ended" else None

    def _verdict(self, call: Call) -> Outcome:
        job = call.job
        if isinstance(call.task, FlowTask):
            return Outcome(Kind.REPLACED, exc=call.task.abandon(call.request))
        if job.verdict == "timeout":
            limit: Any = job.verdict_text
            with contextlib.suppress(ValueError):
                limit = float(limit)
            return Outcome(Kind.TIMEOUT, exc=TimeLimitExceeded(limit))
        if job.verdict in _REVOKED:
            return Outcome(Kind.REVOKED, exc=TaskRevokedError(job.verdict))
        lost = WorkerLostError(job.verdict_text or "the process that ran the task ended before the task did")
        if call.traits.keeping.retry_on_worker_lost:
            try:
                retry = retry_task(call.task, exc=lost, throw=False)
                return Outcome(Kind.RETRY, value=retry, exc=lost, retry=retry.sig)
            except Retry as retry:
                return Outcome(Kind.RETRY, value=retry, exc=lost, retry=retry.sig)
            except Exception as exc:  # noqa: BLE001 - no attempt is left, or none can be sent: it stays lost
                logger.info("%s[%s] is not sent again: %s", call.traits.name, call.id, type(exc).__name__)
        return Outcome(Kind.LOST, exc=lost)

    # --- what cannot be run -----------------------------------------------------------------------------

    def _quarantine(self, job: Job, reason: str) -> Report:
        log = f"Task {job.task}[{job.id}] cannot be read and is a dead letter now: {reason}"
        error = InvalidTaskError(reason)
        if signals.task_rejected.receivers:
            signals.task_rejected.send(sender=self, message=job, exc=error)
        return self._dead(job, error, reason, log)

    def _unknown(self, job: Job, head: Head, text: str) -> Report:
        reason = text or f"no worker knows the task {head.task!r}: import its module, or route it elsewhere"
        log = f"Task {job.task}[{job.id}] is unknown here and is a dead letter now: {reason}"
        error = NotRegistered(reason)
        if signals.task_unknown.receivers:
            signals.task_unknown.send(sender=self, message=job, exc=error, name=job.task, id=job.id)
        return self._dead(job, error, reason, log)

    def _dead(self, job: Job, exc: Exception, reason: str, log: str) -> Report:
        record = None
        if self._app.store is not None:
            record = record_of(
                self._app, job.id, states.FAILURE, exc, now=self._clock.now(), reply_to=reply_to_of(job.head)
            )
        others = consequences(self._app, job, exc)
        keep_unrun(self._app, job)
        return Report(
            job.number,
            End.DEAD,
            record,
            list(others.publish),
            0.0,
            reason,
            Kind.FAILURE.value,
            0.0,
            log,
            parts=others.parts,
        )

    def _internal_error(self, job: Job, exc: Exception) -> Report:
        """A fault of ours while one message was handled ends that message, visibly, and nothing else."""
        text = traceback_text(exc)
        task = self._tasks.get(job.task)
        if task is not None and signals.task_internal_error.receivers:
            signals.task_internal_error.send(
                sender=task,
                task_id=job.id,
                args=(),
                kwargs={},
                request={"id": job.id, "task": job.task},
                exception=exc,
                traceback=exc.__traceback__,
                einfo=ExceptionInfo(exc, text),
            )
        reason = f"internal error: {text_of(exc)}"
        return self._dead(job, exc, reason, f"Task {job.task}[{job.id}] INTERNAL ERROR: {text}")
