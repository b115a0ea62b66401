"""Two runs side by side: what was asked, what it ran on, what came out, and which changes are more than noise.

An interval of a change comes from the two intervals by MOVER (Zou and Donner, Statistics in Medicine 27, 2008;
Newcombe 1998, method 10): it takes the two numbers as independent. Accuracies on the same images are not, so the
interval is wider than it need be, never narrower. Times are judged on one and the same host only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from toolkit.core import Interval, Measurement
from toolkit.report.compared import markdown, text
from toolkit.report.numbers import MISSING, TIMES, quantity
from toolkit.runs import DataRecord, Manifest
from toolkit.tensorrt.power import incomparable

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "Retimed",
    "as_dict",
    "change_interval",
    "compare",
    "dotted",
    "markdown",
    "text",
]

Judgement = Literal["better", "worse", "same", "unclear", "changed", "not compared"]
STEADY = frozenset(
    {"size_bytes", "gzip_bytes", "entropy_bytes", "zeros", "clusters", "macs", "parameters", "arena_kib", "arena_bytes"}
)
"""Quantities without chance in them: any difference is a change."""
SURE = 0.9
"""Least confidence of a verdict on a time: that of five processes; two hold a typical one in half of all cases."""
COUNTED = ("samples", "processes", "process_ms", "stable")
"""What a clock gave, in `how`: never the same twice, and no setting."""
SAME_MACHINE = ("python",)
"""Facts of a host that may differ without its being another host."""


@dataclass(frozen=True)
class Difference:
    """A setting, version or fact that is not the same in both; "" where one has none."""

    where: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """One quantity in both runs. interval: of `change` = after - before; None where it cannot be had."""

    subject: str
    name: str
    device: str
    unit: str
    before: float | None
    after: float | None
    change: float | None
    interval: Interval | None
    judgement: Judgement
    reason: str = ""


@dataclass(frozen=True)
class Retimed:
    """One file of both runs, timed in turn on one device. ratio: after / before of a typical round, with its interval.

    same: byte for byte, so that there was nothing to time.
    """

    subject: str
    device: str
    before_ms: float | None
    after_ms: float | None
    ratio: float
    interval: Interval | None
    rounds: int
    judgement: Judgement
    same: bool = False


@dataclass(frozen=True)
class Comparison:
    """What changed from one run to the next. same_host: None where a run does not say what it ran on.

    retimed: files of both, measured in one job; not_retimed: file -> why it could not be.
    """

    before: str
    after: str
    outcomes: tuple[str, str]
    same_host: bool | None
    recipe: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    data: tuple[Difference, ...]
    host: tuple[Difference, ...]
    verdicts: tuple[Difference, ...]
    measurements: tuple[Change, ...]
    retimed: tuple[Retimed, ...] = ()
    not_retimed: Mapping[str, str] = field(default_factory=dict)


def compare(before: Manifest, after: Manifest) -> Comparison:
    """What changed from `before` to `after`."""
    host = _differences(before.host, after.host)
    known = bool(before.host) and bool(after.host)
    same_host = not any(item.where not in SAME_MACHINE for item in host) if known else None
    return Comparison(
        before=before.name,
        after=after.name,
        outcomes=(before.outcome or before.status, after.outcome or after.status),
        same_host=same_host,
        recipe=_differences(before.recipe, after.recipe),
        versions=_differences(before.versions, after.versions),
        data=_differences(_splits(before.data), _splits(after.data)),
        host=host,
        verdicts=_differences(_outcomes(before), _outcomes(after)),
        measurements=tuple(_changes(before, after, same_host)),
    )


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Built-in types only, fit for JSON; numbers that are not finite become None."""
    return {key: _finite(item) for key, item in asdict(comparison).items()}


def dotted(tree: Any, path: str = "") -> dict[str, str]:
    """Nested tables and lists as dotted keys: {"passes.0.ratio": "0.5"}; a list's named tables go by their name."""
    if isinstance(tree, Mapping):
        items = [(str(key), item) for key, item in tree.items()]
    elif isinstance(tree, (list, tuple)):
        items = [(_place(item, place, tree), item) for place, item in enumerate(tree)]
    else:
        return {path: str(tree)}
    found: dict[str, str] = {}
    for key, item in items:
        found |= dotted(item, f"{path}.{key}" if path else key)
    return found or ({path: "empty"} if path else {})


def _place(item: Any, place: int, among: Any) -> str:
    names = [part.get("name") for part in among if isinstance(part, Mapping)]
    named = len(names) == len(among) == len(set(map(str, names))) and all(isinstance(name, str) for name in names)
    return str(item["name"]) if named else str(place)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    old, new = dotted(before), dotted(after)
    keys = dict.fromkeys([*old, *new])
    return tuple(Difference(key, old.get(key, ""), new.get(key, "")) for key in keys if old.get(key) != new.get(key))


