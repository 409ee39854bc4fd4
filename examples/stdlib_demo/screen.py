"""What the demo shows: a bar that moves on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

BAR = 30


class Progress:
    """Progress of `total` jobs; redraws one line on a terminal and prints every tenth part elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stdout.isatty()
        self._began = time.monotonic()
        self._told = -1

    def show(self, done: int) -> None:
        """Show that so many are done."""
        seconds = time.monotonic() - self._began
        rate = done / max(seconds, 0.001)
        text = f"{done:>5,} of {self._total:,} files  {rate:>5,.0f} a second  {seconds:4.1f} s"
        if self._terminal:
            full = BAR * done // self._total
            line = f"  [{'█' * full}{'·' * (BAR - full)}] {text}"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{line[:width]}", end="", flush=True)
        elif done * 10 // self._total > self._told:
            self._told = done * 10 // self._total
            print(f"  {text}", flush=True)

    def note(self, text: str) -> None:
        """Print a line of its own that stays."""
        if self._terminal:
            print("\r\x1b[2K", end="")
        print(f"  {text}", flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._terminal:
            print()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, all but the last one to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("  " + "  ".join([*cells, row[-1]]))
    return "\n".join(lines)
