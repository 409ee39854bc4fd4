"""Exceptions as data: how the error of a failed task is written into a result, and made an exception again.

A reader makes only `Exception` classes that this process has already imported, or that were registered;
whatever else a stored result names becomes a RemoteError with the same text.
"""

from __future__ import annotations

import sys
import traceback as tracebacks
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from umbel.core import errors
from umbel.core.errors import RemoteError
from umbel.core.optional import load_optional

__all__ = ["ExceptionInfo", "from_dict", "register_exception", "text_of", "to_dict", "with_traceback"]

#: A traceback keeps its beginning and its end within this many characters.
MAX_TRACEBACK = 64 * 1024
_OURS = errors.__name__
#: Where Celery's peers find the classes that both sides have.
_THEIRS = "celery.exceptions"
_FOREIGN = frozenset({_THEIRS, "billiard.exceptions", "kombu.exceptions", "celery.app.task"})
#: Classes of ours that Celery does not have travel under our own module.
_ONLY_OURS = frozenset(
    {
        "UmbelError", "UmbelWarning", "RemoteError", "NotSupportedError", "EncodeError", "DecodeError",
        "SerializationError", "ContentDisallowed", "MessageRefused", "EngineBusy", "StorageFull",
        "PublishTimeout", "Unroutable",
    }
)  # fmt: skip

E = TypeVar("E", bound=BaseException)

_registered: dict[tuple[str, str], type[Exception]] = {}


class ExceptionInfo(Generic[E]):
    """What handlers and signals get as `einfo`: the exception, its type and its traceback as text.

    Celery: `billiard.einfo.ExceptionInfo`.
    """

    __slots__ = ("exception", "internal", "tb", "traceback", "type")

    def __init__(self, exception: E, text: str | None = None) -> None:
        self.exception = exception
        self.type: type[E] = type(exception)
        self.tb = exception.__traceback__
        self.traceback = text if text is not None else traceback_text(exception)
        self.internal = False

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {text_of(self.exception)}>"


def register_exception(cls: type[Exception]) -> type[Exception]:
    """Let results bring back `cls` even where its module is not imported under its own name; a decorator."""
    if not issubclass(cls, Exception):
        raise TypeError(f"only classes derived from Exception can be registered, not {cls!r}")
    _registered[cls.__module__, cls.__qualname__] = cls
    return cls


def text_of(exc: BaseException) -> str:
    """Return `Type('message')` as repr would, whatever the exception's own methods do."""
    try:
        text = repr(exc)
    except BaseException:  # noqa: BLE001 - a class of the user's; its repr may raise anything
        return f"<unprintable {type(exc).__name__} object>"
    return text if len(text) <= 2048 else text[:2048] + "..."


def traceback_text(exc: BaseException, skip: int = 0) -> str:
    """Format the traceback without its first `skip` frames; bounded in size, and never an exception."""
    trace = exc.__traceback__
    for _ in range(skip):
        if trace is None or trace.tb_next is None:
            break
        trace = trace.tb_next
    try:
        text = "".join(tracebacks.format_exception(type(exc), exc, trace))
    except BaseException:  # noqa: BLE001 - formatting calls methods of the user's class
        text = "".join(tracebacks.format_tb(trace)) + text_of(exc) + "\n"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def arguments_of(exc: BaseException, writable: Callable[[Any], bool]) -> list[Any]:
    """Return the exception's `args` with each one that cannot be written replaced by its text."""
    try:
        arguments = list(exc.args)
    except BaseException:  # noqa: BLE001 - `args` may be a property of the user's
        return [text_of(exc)]
    return [item if writable(item) else _safe_text(item) for item in arguments]


def _safe_text(value: Any) -> str:
    try:
        return repr(value)[:2048]
    except BaseException:  # noqa: BLE001 - a class of the user's
        return f"<unprintable {type(value).__name__} object>"


def to_dict(exc: BaseException, writable: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the three fields that Celery's results keep of an exception."""
    cls = type(exc)
    module, name = cls.__module__, cls.__qualname__
    if "<" in name:
        name = cls.__name__
    if module == _OURS and name not in _ONLY_OURS:
        module = _THEIRS
    if isinstance(exc, RemoteError):  # passed on from another task: keep what it was
        return {"exc_type": exc.name, "exc_message": exc.arguments, "exc_module": exc.module}
    if isinstance(exc, errors.Retry):  # its args hold the exception itself
        return {"exc_type": name, "exc_message": [str(exc)], "exc_module": module}
    return {"exc_type": name, "exc_message": arguments_of(exc, writable), "exc_module": module}


def from_dict(data: Any) -> Exception:
    """Return the exception that a stored result describes; RemoteError if its class is unknown or unsafe."""
    if isinstance(data, Exception):
        return data
    if not isinstance(data, dict) or not isinstance(data.get("exc_type"), str):
        return RemoteError("", "Exception", (data,))
    module, name = data.get("exc_module"), data["exc_type"]
    message = data.get("exc_message", ())
    arguments = tuple(message) if isinstance(message, (list, tuple)) else (message,)
    module = module if isinstance(module, str) else ""
    cls = _find_class(module, name)
    if cls is not None:
        try:
            exc = cls(*arguments)
        except Exception:  # noqa: BLE001 - the class wants other arguments than it keeps in `args`
            return _without_init(cls, arguments) or RemoteError(module, name, arguments)
        if isinstance(exc, cls):
            return exc
    return RemoteError(module, name, arguments)


def _without_init(cls: type[Exception], arguments: tuple[Any, ...]) -> Exception | None:
    """An instance whose `__init__` was not asked; None where its text could not be shown then."""
    try:
        exc = cls.__new__(cls, *arguments)
        exc.args = arguments
        str(exc)
        repr(exc)
    except Exception:  # noqa: BLE001 - methods of the user's class
        return None
    return exc


def _find_class(module: str, name: str) -> type[Exception] | None:
    known = _registered.get((module, name))
    if known is not None:
        return known
    if module in _FOREIGN and module not in sys.modules and name in errors.__all__:
        module = _OURS
    found: Any = sys.modules.get(module)
    if found is None:
        return None
    for part in name.split("."):
        # Only what stands in the module or class itself: a lazy module must not import for a stored name.
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if found is None:
            return None
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def with_traceback(exc: Exception, text: str | None) -> Exception:
    """Give the exception the frames of the remote traceback (setting `task_remote_tracebacks`)."""
    if text:
        tblib = load_optional("tblib", extra="tblib", purpose="the setting task_remote_tracebacks")
        try:
            exc.__traceback__ = tblib.Traceback.from_string(text).as_traceback()
        except tblib.TracebackParseError:  # shortened, or written by something else
            exc.add_note(text)
    return exc