def _splits(records: tuple[DataRecord, ...]) -> dict[str, Any]:
    return {item.split: {"fingerprint": item.fingerprint, "images": item.images} for item in records}


def _outcomes(manifest: Manifest) -> dict[str, str]:
    """Verdicts by what they judge. The key is one piece: names hold dots of their own."""
    return {
        " ".join(filter(None, (item.artifact, item.gate, f"on {item.device}" if item.device else ""))): item.outcome
        for item in manifest.verdicts
    }


# ---------------------------------------------------------------- measurements


Key = tuple[str, str, str]  # subject, name, device


def _changes(before: Manifest, after: Manifest, same_host: bool | None) -> Iterator[Change]:
    old, new = _by_key(before), _by_key(after)
    for key in dict.fromkeys([*old, *new]):
        yield _change(key, old.get(key), new.get(key), _obstacle(key, before, after, same_host))


def _by_key(manifest: Manifest) -> dict[Key, Measurement]:
    return {
        (item.subject, item.name, item.device): item for item in manifest.measurements if not math.isnan(item.value)
    }


def _change(key: Key, old: Measurement | None, new: Measurement | None, obstacle: str) -> Change:
    subject, name, device = key
    some = new or old
    unit = some.unit if some else ""
    first, second = old.value if old else None, new.value if new else None
    if old is None or new is None:
        reason = f"{MISSING} in {'the first' if old is None else 'the second'} run"
        return Change(subject, name, device, unit, first, second, None, None, "not compared", reason)
    difference = 0.0 if old.value == new.value else new.value - old.value
    interval = change_interval(old, new)
    obstacle = _modes(old, new) or obstacle or _unlike(old, new)
    judgement, reason = ("not compared", obstacle) if obstacle else _judge(name, difference, interval)
    if not obstacle and (settings := _settings(old, new)):
        reason = "; ".join(filter(None, (reason, settings)))
    return Change(subject, name, device, unit, first, second, difference, interval, judgement, reason)  # type: ignore[arg-type]


def _obstacle(key: Key, before: Manifest, after: Manifest, same_host: bool | None) -> str:
    """Why the two numbers cannot be set against each other at all, or ""."""
    if key[1] in TIMES and not same_host:
        return "the hosts differ" if same_host is False else "a run does not say which host it ran on"
    answered = key[1] not in STEADY and key[1] not in TIMES  # metrics all come from the test images
    if answered and _test_images(before) != _test_images(after):
        return "the test images differ"
    return ""


def _test_images(manifest: Manifest) -> str:
    return next((item.fingerprint for item in manifest.data if item.split == "test"), "")


def _unlike(old: Measurement, new: Measurement) -> str:
    if old.source != new.source:
        return f"{old.source} in one run, {new.source} in the other"
    if old.name in TIMES and old.source != "measured":
        return f"{old.source}, not measured on a device"
    return ""


def _modes(old: Measurement | None, new: Measurement | None) -> str:
    """A device that may draw more power is faster: said before anything else that stands in the way."""
    return incomparable(old.how, new.how) if old and new and new.name in TIMES else ""


def _settings(old: Measurement, new: Measurement) -> str:
    """How the number was got, where that differs: other threads, another runtime."""
    one, two = ({key: item for key, item in each.how.items() if key not in COUNTED} for each in (old, new))
    return ", ".join(f"{item.where}: {item.before or '-'} to {item.after or '-'}" for item in _differences(one, two))


def _judge(name: str, change: float, interval: Interval | None) -> tuple[Judgement, str]:
    if change == 0 and interval is None:
        return "same", ""
    if name in STEADY:
        return direction(name, change), ""
    if interval is None:
        return ("changed" if name not in TIMES else "unclear"), "no interval"
    if name in TIMES and interval.confidence < SURE:
        return "unclear", f"its interval holds at {100 * interval.confidence:.3g}% only: measure in more processes"
    if interval.low <= 0 <= interval.high:
        return ("same" if change == 0 else "unclear"), "" if change == 0 else "the interval holds 0"
    return direction(name, change), ""


def direction(name: str, change: float) -> Judgement:
    """Whether a change of this quantity is for the better."""
    if change == 0:
        return "same"
    better = quantity(name).better
    if not better:
        return "changed"
    return "better" if (change > 0) == (better == "higher") else "worse"


def change_interval(old: Measurement, new: Measurement) -> Interval | None:
    """Interval of new - old by MOVER, at the lower of the two confidences; None without both intervals."""
    a, b = new.interval, old.interval
    if a is None or b is None or not all(map(math.isfinite, (a.low, a.high, b.low, b.high, old.value, new.value))):
        return None
    difference = new.value - old.value
    low = difference - math.hypot(new.value - a.low, b.high - old.value)
    high = difference + math.hypot(a.high - new.value, old.value - b.low)
    return Interval(low, high, min(a.confidence, b.confidence), "MOVER")


def _finite(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _finite(part) for key, part in item.items()}
    if isinstance(item, (list, tuple)):
        return [_finite(part) for part in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item
