"""Reading and running the code in pages: what a block's info string asks for is done in a folder of the page's own.

```python               run as a script
```python worker=tasks  the same, while a worker of that app runs
```python file=tasks.py written to that file
```python norun         only compiled
```text output          what the block before printed; `...` stands for anything
```console              `$ command` and its output; `$ command &` goes on running, its output is waited for
```console norun        only shown

The addresses of SERVERS stand for private servers that the tests start.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEADLINE = 30.0
#: Address in a page → fixture that gives the address of an empty place on a private server.
SERVERS = {"redis://localhost:6379/0": "redis_url", "amqp://guest:guest@localhost:5672//": "rabbit_url"}


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    options: dict[str, str]
    text: str
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    source = page.read_text()
    for found in _BLOCK.finditer(source):
        options = {word.partition("=")[0]: word.partition("=")[2] for word in found[2].split()}
        yield Block(found[1], options, found[3], source.count("\n", 0, found.start()) + 1)


def is_runnable(block: Block) -> bool:
    """Tell whether something is to be done with a block."""
    return block.language in ("python", "console")


def matches(expected: str, output: str, *, more: bool = False) -> bool:
    """Compare what a page shows with what was printed; with `more` anything may follow."""
    wanted = "\n".join(line.rstrip() for line in expected.strip().splitlines())
    printed = "\n".join(line.rstrip() for line in output.strip().splitlines())
    pattern = re.escape(wanted).replace(r"\.\.\.", ".*?") + (".*" if more else "")
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


class Player:
    """Does what the blocks of one page say, in order."""

    def __init__(
        self, folder: Path, wait_until: Callable[..., None], addresses: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.folder = folder
        self._addresses = addresses
        self._wait_until = wait_until
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UMBEL", "CELERY"))}
        self._environment = {**kept, "PATH": path, "PYTHONPATH": str(folder), "NO_COLOR": "1"}
        self._printed = ""

    def close(self) -> None:
        """End what still runs; complain about what does not end by itself, when it is gone."""
        for _, process in self._running:
            process.terminate()
        stuck = []
        for command, process in self._running:
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(DEADLINE)
                stuck.append(command)
        assert not stuck, f"still running {DEADLINE:.0f} s after TERM, and killed: {stuck}"

    def play(self, block: Block) -> None:
        """Do what one block says."""
        for shown, real in self._addresses.items():
            block = block._replace(text=block.text.replace(shown, real))
        if block.language == "python":
            self._python(block)
        elif block.language == "console":
            self._console(block)
        elif block.language == "text" and "output" in block.options:
            assert matches(block.text, self._printed), f"line {block.line}: printed was\n{self._printed}"

    def _python(self, block: Block) -> None:
        if "file" in block.options:
            file = self.folder / block.options["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif "norun" in block.options:
            compile(block.text, f"line {block.line}", "exec")
        else:
            if "worker" in block.options:
                self._need_worker(block.options["worker"])
            self._printed = self._run([sys.executable, "-W", "error", "-c", block.text], block)

    def _run(self, command: list[str] | str, block: Block) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            shell=isinstance(command, str),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        expected = int(block.options.get("status", 0))
        assert done.returncode == expected, f"line {block.line}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def _need_worker(self, app: str) -> None:
        command = f"umbel -A {app} worker -l INFO -c 2"
        if not any(known == command and process.poll() is None for known, process in self._running):
            self._start(command, "...ready.")

    def _start(self, command: str, expected: str) -> None:
        log = self.folder / f"output-{len(self._running)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                f"exec {command}",
                shell=True,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((command, process))
        self._wait_until(
            lambda: process.poll() is not None or matches(expected, log.read_text(), more=True),
            seconds=DEADLINE,
            what=f"`{command}` to print {expected!r} in {log}",
        )
        state = process.poll()
        assert state is None, f"`{command}` ended with {state}:\n{log.read_text()}"

    def _console(self, block: Block) -> None:
        if "norun" in block.options:
            return
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if command.endswith(" &"):
                self._start(command.removesuffix(" &"), expected)
            else:
                output = self._run(command, block)
                assert matches(expected, output), f"line {block.line}: `{command}` printed\n{output}"
