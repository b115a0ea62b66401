"""The section on answers: every metric of every file, and pictures of what the headline file decides otherwise.

All of it from the manifest's measurements, `per_class` and `details`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from toolkit.checks.details import Curve, Details, Label
from toolkit.report import charts, confusions, pictures
from toolkit.report.markup import Child, Markup, join, tag
from toolkit.report.numbers import MISSING, quantity, show, show_interval
from toolkit.report.overview import absent, capital, number, section, table
from toolkit.report.view import ORIGINAL, View

NOT_METRICS = frozenset(
    {
        "size_bytes",
        "gzip_bytes",
        "entropy_bytes",
        "zeros",
        "clusters",
        "macs",
        "parameters",
        "arena_kib",
        "arena_bytes",
        "peak_rss_kib",
    }
)
OF_TARGETS = ("mae", "rmse")  # in the targets' own unit, which nothing names
MOST_LINES = 4  # of one picture, as many as there are strokes to tell apart
MOST_ROWS = 60
HEADS: MappingProxyType[str, str] = MappingProxyType(
    {
        "logits": "One class an image, by the highest score",
        "softmax": "One class an image, by the highest score",
        "sigmoid": "One of two classes, by the score's threshold",
        "sigmoids": "Several labels an image, each held above 0.5",
        "embedding": "A vector an image, compared by cosine",
        "regression": "Numbers, compared with the targets",
    }
)


def answers(view: View) -> Markup:
    """Metrics, then the head's pictures."""
    found = view.manifest.details
    subjects = [name for name in (ORIGINAL, *(item.name for item in view.manifest.artifacts)) if name in found]
    if not subjects:
        return absent("metrics", "Metrics", f"Metrics: {MISSING}.")
    lead = f"{HEADS.get(found[subjects[0]].head, 'On the test images')}. All numbers are of the test images."
    headline = view.headline()
    name = headline.name if headline and headline.name in found else subjects[-1]
    parts = [_numbers(view, subjects), _left_out(found, subjects), _pictures(view, subjects, name)]
    return section("metrics", "Metrics", *parts, lead=lead)


# ---------------------------------------------------------------- numbers


def _numbers(view: View, subjects: Sequence[str]) -> Markup:
    """One row a subject, one column a metric."""
    names = list(dict.fromkeys(_metric_names(view, subjects)))
    rows = []
    for subject in subjects:
        cells = []
        for name in names:
            item = view.find(subject, name)
            interval = show_interval(name, item.interval) if item else ""
            unit = item.unit if item and name not in OF_TARGETS else ""
            text = show(name, item.value, unit) if item else "–"
            cells.append(number(text, item.value if item else None, note=interval or None))
        rows.append(tag("tr", tag("th", subject, scope="row", class_="name"), cells))
    headings: list[Child] = ["", *(capital(quantity(name).label) for name in names)]
    return table(headings, rows, label="Metrics of the original and every file", class_="metrics")


def _metric_names(view: View, subjects: Sequence[str]) -> Iterator[str]:
    """Metrics, not what they lost, in the order they were measured."""
    for item in view.manifest.measurements:
        kind = quantity(item.name).kind
        skipped = item.name in NOT_METRICS or kind in ("points", "growth", "ms", "rate", "db", "count")
        if item.subject in subjects and not skipped and not item.name.endswith("_abs_diff"):
            yield item.name


def _left_out(found: Mapping[str, Details], subjects: Sequence[str]) -> Markup | None:
    """What could not be computed, and why, each said once."""
    named: dict[str, dict[str, None]] = {}  # why -> what, in order
    for subject in subjects:
        for name, why in found[subject].left_out.items():
            named.setdefault(why, {})[quantity(name).label] = None
    if not named:
        return None
    said = [f"Left out of {'; '.join(labels)}: {why}" for why, labels in named.items()]
    return tag("ul", (tag("li", text) for text in said), class_="notes")


# ---------------------------------------------------------------- pictures


def _pictures(view: View, subjects: Sequence[str], name: str) -> Markup | None:
    found = view.manifest.details
    head = found[name].head
    if head == "sigmoids":
        return join(_figures([*_roc(found, name)]), _labels(view, name))
    if head == "regression":
        return _columns(view, subjects)
    if head == "embedding":
        return _figures(_cosines(found, subjects))
    delivered = [item.name for item in view.delivered if item.name in found]
    plots = [*_reliability(found, [ORIGINAL, *delivered, *subjects], name), *_roc(found, name)]
    return join(_figures(plots), confusions.of(view, name), confusions.others(view, name))


def _figures(figures: Sequence[Markup]) -> Markup | None:
    return tag("div", figures, class_="charts small") if figures else None


def _figure(title: str, picture: Markup, key: Sequence[str] = ()) -> Markup:
    legend = [tag("span", charts.key(place), name) for place, name in enumerate(key)]
    return tag("figure", tag("figcaption", title), picture, tag("p", legend, class_="legend") if len(key) > 1 else None)


