"""Names of workers, `name@host`, and the `%` expansions in them and in file names. Celery: `celery.utils.nodenames`."""

from __future__ import annotations

import re
import socket

from umbel.core.errors import ImproperlyConfigured

__all__ = [
    "DEFAULT_NAME",
    "default_nodename",
    "expand_file_name",
    "gethostname",
    "host_format",
    "node_format",
    "nodename",
    "nodesplit",
]

#: What stands before the `@` where nothing else is said.
DEFAULT_NAME = "umbel"
_EXPANSION = re.compile(r"%(.)")


def gethostname() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def nodename(name: str, hostname: str) -> str:
    """Return `name@hostname`."""
    return f"{name}@{hostname}"


def nodesplit(name: str) -> tuple[str | None, str]:
    """Return (name, host) of `name@host`; without an `@` it is (None, host), as in Celery."""
    before, at, after = name.partition("@")
    return (before, after) if at else (None, name)


def default_nodename(hostname: str | None) -> str:
    """Fill in what a node name leaves out: None is `umbel@<this machine>`, `x` `umbel@x`, `w@` `w@<this machine>`."""
    name, host = nodesplit(hostname or "")
    return nodename(name or DEFAULT_NAME, host or gethostname())


def host_format(text: str, host: str | None = None, name: str | None = None, **more: str) -> str:
    """Expand `%h` (host), `%n` (name, else the host's first part), `%d` (domain) and `%%`.

    `more` are further letters with their values. Raises ImproperlyConfigured for any other letter.
    """
    host = host or gethostname()
    first, _, domain = host.partition(".")
    letters = {"h": host, "n": name or first, "d": domain, "%": "%", "i": "%i", "I": "%I", **more}

    def expand(found: re.Match[str]) -> str:
        if found[1] not in letters:
            known = ", ".join(f"%{letter}" for letter in letters)
            raise ImproperlyConfigured(f"{text!r} holds %{found[1]}, which means nothing; there are {known}")
        return letters[found[1]]

    return _EXPANSION.sub(expand, text)


def node_format(text: str, name: str, **more: str) -> str:
    """Expand `%n`, `%h`, `%d` by the parts of the node name `name`, and `%p` as the whole of it."""
    own, host = nodesplit(name)
    return host_format(text, host, own or DEFAULT_NAME, p=name, **more)


def expand_file_name(text: str, node: str, index: int = 0) -> str:
    """Expand a file name: as `node_format`, with `%i` as the process' index and `%I` as `-index` or nothing."""
    return node_format(text, node, i=str(index), I=f"-{index}" if index else "")
