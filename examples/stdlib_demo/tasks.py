"""The demo's app: one task that reads one Python file and says what is in it."""

from __future__ import annotations

import ast
import os
import time
import warnings
from pathlib import Path
from typing import TypedDict

from journal import Journal

from umbel import Umbel

FOLDER = Path(os.environ["STDLIB_DEMO_FOLDER"])

app = Umbel("stdlib-demo", broker=f"sqlite:///{FOLDER / 'demo.db'}", backend=f"sqlite:///{FOLDER / 'demo.db'}")
journal = Journal(FOLDER / "journal")


class Found(TypedDict):
    """What one file holds."""

    path: str
    lines: int
    functions: int
    classes: int
    longest: str
    longest_lines: int


@app.task(acks_late=True)
def analyse(number: int, path: str) -> Found:
    """Parse one file; count its functions, classes and lines; find its longest function.

    The journal knows of every start and every end, so that the demo can prove afterwards what really ran.
    """
    journal.write("started", number)
    source = Path(path).read_bytes()
    found = Found(path=path, lines=source.count(b"\n"), functions=0, classes=0, longest="", longest_lines=0)
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.ClassDef):
            found["classes"] += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found["functions"] += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > found["longest_lines"]:
                found["longest"], found["longest_lines"] = node.name, length
    journal.write("finished", number)
    return found


def parse(source: bytes) -> ast.Module:
    """Parse Python source; the library also has files that are wrong on purpose, and they hold nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError):
            return ast.Module(body=[], type_ignores=[])


@app.task
def now() -> float:
    """Return the time: the smallest job there is, for measuring the way there and back."""
    return time.time()
