"""Workflows that mean the same beside Celery and beside umbel, and what both say of how they ended.

Runs in Celery's environment and in the project's: what differs between them is handed in.
"""

from __future__ import annotations

import itertools
import re

#: Name → expression. `put` gives its arguments back, so that values tell which way they came; `broken` raises a
#: KeyError, `refusing` asks for no result, `trying` succeeds at its third attempt, `become` is replaced by what it is
#: given, `adding` lets that into its chord. Each signature goes to the next of the sides that take part.
WORKFLOWS = {
    # chains
    "one step": "chain(put(1))",
    "chain": "put(1) | put(2) | put(3)",
    "chain with an immutable step": "put(1) | put(2, immutable=True) | put(3)",
    "chain with a delayed step": "put(1) | put(2, countdown=0.3) | put(3)",
    "chain with a step that is tried again": "put(1) | trying(2) | put(3)",
    "chain whose step ends without result": "put(1) | refusing(2) | put(3)",
    # groups
    "group": "group(put(1), put(2), put(3))",
    "group of groups": "group(group(put(1), put(2)), group(put(3)))",
    "group of chains": "group(put(1) | put(2), put(3) | put(4))",
    "group of a chord": "group(chord([put(1), put(2)], put(3)), put(4))",
    "group at the end": "put(1) | group(put(2), put(3))",
    "chunks": "at(add.chunks([(1, 2), (3, 4), (5, 6)], 2).group())",
    "starmap": "at(add.starmap([(1, 2), (3, 4)]))",
    "map": "at(listed.map([[1, 2], [3]]))",
    "map as a step": "put(1) | at(listed.map([[1, 2]]), immutable=True) | put(3)",
    # chords
    "chord": "chord([put(1), put(2), put(3)], put(4))",
    "chord of one": "chord([put(1)], put(2))",
    "chord of none": "chord([], put(2))",
    "chord with an immutable body": "chord([put(1), put(2)], put(3, immutable=True))",
    "chord with a delayed member": "chord([put(1, countdown=0.3), put(2)], put(3))",
    "chord with a member that is tried again": "chord([trying(1), put(2)], put(3))",
    "chord with chains": "chord([put(1) | put(2), put(3) | put(4) | put(5), put(6)], put(7))",
    "chord with a group": "chord([group(put(1), put(2)), put(3)], put(4))",
    "chord with a group at the end of a chain": "chord([put(1) | group(put(2), put(3)), put(4)], put(5))",
    "chord with groups in groups": "chord([put(1) | group(put(2), put(3) | group(put(4), put(5))), put(6)], put(7))",
    "chord of one chain that ends in a group": "chord([put(1) | group(put(2), put(3))], put(4))",
    "step, chord with a group after a step": "put(0) | chord([put(1) | group(put(2), put(3)), put(4)], put(5))",
    "group of chains that end in groups, step": "group(put(1) | group(put(2), put(3)), put(4)) | put(5)",
    "chord with a chord whose body is a group": "chord([chord([put(1)], group(put(2), put(3))), put(4)], put(5))",
    "chord with a chord": "chord([chord([put(1), put(2)], put(3)), put(4)], put(5))",
    "chord with a chord in a chain": "chord([put(0) | chord([put(1), put(2)], put(3)) | put(4), put(5)], put(6))",
    "chord with a chain as body": "chord([put(1), put(2)], put(3) | put(4))",
    "chord with a group as body": "chord([put(1), put(2)], group(put(3), put(4)))",
    "chord with a chord as body": "chord([put(1), put(2)], chord([put(3), put(4)], put(5)))",
    "chord, then a step": "chord([put(1), put(2)], put(3)) | put(4)",
    "step, chord, step": "put(1) | chord([put(2), put(3)], put(4)) | put(5)",
    "step, group, step": "put(1) | group(put(2), put(3)) | put(4)",
    "group | group": "group(put(1), put(2)) | group(put(3), put(4))",
    "group | group | step": "group(put(1), put(2)) | group(put(3), put(4)) | put(5)",
    "chord | chord": "chord([put(1), put(2)], put(3)) | chord([put(4), put(5)], put(6))",
    "chord | group": "chord([put(1), put(2)], put(3)) | group(put(4), put(5))",
    # callbacks
    "callback": "linked(put(1), put(2))",
    "callback that is a chain": "linked(put(1), put(2) | put(3))",
    "callback that is a group": "linked(put(1), group(put(2), put(3)))",
    "callback that is a chord": "linked(put(1), chord([put(2), put(3)], put(4)))",
    "two callbacks": "linked(put(1), put(2), put(3, immutable=True))",
    "callback in a chain": "linked(put(1), put(2)) | put(3)",
    "callback of a chain": "linked(put(1) | put(2), put(3))",
    "callback of a chord": "linked(chord([put(1), put(2)], put(3)), put(4))",
    "callback of a member": "chord([linked(put(1), put(2)), put(3)], put(4))",
    # replacements
    "replaced": "become(put(1))",
    "replaced by a chain": "become(put(1) | put(2)) | put(3)",
    "replaced by a chord": "become(chord([put(1), put(2)], put(3))) | put(4)",
    "replaced by a group": "become(group(put(1), put(2)))",
    "replaced twice": "become(become(put(1))) | put(2)",
    "member replaced": "chord([become(put(1)), put(2)], put(3))",
    "member replaced by a chain": "chord([become(put(1) | put(2)), put(3)], put(4))",
    "member replaced by a chord": "chord([become(chord([put(1), put(2)], put(3))), put(4)], put(5))",
    "body replaced": "chord([put(1), put(2)], become(put(3)))",
    "replaced with a callback": "linked(become(put(1)), put(2))",
    "member added": "chord([adding(put(1)), put(2)], put(3))",
}

