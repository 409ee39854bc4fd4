"""Packages that umbel can use but does not need: loaded at first use, with an error that names the extra to
install.
"""

from __future__ import annotations

import importlib
from typing import Any

from umbel.core.errors import ImproperlyConfigured

__all__ = ["load_optional"]


def load_optional(module: str, *, extra: str, purpose: str) -> Any:
    """Return the module, or raise ImproperlyConfigured naming the `pip install umbel[extra]` that brings it.

    The names are constants in the calling modules, never text from a message. Loading late keeps
    `import umbel` fast where the package is installed but not used.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{purpose} needs the package {module!r}, which is not installed: run `pip install umbel[{extra}]`"
        ) from error
