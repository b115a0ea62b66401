"""Files whose weights share values: how few there are, what that saves, and whether latency stays what it was.

The rule is that of the measurement `clusters`; the clock stands beside it, as for zeros (report/zeros.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.report.markup import Markup, tag
from toolkit.report.numbers import show
from toolkit.report.overview import absent, capital, number, section, table
from toolkit.report.view import View
from toolkit.report.zeros import LATENCY, Row, rows, shortened

UNCHANGED, OPEN = "latency unchanged", "latency open"


def lines(view: View) -> list[str]:
    """One line for each, for a terminal."""
    found = []
    for row in rows(view, "clusters"):
        name, how = row.artifact.name, row.found.how
        size, packed, bound = (_bytes(view, name, what) for what in ("size_bytes", "gzip_bytes", "entropy_bytes"))
        sizes = f"{size}, gzip {packed}, its weights coded {bound} (estimated bound)"
        values = f"at most {how.get('found', '')}, {how.get('in a layer', '')} in a layer"
        found.append(
            f"clusters: {name} on {row.found.device}: {values}; {sizes}; {_latency(how)}: {how.get('why', '')}"
        )
    return shortened(found, "clusters")


def clusters(view: View) -> Markup:
    """A table of all."""
    body = [_row(view, row) for row in rows(view, "clusters")]
    if not body:
        return absent("clusters", "Shared weights", "No file is of a model whose weights share values.")
    headings = ("File", "Device", "Shared", "Size", "Gzip", "Weights, coded", "By rule", "Latency p50", "Why")
    lead = (
        "How few values weights have, and what that saves. Weights, coded: an estimated bound, each value coded by how "
        "often it occurs. No runtime computes with codebooks, so that latency stays what it was; it is open where an "
        "accelerator reads compressed weights."
    )
    return section("clusters", "Shared weights", table(headings, body, label="Shared weights"), lead=lead)


def _row(view: View, row: Row) -> Markup:
    name, how = row.artifact.name, row.found.how
    stored = view.find(name, "entropy_bytes")
    time = view.find(name, LATENCY, row.found.device)
    note = f"stored in {show('size_bytes', float(stored.how.get('weights_bytes', 0)))}" if stored else ""
    return tag(
        "tr",
        tag("th", name, tag("small", f"asked for {how.get('asked', '-')}"), scope="row", class_="name"),
        tag("td", row.found.device, class_="n"),
        number(show("clusters", row.found.value), row.found.value, note=f"at most {how.get('found', '-')}"),
        *(number(_bytes(view, name, what)) for what in ("size_bytes", "gzip_bytes")),
        number(_bytes(view, name, "entropy_bytes"), note=note),
        tag("td", _latency(how)),
        number(show(LATENCY, time.value if time else None), note=row.speed),
        tag("td", capital(str(how.get("why", ""))), tag("small", str(how.get("rule", "")))),
    )


def _latency(how: Mapping[str, object]) -> str:
    return OPEN if how.get("used") == "open" else UNCHANGED


def _bytes(view: View, name: str, what: str) -> str:
    found = view.find(name, what)
    return show(what, found.value if found else None)
