"""Which models of the run answer alike, two by two: agreement above the diagonal, difference below it."""

from __future__ import annotations

from toolkit.checks.equivalence import Equivalence, Pair, Subject
from toolkit.report.markup import Markup, join, tag
from toolkit.report.numbers import MISSING, SPACE, show
from toolkit.report.overview import absent, number, section, table
from toolkit.report.view import View
from toolkit.report.zeros import shortened

AGREEMENT = (0.99, 0.95, 0.85)  # shades, from each on down
DECIBELS = (40.0, 20.0, 12.0)  # floats between kernels keep above the first, sound 8-bit files above the last


def lines(view: View) -> list[str]:
    """A line for each difference that nothing explains, for a terminal."""
    return shortened([f"equivalence: {text}" for text in _unexpected(view)], "equivalence")


def matrix(view: View) -> Markup:
    """The table, what each number is, and what should be nearer than it is."""
    found = view.manifest.equivalence
    title = "Equivalence"
    if found is None:
        said = "No two models of this run answered on the same images, or their answers are gone."
        return absent("matrix", title, said)
    deciding = any(pair.agree is not None for pair in found.pairs)
    above = "Above the diagonal: images decided alike. " if deciding else ""
    of = "" if found.numbers == found.images else f", over the first {found.numbers}"
    lead = (
        f"Every model beside every other on the same {found.images} test images. {above}Below it: SQNR of the logits, "
        f"the earlier model being the signal, and the largest difference of the raw outputs{of}. Shaded: "
        f"below {_list(AGREEMENT, '%', 100) + '; ' if deciding else ''}{_list(DECIBELS, ' dB')}."
    )
    grid = table(_headings(found), _rows(found), label="Equivalence of all models, two by two", class_="equal")
    return section("matrix", title, grid, _left_out(found), _told(view), lead=lead)


def _list(limits: tuple[float, ...], unit: str, factor: float = 1.0) -> str:
    return ", ".join(f"{factor * limit:g}" for limit in limits) + unit


def _headings(found: Equivalence) -> list[Markup]:
    named = (
        join(tag("span", str(place), aria_hidden="true"), tag("span", subject.title, class_="spoken"))
        for place, subject in enumerate(found.subjects, start=1)
    )
    return [Markup("Model"), *named]


def _rows(found: Equivalence) -> list[Markup]:
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    rows = []
    for place, subject in enumerate(found.subjects):
        cells = []
        for other in range(len(found.subjects)):
            if other == place:
                cells.append(tag("td", "–", class_="n quiet"))
            elif other > place:
                cells.append(_agreement(pairs[place, other], found.images))
            else:
                cells.append(_difference(pairs[other, place]))
        rows.append(tag("tr", _name(place, subject), cells))
    return rows


def _name(place: int, subject: Subject) -> Markup:
    where = f"{subject.device}, {subject.runtime}" if subject.device else subject.runtime
    return tag("th", f"{place + 1}{SPACE}{subject.name}", tag("small", where), scope="row", class_="name")


def _agreement(pair: Pair, images: int) -> Markup:
    if pair.agree is None:
        return number("", None)
    share = pair.agree / images
    text = "100%" if pair.agree == images else f"{min(100 * share, 99.99):.2f}%"
    return _cell(text, f"{pair.agree}/{images}", _shade(share, AGREEMENT), pair)


def _difference(pair: Pair) -> Markup:
    if pair.sqnr_db is None or pair.max_abs is None:
        return _cell(MISSING, "no usable answer", "down3", pair)
    text = "equal" if pair.max_abs == 0 else show("sqnr_db", pair.sqnr_db)
    return _cell(text, f"max{SPACE}{pair.max_abs:.2g}", _shade(pair.sqnr_db, DECIBELS), pair)


def _cell(text: str, note: str, shade: str, pair: Pair) -> Markup:
    """An unexpected difference is marked by a sign, and told below."""
    sign = tag("b", f"{SPACE}!", title=pair.unexpected, class_="unexpected") if pair.unexpected else None
    return tag("td", text, sign, tag("small", note), class_=f"n heat {shade}".rstrip())


def _shade(value: float, limits: tuple[float, ...]) -> str:
    below = sum(value < limit for limit in limits)
    return f"down{below}" if below else ""


def _left_out(found: Equivalence) -> Markup | None:
    return tag("p", f"{found.left_out} more are left out.", class_="quiet") if found.left_out else None


def _told(view: View) -> Markup:
    told = _unexpected(view)
    if not told:
        said = "No file differs from its model by more than its scheme explains, nor from itself on another device."
        return tag("p", said)
    return tag("ul", (tag("li", tag("b", "! "), text, ".") for text in told), class_="notes")


def _unexpected(view: View) -> list[str]:
    """Sentences, with the layer where the two begin to differ where it was looked for."""
    found = view.manifest.equivalence
    return (
        [found.sentence(pair) + _layer(view, found.subjects[pair.second]) for pair in found.unexpected()]
        if found
        else []
    )


def _layer(view: View, file: Subject) -> str:
    """What the file's diagnosis says of where it leaves its model."""
    record = view.manifest.diagnoses.get(file.name)
    if record is None or not record.diagnosis.scheme:
        return ""
    first = record.diagnosis.first
    return f"; the first layer to diverge is {first.layer}" if first else f"; {record.diagnosis.diverging()}"
