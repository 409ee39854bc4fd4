"""Write docs/reference/settings.md from the table of settings; `--check` only tells whether it is up to date."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from umbel.core.settings import SECTIONS, Setting, Support

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"

HEAD = """# Settings

This page is written by `scripts/gen_settings_reference.py` from the table in `umbel.core.settings`.

Set them with `Umbel("app", broker_url=…)`, `app.conf.name = value`, `app.conf.update(…)` or
`app.config_from_object(…)`. What goes first: the environment (for the URLs of broker and results), then changes by
the program, then the configuration source, then `add_defaults`, then the defaults below. Old names work too; old
and new names may not be mixed in one source. With `namespace="CELERY"` the names in the source are
`CELERY_TASK_SERIALIZER` and so on, and nothing else in the source counts.

A dict holds settings only, so an unknown name in it is an error that names the nearest. Of a module or an object,
names that begin with an underscore, modules, functions and classes are passed over, and so is every unknown name
that does not begin like a setting (`task_`, `worker_`, `result_`, `broker_`, `beat_`, `event_`, `control_`,
`security_`, `CELERY_`, `CELERYD_`, `CELERYBEAT_`, `BROKER_`).

"Not supported yet" means that any other value than the default raises `NotSupportedError`, which says what to do.
"No effect" means that the setting may be given and changes nothing, for the reason that stands there.
Times are seconds; a `timedelta` is understood too.
"""


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "unset"
    if isinstance(value, timedelta):
        return f"`{value.total_seconds():g}`"
    return "`" + repr(value).replace("|", "\\|") + "`"


def _entry(setting: Setting) -> str:
    facts = [
        f"Takes {setting.kind.value}{' or None' if setting.optional else ''}.",
        f"Default: {_default(setting)}.",
    ]
    if setting.choices:
        facts.append("One of " + ", ".join(f"`{choice!r}`" for choice in setting.choices) + ".")
    if setting.minimum is not None:
        facts.append(f"At least {setting.minimum:g}.")
    if setting.maximum is not None:
        facts.append(f"At most {setting.maximum:g}.")
    if setting.old:
        facts.append("Old name: " + ", ".join(f"`{old}`" for old in setting.old) + ".")
    if setting.since:
        facts.append(f"Since {setting.since}.")
    lines = [f"### {setting.name}", "", setting.text, "", " ".join(facts)]
    if setting.support is not Support.WORKS:
        lines += ["", f"**{setting.support.value.capitalize()}:** {setting.note}."]
    return "\n".join(lines)


def render() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, rows in SECTIONS:
        parts.append(f"## {title}\n")
        parts.extend(_entry(setting) + "\n" for setting in rows)
    return "\n".join(parts)


def main(argv: list[str]) -> int:
    """Write or check the page; return the exit status."""
    text = render()
    if "--check" in argv:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE} is out of date: run python scripts/gen_settings_reference.py", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
