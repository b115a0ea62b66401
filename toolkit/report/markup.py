"""HTML and SVG as nested calls; whatever is not `Markup` is escaped, so no manifest text can become a tag."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Control characters are invalid in HTML, lone surrogates cannot be encoded, and bidirectional overrides reorder what
# is beside them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_VOID = frozenset({"meta", "link", "br", "hr", "col", "img", "path", "line", "circle", "rect", "polyline"})
_SVG_VOID = frozenset({"path", "line", "circle", "rect", "polyline"})

Child = str | None | Iterable[str]


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def printable(text: str) -> str:
    """`text` in one line, without what no document may hold."""
    return re.sub(r"[\t\r\n]", " ", _UNPRINTABLE.sub("\ufffd", text))


def escape(text: object) -> Markup:
    """`text` as HTML text or attribute value."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(text))))


def join(*children: Child) -> Markup:
    """Children in a row, escaped where they are plain text; None and "" vanish."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        parts.append(escape(child) if isinstance(child, str) else join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One element. `class_` is class, `_` in a name becomes `-`; None and False leave one out, True needs no value."""
    pairs = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{pairs}{'/' if name in _SVG_VOID else ''}>")
    return Markup(f"<{name}{pairs}>{join(*children)}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    name = "viewBox" if name == "viewbox" else name
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
    return f' {name}="{escape(text)}"'
