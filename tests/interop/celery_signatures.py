"""Beside Celery: a JSON request in, the values of its expressions out. Runs everything eagerly, without servers."""

from __future__ import annotations

import json
import sys
import warnings

import expressions
from celery import Celery, chain, chord, group, signature  # noqa: F401 - for the expressions

warnings.simplefilter("ignore")
app = Celery("t", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True
app.conf.task_store_eager_result = False


@app.task(name="t.add")
def add(x, y=0):
    return x + y


@app.task(name="t.total")
def total(x):
    return sum(x) if isinstance(x, list) else x


def linked(sig, *callbacks):
    """Return a signature with callbacks."""
    for one in callbacks:
        sig.link(one)
    return sig


def stamped(sig, **stamps):
    """Return a signature with stamps."""
    sig.stamp(**stamps)
    return sig


names = {**globals()}


def error_of(text):
    """Return the type of the error that an expression raises."""
    try:
        eval(text, names)
    except Exception as error:
        return type(error).__name__
    return None


def value_of(sig):
    """Run a signature from its dict; give its value, or the name of its error."""
    try:
        return signature(sig, app=app).apply().get()
    except Exception as error:
        return type(error).__name__


def frozen(text):
    """Return a signature with its ids."""
    sig = eval(text, names)
    sig.freeze()
    return sig


ours = json.load(sys.stdin)
answer = {
    "signatures": {text: eval(text, names) for text in expressions.SIGNATURES},
    "texts": {text: eval(text, names) for text in expressions.TEXTS},
    "errors": {text: error_of(text) for text in expressions.ERRORS},
    "frozen": {text: frozen(text) for text in ours},
    "values": {text: value_of(sig) for text, sig in ours.items()},
}
print(json.dumps(answer, default=repr))
