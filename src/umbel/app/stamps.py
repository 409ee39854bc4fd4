"""Stamps: marks that a program puts on tasks when it sends them, as message headers (Celery: the same)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

__all__ = ["StampingVisitor", "stamp_links", "stamp_task", "with_stamps"]

_LIST = "stamped_headers"


class StampingVisitor(ABC):
    """Says which stamps the parts of a workflow get. Celery: `celery.canvas.StampingVisitor`.

    Each method gets the part and the stamps that apply so far, and returns those to add, or None. All keys of what it
    returns are stamps unless it has a list `stamped_headers` that names which are.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of one task."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of all members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - a hook, not a duty
        """The members of a group have been stamped."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - the same
        """The steps of a chain have been stamped."""

    def on_chord_header_start(self, chord: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of all members of a chord's header; by default those of a group."""
        return self.on_group_start(chord.header_group(), **headers)

    def on_chord_header_end(self, chord: Any, **headers: Any) -> None:
        """The header of a chord has been stamped; by default it ends like a group."""
        self.on_group_end(chord.header_group(), **headers)

    def on_chord_body(self, chord: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of a chord's body."""
        return {}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of a callback."""
        return {}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any] | None:
        """Return the stamps of an error callback."""
        return {}


def with_stamps(headers: Mapping[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return stamps with more of them, and with the list of their names."""
    found = dict(headers)
    names = _names(headers)
    if more:
        found.update(more)
        names = [*names, *_names(more)]
    if names:
        found[_LIST] = list(dict.fromkeys(names))
    return found


def _names(headers: Mapping[str, Any]) -> list[str]:
    given = headers.get(_LIST)
    return list(given) if given is not None else [name for name in headers if name != "stamps"]


def stamp_task(sig: Any, visitor: StampingVisitor | None, append: bool, headers: Mapping[str, Any]) -> None:
    """Put stamps on one task, in place."""
    found = with_stamps(headers, None)
    if visitor is not None:
        found = with_stamps(found, visitor.on_signature(sig, **found))
    options: MutableMapping[str, Any] = sig.options
    names = list(dict.fromkeys([*(options.get(_LIST) or ()), *found.pop(_LIST, ())]))
    for name, value in found.items():
        if append and name in options and name in names:
            options[name] = list(dict.fromkeys([*_several(value), *_several(options[name])]))
        else:
            options[name] = value
    if names:
        options[_LIST] = names


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple, set)) else (value,)


def stamp_links(
    sig: Any,
    visitor: StampingVisitor | None,
    append: bool,
    headers: Mapping[str, Any],
    signature_of: Callable[[Any], Any],
) -> None:
    """Put stamps on what is linked to a signature, in place."""
    found = with_stamps(headers, None)
    for option in ("link", "link_error"):
        present = sig.options.get(option)
        if not present:
            continue
        several = not isinstance(present, Mapping)
        stamped = []
        for one in present if several else [present]:
            link = signature_of(one)
            more = found
            if visitor is not None:
                ask = visitor.on_callback if option == "link" else visitor.on_errback
                more = with_stamps(found, ask(link, **found))
            stamped.append(link.stamp(visitor, append_stamps=append, **more))
        sig.options[option] = stamped if several else stamped[0]
