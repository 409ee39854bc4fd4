"""Write the modules of `umbel.celery` from the table of import points: `gen_import_points.py [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from umbel.celery.import_points import POINTS, Point

ROOT = Path(__file__).resolve().parents[1] / "src" / "umbel" / "celery"


def is_package(path: str) -> bool:
    """Tell whether other import points lie below `path`."""
    return path == "" or any(other.startswith(f"{path}.") for other in POINTS)


def file_of(path: str) -> Path:
    """Return the file of an import point."""
    place = ROOT.joinpath(*path.split(".")) if path else ROOT
    return place / "__init__.py" if is_package(path) else place.with_suffix(".py")


def names_of(names: str) -> Iterator[tuple[str, str]]:
    """Yield (ours, theirs) of `a b` or `a; b as c`."""
    for part in names.split(";"):
        words = part.split()
        if "as" not in words:
            yield from ((word, word) for word in words)
        while "as" in words:
            at = words.index("as")
            yield from ((word, word) for word in words[: at - 1])
            yield words[at - 1], words[at + 1]
            words = words[at + 2 :]
            if "as" not in words:
                yield from ((word, word) for word in words)


def text_of(path: str, point: Point) -> str:
    """Return the source of an import point."""
    theirs = ".".join(filter(None, ("celery", path)))
    lines = [
        f'"""Import point `{theirs}`; written by `scripts/gen_import_points.py`."""',
        "",
        "from __future__ import annotations",
        "",
    ]
    imports: list[tuple[str, str, str]] = [("umbel.celery.import_points", "missing_names", "missing_names")]
    for module, names in point.here.items():
        imports += [(module, ours, name) for ours, name in names_of(names)]
    own = sorted(name for _, _, name in imports[1:])
    rank = [(module.startswith("umbel"), module, ours, name) for module, ours, name in imports]
    previous = None
    grouped: dict[tuple[bool, str], list[str]] = {}
    for first, module, ours, name in sorted(rank):
        renamed = ours != name
        key = f"{ours} as {name}" if renamed else ours
        grouped.setdefault((first, module), []).append(key)
    for (first, module), words in grouped.items():
        if previous is not None and previous != first:
            lines.append("")
        previous = first
        plain = sorted((word for word in words if " as " not in word), key=isort_key)
        if plain:
            lines += _import(module, plain)
        for word in sorted(word for word in words if " as " in word):
            lines += _import(module, [word])
    lines += ["", *_names(own), "", f'__getattr__ = missing_names("{path}")']
    return "\n".join(lines) + "\n"


def isort_key(word: str) -> tuple[int, str]:
    """Order of names in one import: constants, classes, functions."""
    kind = 0 if word.isupper() and len(word) > 1 else 1 if word[0].isupper() else 2
    return kind, word.lower()


#: Rules that Celery's own names break.
ALLOWED = {"Amqp as AMQP": "  # noqa: N814", "TimeoutError": "  # noqa: A004"}


def _import(module: str, words: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(words)}{ALLOWED.get(words[0], '')}"
    if len(line) <= 120:
        return [line]
    return [f"from {module} import (", *(f"    {word},{ALLOWED.get(word, '')}" for word in words), ")"]


def _names(names: list[str]) -> list[str]:
    line = f"__all__ = [{', '.join(chr(34) + name + chr(34) for name in names)}]"
    if not names:
        return ["__all__: list[str] = []"]
    if len(line) <= 120:
        return [line]
    return ["__all__ = [", *(f'    "{name}",' for name in names), "]"]


def main() -> int:
    """Write the files; with --check tell which are out of date, and exit with 1."""
    check = "--check" in sys.argv[1:]
    wanted = {file_of(path): text_of(path, point) for path, point in POINTS.items()}
    present = {file for file in ROOT.rglob("*.py") if file.name != "import_points.py"}
    stale = [file for file, text in wanted.items() if file not in present or file.read_text() != text]
    extra = sorted(present - set(wanted))
    for file in [*stale, *extra]:
        print(f"out of date: {file}" if check else f"written: {file}")
    if not check:
        for file in stale:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(wanted[file])
        for file in extra:
            file.unlink()
    return int(check and bool(stale or extra))


if __name__ == "__main__":
    sys.exit(main())
