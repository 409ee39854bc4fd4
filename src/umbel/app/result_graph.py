"""A workflow's results as a graph: walked over, collected, and drawn as a text tree or for Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from umbel.core.errors import IncompleteStream

__all__ = ["ResultGraph", "build_graph", "collect", "graph_from_root", "is_set", "iterdeps", "leaf_of", "unfinished"]

_COLOURS = {"SUCCESS": "palegreen", "FAILURE": "lightcoral", "REVOKED": "lightgrey", "STARTED": "khaki"}


def is_set(result: Any) -> bool:
    """Tell whether a result stands for several tasks."""
    return getattr(result, "results", None) is not None


def iterdeps(result: Any, intermediate: bool = False, seen: set[Any] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield (parent, result) for a result and everything that it sent, breadth first.

    Raises IncompleteStream at one that has not ended, unless `intermediate`. Celery: `AsyncResult.iterdeps`.
    What the results whose ids are in `seen` have sent is left out; those that are met are added.
    """
    waiting: list[tuple[Any, Any]] = [(None, result)]
    seen = set() if seen is None else seen
    for parent, node in waiting:
        yield parent, node
        if node.id in seen:
            continue
        seen.add(node.id)
        if not node.ready():
            if not intermediate:
                raise IncompleteStream(f"{node.id} has not ended: wait for it, or ask with intermediate=True")
            if not is_set(node):
                continue
        waiting.extend((node, child) for child in node.children or ())


def collect(result: Any, intermediate: bool = False, **get: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (result, value) for a result and everything that it sent, waiting for each; `get` is for `get()`."""
    for _, node in iterdeps(result, intermediate):
        yield node, node.get(**get)


def leaf_of(result: Any) -> Any:
    """Wait for a result and everything that it sent; return the value of the last of them."""
    value = None
    for _, value in collect(result):  # noqa: B007 - the last one is asked for
        pass
    return value


class ResultGraph:
    """Who sent whom in a workflow: nodes are results, edges lead from a result to what depends on it.

    `str()` is a tree as text, `to_dot()` the same for Graphviz. Calling the graph gives either.
    """

    def __init__(self, formatter: Callable[[Any], str] | None = None) -> None:
        self._formatter = formatter
        self._edges: dict[Any, list[Any]] = {}
        self._nodes: dict[str, Any] = {}

    def add(self, node: Any, parent: Any = None) -> None:
        """Add a node, and the edge that leads to it."""
        self._nodes.setdefault(node.id, node)
        self._edges.setdefault(node.id, [])
        if parent is not None:
            self.add(parent)
            if node.id not in self._edges[parent.id]:
                self._edges[parent.id].append(node.id)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._nodes.values())

    def __contains__(self, node: Any) -> bool:
        return getattr(node, "id", node) in self._nodes

    def edges(self) -> list[tuple[Any, Any]]:
        """Return (result, result that depends on it) pairs."""
        return [(self._nodes[one], self._nodes[other]) for one, others in self._edges.items() for other in others]

    def __call__(self, format: str = "text") -> str:  # noqa: A002 - what users call it
        """Return the graph as `text` or `dot`."""
        if format not in ("text", "dot"):
            raise ValueError(f"a graph is written as 'text' or 'dot', not {format!r}")
        return self.to_dot() if format == "dot" else str(self)

    def __str__(self) -> str:
        targets = {other for others in self._edges.values() for other in others}
        roots = [node for node in self._nodes if node not in targets] or list(self._nodes)[:1]
        lines: list[str] = []
        shown: set[str] = set()
        # (indent of the line, indent of what is below it, node): a stack, since chains may be long.
        stack = [("", "", root) for root in reversed(roots)]
        while stack:
            first, below, node = stack.pop()
            again = node in shown and bool(self._edges[node])
            lines.append(f"{first}{self._text(node)}{' …' if again else ''}")
            if again:
                continue
            shown.add(node)
            children = self._edges[node]
            for place, child in reversed(list(enumerate(children))):
                last = place == len(children) - 1
                stack.append((below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "), child))
        return "\n".join(lines)

    def to_dot(self, file: Any = None) -> str:
        """Return the graph in Graphviz' language; write it to `file` if one is given."""
        lines = ["digraph workflow {", '  node [shape=box, style="rounded,filled", fillcolor=white];']
        for node in self._nodes:
            colour = _COLOURS.get(self._state(node), "white")
            lines.append(f"  {_quoted(node)} [label={_quoted(self._text(node))}, fillcolor={colour}];")
        for one, others in self._edges.items():
            lines += [f"  {_quoted(one)} -> {_quoted(other)};" for other in others]
        text = "\n".join([*lines, "}"]) + "\n"
        if file is not None:
            file.write(text)
        return text

    def _state(self, node: str) -> str:
        result = self._nodes[node]
        return "" if is_set(result) else str(result.state)

    def _text(self, node: str) -> str:
        result = self._nodes[node]
        if self._formatter is not None:
            return self._formatter(result)
        if is_set(result):
            ended = sum(member.ready() for member in result.results)
            return f"group {result.id} ({ended}/{len(result)} done)"
        name = result.name or result.task_name
        return f"{name + ' ' if name else ''}{result.id} {result.state}"


def build_graph(result: Any, intermediate: bool = False, formatter: Callable[[Any], str] | None = None) -> ResultGraph:
    """Return the graph of a result: what came before it (`parent`), and what it sent."""
    graph = ResultGraph(formatter)
    graph.add(result)
    traced: set[Any] = set()
    _add_above(graph, result, None, traced)
    begun: set[Any] = set()
    seen: set[Any] = set()
    # What a member of a header came from is known once that header is.
    while fresh := [node for node in graph if node.id not in begun]:
        for start in fresh:
            begun.add(start.id)
            for parent, one in iterdeps(start, intermediate, seen):
                graph.add(one, None if _add_above(graph, one, parent, traced) else parent)
    return graph


def _add_above(graph: ResultGraph, result: Any, parent: Any, traced: set[Any]) -> bool:
    """Add what a result says came before it, down from `parent`; tell whether there is anything.

    What came before the results in `traced` has been added: those that are met here join them.
    """
    line = [result]
    while line[-1].id not in traced and line[-1].parent is not None and line[-1].parent != parent:
        line.append(line[-1].parent)
    if len(line) == 1:
        return result.parent is not None and result.parent != parent
    before = None if line[-1].id in traced else parent
    traced.update(one.id for one in line)
    for one in reversed(line):
        graph.add(one, before)
        for member in one.results if is_set(one) else ():
            graph.add(member, one)
        before = one
    return True


def graph_from_root(result: Any) -> ResultGraph:
    """Return the graph from the task on that a workflow began with, down to a result whose parents are only stored."""
    line = [result]
    seen = {result.id}
    while above := line[-1]._read().get("parent_id"):
        if above in seen:
            break
        seen.add(above)
        line.append(type(result)(above, app=result.app))
    graph = build_graph(line[-1], intermediate=True)
    # The body of a chord is nobody's child: it says itself which member it came from.
    for one, parent in reversed(list(pairwise(line))):
        if one not in graph:
            graph.add(one, parent)
            for source, sent in build_graph(one, intermediate=True).edges():
                graph.add(sent, source)
    return graph


def unfinished(result: Any) -> list[str]:
    """Return the ids of the tasks of a result's workflow that have not ended, as far as they are known."""
    return [node.id for node in build_graph(result, intermediate=True) if not is_set(node) and not node.ready()]


def _quoted(text: str) -> str:
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
