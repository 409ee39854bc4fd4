"""How a running call ends without an end of its own: others go on with what it was to do."""

from __future__ import annotations

from collections.abc import Sequence

from umbel.core.errors import Ignore
from umbel.core.message import End, Message, Part, Record

__all__ = ["HandedOver"]


class HandedOver(Ignore):
    """Raised inside a task: what it carries is applied together with the end of the lease, and nothing else is.

    The call gets no state, calls no callback and joins no chord: whoever takes over under its id does. `record` is
    the state of another task that ends here. A subclass of Ignore, as what Celery's `Task.replace` raises.
    """

    def __init__(
        self,
        text: str,
        publish: Sequence[Message] = (),
        parts: Sequence[Part] = (),
        record: Record | None = None,
        *,
        end: End = End.DONE,
        due: float = 0.0,
        quiet: bool = False,
    ) -> None:
        super().__init__(text)
        self.publish = list(publish)
        self.parts = list(parts)
        self.record = record
        self.end = end
        #: Where the message goes back: not before this time (epoch seconds).
        self.due = due
        #: Nothing is said about it in the log.
        self.quiet = quiet