def _chosen(subjects: Sequence[str], name: str) -> list[str]:
    """The original and the headline file first, then as many more as one picture can tell apart."""
    first = [each for each in (ORIGINAL, name) if each in subjects]
    return list(dict.fromkeys([*first, *subjects]))[:MOST_LINES]


def _reliability(found: Mapping[str, Details], subjects: Sequence[str], name: str) -> Iterator[Markup]:
    chosen = [each for each in _chosen(subjects, name) if each in found and found[each].reliability]
    if not chosen:
        return
    lines = {
        subject: [(each.images, each.confidence, each.accuracy) for each in found[subject].reliability]
        for subject in chosen
    }
    said = "; ".join(f"{subject} {_gap(found[subject])}" for subject in chosen)
    picture = pictures.reliability(lines, summary=f"Reliability: share right against confidence. {said}.")
    yield _figure("Reliability: on the line, a model is as sure as it is right", picture, chosen)


def _gap(details: Details) -> str:
    """Whether a model is too sure, in words."""
    total = sum(each.images for each in details.reliability) or 1
    gap = sum(each.images * (each.confidence - each.accuracy) for each in details.reliability) / total
    way = "more" if gap > 0 else "less"
    return f"is {abs(100 * gap):.1f} points {way} sure than right" if abs(gap) >= 0.0005 else "is as sure as right"


def _roc(found: Mapping[str, Details], name: str) -> Iterator[Markup]:
    """The mean over classes of the original and one file, and the classes it ranks worst."""
    own = found[name].roc
    if not own:
        return
    lines: dict[str, Curve] = {}
    if ORIGINAL in found and found[ORIGINAL].roc and name != ORIGINAL:
        lines[_curve_name(ORIGINAL, found[ORIGINAL].roc[0])] = found[ORIGINAL].roc[0]
    for curve in own:
        if len(lines) < MOST_LINES:
            lines[_curve_name(name, curve)] = curve
    summary = f"ROC curves, area under each: {'; '.join(lines)}."
    picture = pictures.roc({key: curve.points for key, curve in lines.items()}, summary=summary)
    what = "label, held or not" if found[name].labels else "class against the rest"
    yield _figure(f"ROC: each {what}", picture, list(lines))


def _curve_name(subject: str, curve: Curve) -> str:
    return f"{subject}, {curve.name}: {curve.auc:.3f}"


def _cosines(found: Mapping[str, Details], subjects: Sequence[str]) -> list[Markup]:
    figures = []
    for subject in subjects:
        item = found[subject].cosines
        if item is not None:
            summary = f"Cosine of {subject}'s embedding of each image to the original's, {item.low:g} to {item.high:g}."
            picture = pictures.histogram(item.counts, item.low, item.high, label="cosine", summary=summary)
            figures.append(_figure(f"{subject}: cosine to the original's embedding", picture))
    return figures


# ---------------------------------------------------------------- tables of other heads


def _labels(view: View, name: str) -> Markup:
    """Each label's numbers in one file, beside the original's F1; the worst first."""
    before = {label.place: label for label in _labels_of(view, ORIGINAL)}
    ranked = sorted(_labels_of(view, name), key=lambda label: (label.f1 is None, label.f1 or 0.0, label.place))
    rows = [_label(view, label, before.get(label.place)) for label in ranked[:MOST_ROWS]]
    headings: list[Child] = [
        tag("button", text, type="button")
        for text in ("Label", "Images", "Average precision", "Precision", "Recall", "F1", "F1 of the original")
    ]
    more = len(view.manifest.classes) - len(rows)
    note = f"Of {len(view.manifest.classes)} labels, the {len(rows)} with the lowest F1." if more > 0 else None
    caption = tag("p", f"Labels of {name}, the worst first.", class_="caption")
    return join(caption, table(headings, rows, label=f"Labels of {name}"), tag("p", note) if note else None)


def _labels_of(view: View, subject: str) -> tuple[Label, ...]:
    found = view.manifest.details.get(subject)
    return found.labels if found else ()


def _label(view: View, label: Label, before: Label | None) -> Markup:
    values = (label.average_precision, label.precision, label.recall, label.f1, before.f1 if before else None)
    cells = [number("–" if value is None else show("f1", value), value) for value in values]
    head = tag("th", confusions.class_name(view, label.place), scope="row", class_="name")
    return tag("tr", head, number(f"{label.images:,}", label.images), cells)


def _columns(view: View, subjects: Sequence[str]) -> Markup:
    """Errors of each predicted number, one block of rows a subject."""
    rows = []
    for subject in subjects:
        for column in view.manifest.details[subject].columns[:MOST_ROWS]:
            numbers = [number(show("mae", value), value) for value in (column.mae, column.rmse, column.bias)]
            named = tag("td", confusions.class_name(view, column.place), class_="name")
            rows.append(tag("tr", tag("th", subject, scope="row", class_="name"), named, numbers))
    headings: list[Child] = [
        tag("button", text, type="button")
        for text in ("", "Number", "Mean absolute error", "Root mean squared error", "Mean error")
    ]
    return table(headings, rows, label="Errors of each number")
