"""Which classes are taken for which: matrices of the original and a file, what changed, and the worst classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.checks.details import WHOLE_MATRIX, Confusion
from toolkit.report import pictures
from toolkit.report.markup import Child, Markup, join, tag
from toolkit.report.numbers import MINUS, show, show_change
from toolkit.report.overview import number, table
from toolkit.report.view import ORIGINAL, View

WORST = 10  # rows of the worst classes
PAIRS = 15  # rows of the most frequent confusions
SAID = 3  # confusions in a picture's text

Counts = Mapping[tuple[int, int], int]  # (label, decision) -> images


def class_name(view: View, place: int) -> str:
    """A class by its index."""
    names = view.manifest.classes
    return names[place] if place < len(names) else str(place)


def of(view: View, name: str) -> Markup | None:
    """Everything of one file beside the original."""
    if _confusion(view, name) is None:
        return None
    return join(_matrices(view, name), _pairs(view, name), _worst(view, name))


def others(view: View, name: str) -> Markup | None:
    """The same of every other file, folded."""
    rest = [item.name for item in view.delivered if item.name != name and _confusion(view, item.name) is not None]
    folds = [
        tag("details", tag("summary", tag("b", each), tag("span", "confusions and worst classes")), of(view, each))
        for each in rest
    ]
    return tag("div", folds) if folds else None


def _confusion(view: View, subject: str) -> Confusion | None:
    found = view.manifest.details.get(subject)
    return found.confusion if found else None


def counts(view: View, subject: str) -> Counts:
    """Images of each (label, decision) that is known, right ones too."""
    found = _confusion(view, subject)
    if found is None:
        return {}
    known = {(row, column): images for row, column, images in found.cells}
    right = view.manifest.per_class.get(subject, ())
    return known | {(place, place): each["correct"] for place, each in enumerate(right) if each.get("correct")}


# ---------------------------------------------------------------- matrices


def _matrices(view: View, name: str) -> Markup | None:
    """Original, file, and file less original; of few enough classes to draw."""
    classes = view.manifest.classes
    if len(classes) > WHOLE_MATRIX:
        return None
    subjects = list(dict.fromkeys(each for each in (ORIGINAL, name) if _confusion(view, each) is not None))
    figures = [_matrix(view, subject) for subject in subjects]
    if len(subjects) == 2:
        figures.append(_change(view, name))
    note = tag("p", "Rows are labels, columns decisions. Shade: the share of the label's images.", class_="quiet")
    return join(note, tag("div", figures, class_="charts small matrices"))


def _matrix(view: View, subject: str) -> Markup:
    known, classes = counts(view, subject), view.manifest.classes
    totals = _totals(view, subject)
    cells = tuple(
        pictures.Cell(
            row,
            column,
            f"{images:,}",
            f"{class_name(view, row)} as {class_name(view, column)}: {images:,} of {totals.get(row, images):,}",
            images / max(1, totals.get(row, images)),
            "right" if row == column else "wrong",
        )
        for (row, column), images in sorted(known.items())
    )
    summary = f"Confusion matrix of {subject}. {_said(view, known)}"
    return tag("figure", tag("figcaption", subject), pictures.matrix(cells, classes, summary=summary))


def _change(view: View, name: str) -> Markup:
    before, after = counts(view, ORIGINAL), counts(view, name)
    changed = {key: after.get(key, 0) - before.get(key, 0) for key in sorted(before.keys() | after.keys())}
    changed = {key: value for key, value in changed.items() if value}
    most = max(map(abs, changed.values()), default=1)
    cells = tuple(
        pictures.Cell(
            row,
            column,
            _signed(value),
            f"{class_name(view, row)} as {class_name(view, column)}: {_signed(value)} images",
            abs(value) / most,
            "better" if (value > 0) == (row == column) else "worse",
        )
        for (row, column), value in changed.items()
    )
    summary = f"What changed from the original to {name}: " + (
        "; ".join(cell.title for cell in sorted(cells, key=lambda cell: -cell.shade)[:SAID]) or "nothing"
    )
    title = f"{name} less the original: images"
    return tag("figure", tag("figcaption", title), pictures.matrix(cells, view.manifest.classes, summary=f"{summary}."))


def _totals(view: View, subject: str) -> dict[int, int]:
    return {place: each["total"] for place, each in enumerate(view.manifest.per_class.get(subject, ()))}


def _said(view: View, known: Counts) -> str:
    """The most frequent confusions in words."""
    wrong = sorted(((images, key) for key, images in known.items() if key[0] != key[1]), reverse=True)[:SAID]
    if not wrong:
        return "No image is confused."
    parts = (f"{class_name(view, row)} as {class_name(view, column)} {images:,}" for images, (row, column) in wrong)
    return f"Most frequent: {'; '.join(parts)}."


def _signed(value: int) -> str:
    return f"+{value:,}" if value > 0 else f"{MINUS}{-value:,}"


# ---------------------------------------------------------------- tables


def _pairs(view: View, name: str) -> Markup | None:
    """The most frequent confusions, where there are too many classes for a picture to name them."""
    if len(view.manifest.classes) <= pictures.NAMED:
        return None
    before, after = counts(view, ORIGINAL), counts(view, name)
    wrong = [(key, images) for key, images in after.items() if key[0] != key[1]]
    ranked = sorted(wrong, key=lambda item: (-item[1], item[0]))[:PAIRS]
    if not ranked:
        return tag("p", f"{name} confuses no image.", class_="quiet")
    known = _confusion(view, ORIGINAL)
    whole = known is not None and not known.rest
    rows = [
        tag(
            "tr",
            tag("th", class_name(view, row), scope="row", class_="name"),
            tag("td", class_name(view, column), class_="name"),
            number(f"{images:,}", images),
            number(f"{before.get((row, column), 0):,}" if whole or (row, column) in before else "not kept"),
        )
        for (row, column), images in ranked
    ]
    headings: list[Child] = ["Label", "Decided as", f"Images, {name}", "Images, original"]
    caption = tag("p", f"Most frequent confusions of {name}.", class_="caption")
    return join(caption, table(headings, rows, label=f"Confusions of {name}"))


def _worst(view: View, name: str) -> Markup | None:
    """Classes of one file with the lowest recall."""
    rows_of, confusion = view.manifest.per_class.get(name, ()), _confusion(view, name)
    if confusion is None:
        return None
    base, after = view.manifest.per_class.get(ORIGINAL, ()), counts(view, name)
    found = [(each["correct"] / each["total"], place) for place, each in enumerate(rows_of) if each.get("total")]
    ranked = sorted(found)[:WORST]
    rows = [_worst_row(view, place, rows_of, base, confusion=confusion, known=after) for _, place in ranked]
    headings: list[Child] = [
        tag("button", text, type="button")
        for text in ("Class", "Images", "Recall", "Change", "Precision", "F1", "Mostly taken for")
    ]
    of_all = f", of {len(found)}" if len(found) > len(rows) else ""
    caption = tag("p", f"Worst classes of {name} by recall{of_all}.", class_="caption")
    return join(caption, table(headings, rows, label=f"Worst classes of {name}"))


def _worst_row(
    view: View,
    place: int,
    rows_of: Sequence[Mapping[str, int]],
    base: Sequence[Mapping[str, int]],
    *,
    confusion: Confusion,
    known: Counts,
) -> Markup:
    right, total = rows_of[place]["correct"], rows_of[place]["total"]
    decided = confusion.decided[place] if place < len(confusion.decided) else 0
    recall, precision = right / total, right / decided if decided else 0.0
    f1 = 2 * right / (total + decided) if total + decided else 0.0
    before = base[place]["correct"] / base[place]["total"] if place < len(base) and base[place].get("total") else None
    change = None if before is None else recall - before
    taken = sorted(((n, column) for (row, column), n in known.items() if row == place != column), reverse=True)[:2]
    words = ", ".join(f"{class_name(view, column)} ({n:,})" for n, column in taken) or "–"
    return tag(
        "tr",
        tag("th", class_name(view, place), scope="row", class_="name"),
        number(f"{total:,}", total),
        number(show("recall", recall), recall),
        number("–" if change is None else show_change("recall", change), change),
        number(show("precision", precision), precision),
        number(show("f1", f1), f1),
        tag("td", words),
    )