#: The same for workflows that fail.
FAILURES = {
    "first step": "failed(broken(1)) | put(2) | put(3)",
    "middle step": "put(1) | failed(broken(2)) | put(3) | put(4)",
    "last step": "put(1) | put(2) | failed(broken(3))",
    "whole chain has errbacks": "failed(put(1) | broken(2) | put(3))",
    "step given up": "put(1) | failed(giving_up(2)) | put(3)",
    "step before a group": "broken(1) | group(put(2), put(3))",
    "step before a chord": "broken(1) | chord([put(2), put(3)], put(4))",
    "member of a group": "group(put(1), failed(broken(2)), put(3))",
    "member": "chord([put(1), broken(2)], failed(put(3)))",
    "member with an errback": "chord([put(1), failed(broken(2))], put(3))",
    "member, first of a chain": "chord([put(1), broken(2) | put(3)], failed(put(4)))",
    "member, last of a chain": "chord([put(1), put(2) | broken(3)], failed(put(4)))",
    "member of an inner chord": "chord([chord([put(1), broken(2)], put(3)), put(4)], failed(put(5)))",
    "inner body": "chord([chord([put(1), put(2)], broken(3)), put(4)], failed(put(5)))",
    "member of an inner group": "chord([group(put(1), broken(2)), put(3)], failed(put(4)))",
    "body": "chord([put(1), put(2)], failed(broken(3)))",
    "body before a step": "chord([put(1), put(2)], failed(broken(3))) | put(4)",
    "member before a step": "chord([put(1), broken(2)], put(3)) | failed(put(4))",
    "second step of a body": "chord([put(1), put(2)], put(3) | failed(broken(4)))",
    "member of the second chord": "chord([put(1), put(2)], put(3)) | chord([put(4), broken(5)], failed(put(6)))",
    "member of a body": "chord([put(1), put(2)], group(put(3), broken(4)))",
    "member with a group as body": "chord([put(1), broken(2)], group(failed(put(3)), put(4)))",
    "step before a chord with errbacks": "put(0) | chord([put(1), broken(2)], failed(put(3))) | put(4)",
    "errback that is a chain": "failed(broken(1), put(2, immutable=True) | put(3))",
    "errback that is a chord": "failed(broken(1), chord([put(2, immutable=True), put(3, immutable=True)], put(4)))",
    "errback by its id": "failed(broken(1), put(2))",
    "replaced by what fails": "failed(become(broken(1))) | put(2)",
    "member replaced by what fails": "chord([become(broken(1)), put(2)], failed(put(3)))",
    "callback fails": "linked(put(1), broken(2))",
    "unknown exception": "put(1) | special(2) | put(3)",
    "unknown exception of a member": "chord([put(1), special(2)], put(3))",
}

_ENDED = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
_IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def words(app, canvas, sides, tag):
    """Return what an expression may name; the tasks write `tag` into the journal."""
    queues = itertools.cycle([f"to_{side}" for side in sides])

    def task(name):
        def sign(*args, immutable=False, **options):
            kwargs = {"tag": tag}
            if name in ("become", "adding"):
                args, kwargs = (), {"tag": tag, "sig": dict(args[0])}
            options.setdefault("queue", next(queues))
            return app.tasks[f"fleet.{name}"].signature(args, kwargs, immutable=immutable, **options)

        return sign

    def at(sig, **options):
        for one in getattr(sig, "tasks", None) or [sig]:
            one.set(queue=next(queues), **options)
        return sig

    def linked(sig, *callbacks):
        for one in callbacks:
            sig.link(one)
        return sig

    def failed(sig, *errbacks):
        for one in errbacks or [app.tasks["fleet.errback"].signature((), {"tag": tag})]:
            sig.link_error(one)
        return sig

    names = ("put", "broken", "special", "refusing", "trying", "giving_up", "become", "adding")
    return {
        **{name: task(name) for name in names},
        **{name: app.tasks[f"fleet.{name}"] for name in ("add", "listed")},
        **dict(zip(("chain", "group", "chord"), canvas, strict=True)),
        **{function.__name__: function for function in (at, linked, failed)},
    }


def _places(result):
    """Return every result that a result leads to, by its place: `^` is what came before, `[n]` a member."""
    found, waiting = {}, [("result", result)]
    while waiting:
        place, one = waiting.pop()
        found[place] = one
        waiting += [(f"{place}[{number}]", each) for number, each in enumerate(getattr(one, "results", None) or ())]
        if one.parent is not None:
            waiting.append((f"{place}^", one.parent))
    return found


def described(result):
    """Tell of each result of a workflow its state, its value and whether it sent more; ids are told by their states."""

    def plain(value):
        if isinstance(value, BaseException):
            # umbel's client does not import what an exception names; Celery's takes it from its modules.
            named = value.args if type(value).__name__ == "RemoteError" else (None, type(value).__name__, value.args)
            return {"error": named[1], "args": plain(list(named[2]))}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        if isinstance(value, str):
            return _IDS.sub(lambda match: result.app.AsyncResult(match[0]).state, value)
        return value

    told = {}
    for place, one in _places(result).items():
        if getattr(one, "results", None) is not None:
            told[place] = {"members": len(one.results)}
            continue
        state = one.state
        told[place] = {"state": state, "value": None, "sent": None}
        if state in _ENDED:
            told[place] = {"state": state, "value": plain(one.result), "sent": bool(one.children)}
    return told
