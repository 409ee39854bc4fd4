"""Hide what is secret in a URL before it is shown."""

from __future__ import annotations

import re

__all__ = ["mask_text", "mask_url", "several_urls"]

_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&][\w.-]*(?:pass|token|secret|credential|signature|api_?key|access_?key|sas)[\w.-]*=)[^&#;]*",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(r"\S*://\S*")
_NEXT_URL = re.compile(r";(?=\s*[\w+.-]+://)")


def mask_url(url: str, mask: str = "**") -> str:
    """Return `url` (or several, separated by `;`) with passwords and secret parameters replaced by `mask`.

    A password that holds `@`, `/` or `?` unescaped is hidden whole; where it is unclear what belongs to the
    password, more is hidden rather than less.
    """
    return ";".join(_mask_one(part, mask) for part in _NEXT_URL.split(url))


def mask_text(text: str) -> str:
    """Return `text` with every URL in it masked; what stands between them stays, unless a password may hold a space."""
    found, end = "", 0
    for word in _IN_TEXT.finditer(text):
        authority = re.split(r"[/?#]", word[0].partition("://")[2], maxsplit=1)[0]
        _, colon, after = authority.partition(":")
        if colon and "@" not in word[0] and not after.rstrip(".,:;'\")").isdigit():
            return found + text[end : word.start()] + mask_url(text[word.start() :])
        found += text[end : word.start()] + mask_url(word[0])
        end = word.end()
    return found + text[end:]


def several_urls(text: str) -> list[str]:
    """Return the URLs that `text` holds, joined by `;`, each with its scheme."""
    return [part.strip() for part in _NEXT_URL.split(text)]


def _mask_one(url: str, mask: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    end = _end_of_userinfo(rest)
    userinfo, rest = (rest[:end], rest[end:]) if end >= 0 else ("", rest)
    user, colon, password = userinfo.partition(":")
    if password:
        userinfo = f"{user}{colon}{mask}"
    rest = _SECRET_PARAMETER.sub(lambda found: found["name"] + mask, rest)
    return f"{scheme}{separator}{userinfo}{rest}"


def _end_of_userinfo(rest: str) -> int:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, colon, after = authority.partition(":")
    if "@" in authority:
        return rest.rindex("@") if colon else authority.rindex("@")
    if not colon:
        return -1
    # digits after the colon are a port, unless an "@" in the path says that they began a password
    return rest.partition("?")[0].rfind("@") if after.isdigit() else rest.rfind("@")
