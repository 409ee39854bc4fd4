"""The tasks of one app by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from umbel.core.errors import NotRegistered
from umbel.core.queues import nearest_name

__all__ = ["TaskRegistry", "gen_task_name", "is_quiet"]

#: How the names of tasks begin that every app has.
_BUILTIN = ("umbel.", "celery.")


class TaskRegistry(dict[str, Any]):
    """A dict of tasks; a name that is missing raises NotRegistered and names the nearest one."""

    NotRegistered = NotRegistered

    def __missing__(self, name: str) -> Any:
        near = nearest_name(name, self)
        raise NotRegistered(
            f"no task is registered as {name!r}"
            + (f"; did you mean {near!r}?" if near else "")
            + ". Is the module that defines it imported (include=, imports, autodiscover_tasks)?"
        )

    def register(self, task: Any) -> None:
        """Add a task under its name; a class is made a task first."""
        if isinstance(task, type):
            task = task()
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task (by name or itself); NotRegistered when it is not there."""
        try:
            self.pop(getattr(name, "name", name))
        except KeyError:
            raise NotRegistered(f"no task is registered as {name!r}") from None

    def own(self) -> list[str]:
        """The names of the app's own tasks, sorted: without those that every app has."""
        return sorted(name for name in self if not name.startswith(_BUILTIN))

    def regular(self) -> Iterator[tuple[str, Any]]:
        """Every task that runs when it is sent."""
        return iter(self.items())

    def periodic(self) -> Iterator[tuple[str, Any]]:
        """Celery's periodic tasks of old; there are none."""
        return iter(())


def gen_task_name(app: Any, name: str, module: str) -> str:
    """Return `module.name`; for the main script its app's name takes the place of `__main__`."""
    if module == "__main__":
        if app.main:
            return f"{app.main}.{name}"
        import sys
        from pathlib import Path

        file = getattr(sys.modules.get("__main__"), "__file__", None)
        return f"{Path(file).stem if file else '__main__'}.{name}"
    return f"{module or '__main__'}.{name}"


def is_quiet(name: str) -> bool:
    """Tell whether a task is umbel's own, of which logs and statistics say nothing as long as all goes well."""
    return name.startswith("umbel.")
