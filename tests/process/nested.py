"""Random nested workflows: the same expression as signatures of the lab's nodes and as a sum in plain Python.

Every task has a label of its own, and its value depends on the label and on what came before it, so that a value tells
whether the whole way to it was walked rightly.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.process.jobs import say
from umbel import Umbel, chain, chord, group

#: Names of the task, acknowledged late or early.
NODES = {True: "lab.node_late", False: "lab.node"}


def value_of(label: str, inputs: tuple[Any, ...]) -> int:
    """Return what a node gives back."""
    return zlib.crc32(f"{label}:{inputs!r}".encode())


def define(app: Umbel) -> None:
    """Add the nodes to the tasks of the lab."""

    def node(self: Any, *args: Any) -> Any:
        """Last arguments: label, seconds, kind. what it does (see Expr.manner)."""
        *inputs, label, seconds, kind = args
        request = self.request
        run = f"{label}/{request.retries}"
        say("start", run, redelivered=bool((request.delivery_info or {}).get("redelivered")), task=request.id)
        time.sleep(seconds)
        if kind == "replaced":
            say("end", run, value=None)
            return self.replace(replacement(app, self.name, label, tuple(inputs)))
        if kind == "adds":
            self.add_to_chord(self.si(f"{label}.x", 0.0, "plain"))
        value = value_of(label, tuple(inputs))
        say("end", run, value=value)
        if kind == "fails":
            raise ValueError(label)
        if kind == "again" and not request.retries:
            raise self.retry(countdown=0)
        return value

    for late, name in NODES.items():
        app.task(bind=True, name=name, acks_late=late, max_retries=3)(node)

    @app.task(bind=True, name="lab.errback", acks_late=True)
    def errback(self: Any, failed: str, label: str) -> str:
        """Take the id of what has failed, and no more, so that it is sent as a message."""
        say("start", f"{label}/0", task=self.request.id)
        say("end", f"{label}/0")
        return failed


def replacement(app: Umbel, name: str, label: str, inputs: tuple[Any, ...]) -> Any:
    """Return what takes the place of a node: a chord of two and a sum of them."""
    task = app.tasks[name]
    header = [task.si(*inputs, f"{label}.{part}", 0.0, "plain") for part in "ab"]
    return chord(header, task.s(f"{label}.c", 0.0, "plain"), app=app)


def parts_of(label: str, inputs: tuple[Any, ...]) -> dict[str, int]:
    """Return the values of a node that is replaced, by label; the last is its own."""
    found = {f"{label}.{part}": value_of(f"{label}.{part}", inputs) for part in "ab"}
    found[f"{label}.c"] = value_of(f"{label}.c", (list(found.values()),))
    return found


@dataclass(frozen=True)
class Expr:
    """A workflow as it is thought of."""

    kind: str
    parts: tuple[Expr, ...] = ()
    label: str = ""
    #: Of a node: `plain`; `again` asks for a retry once; `replaced` gives way to others; `adds` lets one more into
    #: the header that it is in; `fails`.
    manner: str = "plain"
    immutable: bool = False
    seconds: float = 0.0
    links: tuple[Expr, ...] = ()

    def nodes(self) -> Iterator[Expr]:
        """Give all its tasks, callbacks included."""
        if self.kind == "node":
            yield self
        for part in (*self.parts, *self.links):
            yield from part.nodes()

    def is_many(self) -> bool:
        """Tell whether what follows it gets a list: it is a group, or ends in one."""
        if self.kind in ("chain", "chord"):
            return self.parts[-1].is_many()
        return self.kind == "group"


@dataclass
class Plan:
    """What a workflow comes to: the value of each node by label, and the labels that each waits for."""

    values: dict[str, int] = field(default_factory=dict)
    after: dict[str, frozenset[str]] = field(default_factory=dict)
    #: Values of the members of nodes that are replaced, which belong to the node.
    inner: dict[str, int] = field(default_factory=dict)
    callbacks: set[str] = field(default_factory=set)
    #: Labels that have failed, as the check finds out.
    failed: set[str] = field(default_factory=set)


#: The labels of the leaves whose values are a workflow's value; a group inside is a list of its own.
Leaves = list[Any]


def evaluate(expr: Expr, plan: Plan, inputs: tuple[Any, ...] = (), after: frozenset[str] = frozenset()) -> Leaves:
    """Work the expression out in plain Python."""
    if expr.kind == "node":
        return [_node(expr, plan, inputs, after)]
    if expr.kind == "group":
        return _members(expr.parts, plan, inputs, after)
    if expr.kind == "chain":
        leaves: Leaves = []
        for number, part in enumerate(expr.parts):
            if number:
                got = values_of(plan, leaves)
                inputs = (got,) if expr.parts[number - 1].is_many() else tuple(got)
                after = frozenset(flat(leaves))
            leaves = evaluate(part, plan, inputs, after)
        return leaves
    *header, body = expr.parts
    leaves = _members(header, plan, inputs, after)
    # What is let in later comes behind all others.
    for part in header:
        if part.manner == "adds":
            leaves += evaluate(Expr("node", label=f"{part.label}.x"), plan, (), after)
    return evaluate(body, plan, (values_of(plan, leaves),), frozenset(flat(leaves)))


def _members(parts: Sequence[Expr], plan: Plan, inputs: tuple[Any, ...], after: frozenset[str]) -> Leaves:
    """Work out the members of a group: a group among them is no list of its own, what ends in one is."""
    leaves: Leaves = []
    for part in parts:
        found = evaluate(part, plan, inputs, after)
        leaves += [found] if part.kind != "group" and part.is_many() else found
    return leaves


def values_of(plan: Plan, leaves: Leaves) -> list[Any]:
    """Return the values of leaves in the lists that they are in."""
    return [values_of(plan, leaf) if isinstance(leaf, list) else plan.values[leaf] for leaf in leaves]


def flat(leaves: Leaves) -> list[Any]:
    """Give what is in a list, and in the lists inside it."""
    return [one for leaf in leaves for one in (flat(leaf) if isinstance(leaf, list) else [leaf])]


def _node(expr: Expr, plan: Plan, inputs: tuple[Any, ...], after: frozenset[str]) -> str:
    inputs = () if expr.immutable else inputs
    value = value_of(expr.label, inputs)
    if expr.manner == "replaced":
        inner = parts_of(expr.label, inputs)
        plan.inner.update(inner)
        value = inner[f"{expr.label}.c"]
    plan.values[expr.label], plan.after[expr.label] = value, after
    for link in expr.links:
        plan.callbacks.update(flat(evaluate(link, plan, (value,), frozenset({expr.label}))))
    return expr.label


# --- making them ------------------------------------------------------------------------------------------


class Maker:
    """Makes random workflows, each label once."""

    def __init__(self, seed: int, *, longest: float = 0.02, growing: bool = False) -> None:
        self.rng = random.Random(seed)
        self._longest = longest
        self._growing = growing
        self._made = 0

    def workflow(self, least: int = 10, most: int = 40) -> Expr:
        """Return a workflow of so many tasks, nested up to four levels deep."""
        while True:
            expr = self._composite(self.rng.choice(("chain", "chain", "chord", "group")), 4)
            if least <= sum(1 for _ in expr.nodes()) <= most:
                return expr

    def _part(self, depth: int) -> Expr:
        kind = self.rng.choices(("node", "chain", "group", "chord"), (0.4, 0.25, 0.15, 0.2))[0]
        return self.node() if kind == "node" or not depth else self._composite(kind, depth)

    def _composite(self, kind: str, depth: int) -> Expr:
        count = self.rng.randint(2, 4)
        parts = [self._part(depth - 1) for _ in range(count + (kind == "chord"))]
        if kind == "chord" and self._growing and self.rng.random() < 0.2:
            parts[0] = self.node("adds")
        return Expr(kind, tuple(parts))

    def node(self, manner: str = "", links: bool = True) -> Expr:
        """Return a node, of a random manner where none is given."""
        self._made += 1
        rng = self.rng
        manner = manner or rng.choices(("plain", "again", "replaced"), (0.86, 0.07, 0.07))[0]
        seconds = round(rng.uniform(0.0, self._longest), 4)
        label = f"n{self._made}"
        some = tuple(self.node(links=False) for _ in range(rng.randint(1, 2))) if links and rng.random() < 0.1 else ()
        return Expr("node", (), label, manner, rng.random() < 0.1, seconds, some)


def signature(app: Umbel, expr: Expr, task: str, new_id: Callable[[], str] | None, ids: dict[str, str]) -> Any:
    """Return an expression as a signature; `ids` takes the id of each label, where `new_id` gives them."""
    if expr.kind == "node":
        sig = (app.tasks[task].si if expr.immutable else app.tasks[task].s)(expr.label, expr.seconds, expr.manner)
        if new_id is not None:
            ids[expr.label] = new_id()
            sig.set(task_id=ids[expr.label])
        for link in expr.links:
            sig.link(signature(app, link, task, new_id, ids))
        return sig
    parts = [signature(app, part, task, new_id, ids) for part in expr.parts]
    if expr.kind == "chord":
        return chord(parts[:-1], parts[-1], app=app)
    return (group if expr.kind == "group" else chain)(*parts, app=app)
