"""A manifest as one self-contained HTML page: no request leaves it, and it reads without its script.

The page's own security policy forbids every network request, and every script but the one below, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from toolkit.report import (
    answers,
    calibration,
    changed,
    clusters,
    details,
    inside,
    matrix,
    overview,
    speed,
    tradeoffs,
    zeros,
)
from toolkit.report.markup import Markup, join, tag
from toolkit.report.numbers import moment, seconds
from toolkit.report.sentences import outcome_word
from toolkit.report.style import SCRIPT, STYLE
from toolkit.report.view import View
from toolkit.runs import Manifest

SECTIONS = (  # first the outcome and what was won, then what was lost and where, then speed, then the record
    ("verdicts", "Verdicts", overview.verdicts),
    ("wins", "Gains", overview.wins),
    ("tradeoffs", "Charts", tradeoffs.tradeoffs),
    ("waterfall", "Stages", overview.waterfall),
    ("metrics", "Metrics", answers.answers),
    ("classes", "Classes", details.classes),
    ("changed", "Images", changed.changed),
    ("matrix", "Equivalence", matrix.matrix),
    ("diagnosis", "Diagnosis", inside.diagnosis),
    ("repairs", "Repair", inside.repairs),
    ("inputs", "Inputs", calibration.inputs),
    ("calibration", "Calibration", calibration.calibration),
    ("speed", "Speed", speed.speed),
    ("zeros", "Zeros", zeros.zeros),
    ("clusters", "Shared weights", clusters.clusters),
    ("layers", "Layers", details.layers),
    ("training", "Training", details.training),
    ("data", "Data", details.data),
    ("provenance", "Provenance", details.provenance),
    ("recipe", "Recipe", details.recipe),
    ("host", "Host", details.host),
    ("again", "Reproduce", details.again),
)


def render(manifest: Manifest, images: Mapping[str, bytes] | None = None) -> str:
    """The whole page. The same manifest gives the same text. images: thumbnails by their path; None leaves them out."""
    view = View(manifest, images)
    built = [(key, short, build(view)) for key, short, build in SECTIONS]
    parts = [part for part in built if not isinstance(part[2], overview.Absent)]
    missing = [(key, part) for key, _, part in built if isinstance(part, overview.Absent)]
    if missing:
        parts.append(("absent", "Not in this run", _absent(missing)))
    return page(f"{manifest.name}: {outcome_word(view)}", _header(view), parts, _footer(manifest))


def _absent(missing: Sequence[tuple[str, overview.Absent]]) -> Markup:
    """What has nothing to show, and why, in one list."""
    pairs = [
        tag("div", tag("dt", part.heading), tag("dd", part.reason, class_="quiet"), id=key) for key, part in missing
    ]
    return overview.section("absent", "Not in this run", tag("dl", pairs, class_="absent"))


def page(title: str, header: Markup, parts: Sequence[tuple[str, str, Markup]], footer: Markup) -> str:
    """A whole page from its sections: (id, name in the list of sections, the section)."""
    links = tag("nav", (tag("a", short, href=f"#{key}") for key, short, _ in parts), aria_label="Sections")
    main = tag("main", (part for _, _, part in parts))
    body = tag("body", header, links, main, footer, tag("script", Markup(SCRIPT)))
    return f"<!doctype html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )


def _header(view: View) -> Markup:
    manifest = view.manifest
    facts = [
        ("Started", moment(manifest.started)),
        ("Took", seconds(manifest.seconds) if manifest.seconds else "not recorded"),
        ("Seed", str(manifest.seed)),
        (
            "Host",
            ", ".join(str(manifest.host[key]) for key in ("cpu", "system") if manifest.host.get(key)) or "not recorded",
        ),
    ]
    count = len(manifest.warnings)
    warned = tag("a", f"{count} warning{'s' * (count > 1)}", href="#warnings") if count else "none"
    pairs = [tag("div", tag("dt", key), tag("dd", text)) for key, text in facts]
    pairs.append(tag("div", tag("dt", "Warnings"), tag("dd", warned)))
    title = join(tag("p", "Edgekit report", class_="kind"), tag("h1", manifest.name))
    return tag("header", tag("div", title), tag("dl", pairs))


def _footer(manifest: Manifest) -> Markup:
    made = manifest.versions.get("edgekit", "")
    text = f"Made by Edgekit {made} from the run's manifest (schema {manifest.schema}) and nothing else."
    return tag("footer", tag("p", text.replace("  ", " ")))
