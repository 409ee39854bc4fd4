"""The tasks that both sides know: the same functions, given to a Celery app here and to an umbel app there."""

from __future__ import annotations

import importlib
import os
import time

try:
    from celery import group
except ImportError:
    from umbel import group


class Refused(Exception):
    """An error of the application's own."""


class Special(Exception):
    """An error that no other program knows by this name."""

    def __init__(self, text, number):
        super().__init__(text, number)
        self.number = number


def journal(word: str, request) -> None:
    """Write down, for the test to read, which side runs what."""
    line = f"{word} {request.id} {os.environ['INTEROP_SIDE']} {time.time():.6f} {os.getpid()}\n"
    descriptor = os.open(os.environ["INTEROP_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def define(app) -> None:
    """Give the tasks to an app."""
    for group in (plain, ending, retrying, telling, working):
        group(app)


def plain(app) -> None:
    """Tasks that give something back."""

    @app.task(name="fleet.add")
    def add(x, y):
        return x + y

    @app.task(name="fleet.echo", bind=True)
    def echo(self, *args, **kwargs):
        journal("echo", self.request)
        return {"side": os.environ["INTEROP_SIDE"], "args": list(args), "kwargs": kwargs}

    @app.task(name="fleet.total", bind=True)
    def total(self, values, *more):
        journal("total", self.request)
        return {"side": os.environ["INTEROP_SIDE"], "values": values, "more": list(more)}

    @app.task(name="fleet.value")
    def value(what, seconds=0.0):
        time.sleep(seconds)
        return what

    @app.task(name="fleet.kinds")
    def kinds(*args):
        return [f"{type(value).__name__}: {value!r}" for value in args]

    @app.task(name="fleet.note", bind=True)
    def note(self, seconds=0.0):
        journal("note", self.request)
        time.sleep(seconds)

    @app.task(name="fleet.slow", bind=True, acks_late=True)
    def slow(self, seconds):
        journal("began", self.request)
        time.sleep(seconds)
        journal("ended", self.request)


def ending(app) -> None:
    """Tasks that fail, and what is called then."""

    @app.task(name="fleet.fail")
    def fail(kind="ValueError", *args):
        raise {"ValueError": ValueError, "Refused": Refused, "KeyError": KeyError}[kind](*args)

    @app.task(name="fleet.on_error")
    def on_error(request, exc, traceback):
        journal(f"on_error:{type(exc).__name__}", request)

    @app.task(name="fleet.old_on_error", bind=True)
    def old_on_error(self, failed):
        journal(f"old_on_error:{failed}", self.request)


def retrying(app) -> None:
    """Tasks that are tried again."""

    @app.task(name="fleet.again", bind=True, max_retries=20)
    def again(self, times, countdown=0, queues=()):
        journal("again", self.request)
        if self.request.retries < times:
            elsewhere = {"queue": queues[self.request.retries % len(queues)]} if queues else {}
            raise self.retry(countdown=countdown, **elsewhere)
        return self.request.retries

    @app.task(name="fleet.replaced", bind=True)
    def replaced(self, how, value, queues):
        """Hand over to tasks on other queues; a chain, where `how` says so."""
        add = app.tasks["fleet.add"]
        first, last = (add.s(value, 1).set(queue=queues[0]), add.s(1).set(queue=queues[-1]))
        if how == "group":
            return self.replace(group([first, first.clone()]))
        return self.replace(first | last if how == "chain" else first)

    @app.task(name="fleet.grow", bind=True)
    def grow(self, queues):
        """Let one more task for each queue into the chord."""
        for number, queue in enumerate(queues):
            self.add_to_chord(app.tasks["fleet.add"].s(number, 100).set(queue=queue))
        return "grown"

    @app.task(name="fleet.give_up", bind=True, max_retries=2)
    def give_up(self):
        journal("give_up", self.request)
        try:
            raise Refused("still not")
        except Refused as error:
            raise self.retry(exc=error, countdown=0) from error

    @app.task(name="fleet.automatic", bind=True, autoretry_for=(KeyError,), max_retries=5, default_retry_delay=0)
    def automatic(self, times):
        journal("automatic", self.request)
        if self.request.retries < times:
            raise KeyError(times)
        return self.request.retries


def telling(app) -> None:
    """Tasks that tell how they are called."""

    @app.task(name="fleet.request", bind=True)
    def request(self, *args, **kwargs):
        seen = self.request
        return {
            "id": seen.id,
            "root_id": seen.root_id,
            "parent_id": seen.parent_id,
            "correlation_id": seen.correlation_id,
            "retries": seen.retries,
            "eta": seen.eta if seen.eta is None else str(seen.eta),
            "expires": seen.expires if seen.expires is None else str(seen.expires),
            "headers": {name: value for name, value in (seen.headers or {}).items() if name.startswith("x-")},
            "timelimit": list(seen.timelimit or ()),
            "argsrepr": seen.argsrepr,
            "kwargsrepr": seen.kwargsrepr,
            "origin": seen.origin,
            "hostname": seen.hostname,
            "priority": seen.delivery_info.get("priority"),
            "routing_key": seen.delivery_info.get("routing_key"),
            "exchange": seen.delivery_info.get("exchange"),
            "reply_to": seen.reply_to,
            "ignore_result": seen.ignore_result,
        }

    @app.task(name="fleet.parent", bind=True)
    def parent(self, queue):
        return app.tasks["fleet.request"].apply_async((), queue=queue).id

    @app.task(name="fleet.progress", bind=True)
    def progress(self):
        self.update_state(state="HALFWAY", meta={"done": 1, "of": 2})
        deadline = time.time() + 10
        while not os.path.exists(os.environ["INTEROP_JOURNAL"] + self.request.id) and time.time() < deadline:
            time.sleep(0.02)
        return "done"


def working(app) -> None:
    """Tasks of workflows: each writes the `tag` of its workflow into the journal."""
    side = "celery" if type(app).__module__.startswith("celery") else "umbel.celery"
    exceptions = importlib.import_module(f"{side}.exceptions")

    @app.task(name="fleet.put", bind=True)
    def put(self, *args, tag=""):
        journal(f"{tag}:put", self.request)
        return list(args)

    @app.task(name="fleet.listed")
    def listed(value):
        return [value]

    @app.task(name="fleet.broken", bind=True)
    def broken(self, *args, tag=""):
        journal(f"{tag}:broken", self.request)
        raise KeyError("broken")

    @app.task(name="fleet.special", bind=True)
    def special(self, *args, tag=""):
        journal(f"{tag}:special", self.request)
        raise Special("told", 2)

    @app.task(name="fleet.refusing", bind=True)
    def refusing(self, *args, tag=""):
        journal(f"{tag}:refusing", self.request)
        raise exceptions.Ignore

    @app.task(name="fleet.trying", bind=True, max_retries=3)
    def trying(self, *args, tag=""):
        journal(f"{tag}:trying", self.request)
        if self.request.retries < 2:
            # Celery stores RETRY after it has sent the next attempt, which must not have ended by then.
            raise self.retry(countdown=0.2)
        return list(args)

    @app.task(name="fleet.giving_up", bind=True, max_retries=1)
    def giving_up(self, *args, tag=""):
        journal(f"{tag}:giving_up", self.request)
        raise self.retry(exc=Refused("still not"), countdown=0)

    @app.task(name="fleet.become", bind=True)
    def become(self, *args, sig, tag=""):
        journal(f"{tag}:become", self.request)
        raise self.replace(app.signature(sig))

    @app.task(name="fleet.adding", bind=True)
    def adding(self, *args, sig, tag=""):
        journal(f"{tag}:adding", self.request)
        self.add_to_chord(app.signature(sig))
        return list(args)

    @app.task(name="fleet.errback")
    def errback(request, exc, traceback, tag=""):
        journal(f"{tag}:errback:{type(exc).__name__}", request)
