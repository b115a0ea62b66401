"""Names in Markdown: in code spans or escaped, so that none can mention a person, open a tag or break a table."""

from __future__ import annotations

import re

LONGEST = 60_000
"""Characters of a comment; GitHub takes 65,536."""


def code(words: str) -> str:
    """A code span: nothing in it is markup but a backtick, and a bar would end a table's cell."""
    safe = _one_line(words).replace("`", "'").replace("|", "/")
    return f"`{safe or ' '}`"


def words(text: str) -> str:
    """Plain text: every sign that Markdown, HTML or a mention begins with, escaped."""
    entities = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "`": "&#96;", "|": "&#124;"})
    return re.sub(r"([\\*_\[\]#~])", r"\\\1", _one_line(text)).translate(entities)


def fold(title: str, body: str) -> str:
    """What opens when it is asked for; "" where there is nothing."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else ""


def cut(whole: str, *, more: str) -> str:
    """At the end of a line, every fold closed. more: where to find the rest."""
    if len(whole) <= LONGEST:
        return whole
    kept = whole[:LONGEST].rpartition("\n")[0]
    still_open = kept.count("<details>") - kept.count("</details>")
    return kept + "\n\n</details>" * still_open + f"\n\nCut short: {more}"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\u00a0" else "\ufffd" for char in text)
