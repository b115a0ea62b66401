"""Test images that files decide otherwise than the original: how many, and a few of them to look at."""

from __future__ import annotations

import base64

from toolkit.checks.changed import Answer, Changed, ChangedImage, Tally
from toolkit.report.confusions import class_name
from toolkit.report.markup import Markup, join, tag
from toolkit.report.numbers import MISSING, show
from toolkit.report.overview import absent, number, section, table
from toolkit.report.view import View

TITLE = "Images decided otherwise"
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def changed(view: View) -> Markup:
    """Counts for every file, then the images."""
    found = view.manifest.changed
    if found is None:
        return absent("changed", TITLE, f"{MISSING.capitalize()}.")
    if not found.tallies:
        said = f"Left out: {found.left_out}." if found.left_out else "No file has answered on the test images."
        return absent("changed", TITLE, said)
    cards = tag("ul", (_card(view, image) for image in found.images), class_="shots") if found.images else None
    notes = tag("ul", (tag("li", each) for each in _notes(view, found)), class_="notes")
    lead = "Test images on which a file decides otherwise than the original: where accuracy was lost, and won."
    return section("changed", TITLE, _tallies(found), cards, notes, lead=lead)


def _notes(view: View, found: Changed) -> list[str]:
    """What is shown and what is not."""
    changed = max((tally.changed for tally in found.tallies), default=0)
    if not changed:
        return ["Every file decides every test image as the original does."]
    if not found.limit:
        return ["Images are left out, as the recipe's [report] asks for."]
    said = [
        f"At most {found.limit} images, from each file in turn: first those that were right and are wrong now, "
        "the surest of the new decision first. Percentages are the model's own confidence."
    ]
    if view.images is None:
        said.append("Pictures are left out of this page.")
    if found.left_out:
        said.append(f"{found.left_out[:1].upper()}{found.left_out[1:]}.")
    if found.brighter > 1:
        said.append(f"Pictures are shown {found.brighter} times as bright as they are.")
    return said


def _tallies(found: Changed) -> Markup:
    several = len({tally.device for tally in found.tallies}) > 1
    headings = ("File", "Decided otherwise", "Right before, wrong now", "Wrong before, right now", "Other changes")
    rows = [_tally(tally, several=several) for tally in found.tallies]
    return table(headings, rows, label="Images decided otherwise, by file")


def _tally(tally: Tally, *, several: bool) -> Markup:
    device = tag("small", f"on {tally.device}") if several else None
    rest = tally.changed - tally.lost - tally.gained
    share = show("agreement", tally.changed / tally.images if tally.images else None)
    return tag(
        "tr",
        tag("th", tally.subject, device, scope="row", class_="name"),
        number(f"{tally.changed:,} of {tally.images:,}", tally.changed, note=share),
        *(number(f"{count:,}", count) for count in (tally.lost, tally.gained, rest)),
    )


def _card(view: View, image: ChangedImage) -> Markup:
    labels = _names(view, image.labels)
    head = tag("p", tag("span", "label ", class_="quiet"), tag("b", labels), class_="truth")
    answers = tag("ul", (_answer(view, each) for each in (image.original, *image.others)))
    return tag("li", _picture(view, image, labels), tag("div", head, answers, tag("small", image.name)))


def _picture(view: View, image: ChangedImage, labels: str) -> Markup | None:
    """The thumbnail, within the page."""
    content = (view.images or {}).get(image.thumbnail)
    kind = TYPES.get(image.thumbnail[-4:])
    if content is None or kind is None:
        return None
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return tag(
        "img", src=Markup(source), alt=f"Test image {image.name}, labelled {labels}", class_=image.thumbnail[-3:]
    )


def _answer(view: View, answer: Answer) -> Markup:
    word = "right" if answer.right else "wrong"
    sure = "" if answer.confidence is None else f", {100 * answer.confidence:.0f}%"
    where = f" on {answer.device}" if answer.device and len(view.timed_on) > 1 else ""
    sign = tag("span", "✓" if answer.right else "✕", aria_hidden="true", class_=f"sign {word}")
    said = join(sign, tag("span", f"{word}: ", class_="spoken"), _names(view, answer.decided), sure)
    return tag("li", tag("span", f"{answer.subject}{where}", class_="name"), tag("span", said, class_="decision"))


def _names(view: View, places: tuple[int, ...]) -> str:
    return ", ".join(class_name(view, place) for place in places) or "none"
