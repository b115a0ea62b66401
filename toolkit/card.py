"""The model card of a delivered file, from the run's manifest: what it is, how good, for what, and what is not known.

After Mitchell et al. 2019, "Model Cards for Model Reporting". What no program can know (licences, authors, use) stands
there as the user stated it, or reads "unknown". No dates of its own, so that the same run writes the same card.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from pydantic import ValidationError

from toolkit.contract import Contract, contract_lines
from toolkit.core import Measurement, Verdict
from toolkit.errors import InputError
from toolkit.recipe_file import CardSection
from toolkit.registry import suggest
from toolkit.report.numbers import plain, quantity, show, show_limit
from toolkit.runs import ArtifactRecord, Manifest
from toolkit.sample_code import PACKAGES, RUNTIMES, program_of

UNKNOWN = "unknown"
HERE = "this-machine"
FEW_IMAGES = 1000  # where a 95% interval of an accuracy of 90% is +-1.9 points (Wilson)


def stated(manifest: Manifest, given: Iterable[str]) -> CardSection:
    """What the recipe's [card] says, with `KEY=TEXT` of the command line over it."""
    fields = dict(manifest.recipe.get("card") or {})
    known = list(CardSection.model_fields)
    for item in given:
        key, equals, text = item.partition("=")
        if key not in known or not equals:
            problem = f"is no KEY=TEXT of {', '.join(known)}, got {item!r}"
            raise InputError("--card", problem, suggest(key, known) if equals else 'write --card license="Apache-2.0"')
        fields[key] = text
    try:
        return CardSection.model_validate(fields)
    except ValidationError as error:
        raise InputError("manifest.json", f"its recipe's [card] cannot be read: {error.errors()[0]['msg']}") from error


def model_card(
    manifest: Manifest, record: ArtifactRecord, contract: Contract, said: CardSection, programs: Sequence[str]
) -> str:
    """Markdown. programs: names of the examples beside it."""
    parts = (
        _details(manifest, record, said),
        _use(said),
        _running(record, contract, programs),
        _data(manifest, said),
        _metrics(manifest, record),
        _verdicts(manifest, record),
        _limits(manifest, record, said),
        _licences(said),
    )
    return "\n".join((f"# Model card: {record.name}", "", *(line for part in parts for line in (*part, ""))))


def shortfalls(manifest: Manifest, record: ArtifactRecord) -> Iterator[str]:
    """What is not known of this file, or only in part: sentences."""
    found = [m for m in manifest.measurements if m.subject == record.name]
    sources = {m.device: m.source for m in found if m.device and m.name == "latency_p50_ms"}
    for device, source in sorted(sources.items()):
        if source != "measured":
            yield f"Latency on {device} is {source}, not measured."
    if not sources:
        yield "Its latency was measured on no device."
    test = next((data for data in manifest.data if data.split == "test"), None)
    if test and test.images < FEW_IMAGES:
        yield f"Its score rests on {test.images} test images: look at the interval, not at the number alone."
    counts = manifest.per_class.get(record.name, ())
    rated = [(c["correct"] / c["total"], i) for i, c in enumerate(counts) if c["total"]]
    if rated and manifest.classes:
        share, worst = min(rated)
        yield f"Its worst class is {manifest.classes[worst]!r}: {plain(show('top1', share))} right."
    undecided = [v for v in manifest.verdicts if v.artifact == record.name and v.outcome == "INCONCLUSIVE"]
    if undecided:
        yield f"Not settled: {', '.join(sorted({v.gate for v in undecided}))}."
    yield "Images unlike the test images, and whether it treats groups of people alike, were not looked into."


def _details(manifest: Manifest, record: ArtifactRecord, said: CardSection) -> Iterator[str]:
    source = manifest.stages[0].parameters if manifest.stages else {}
    steps = [stage.use for stage in manifest.stages if stage.kind == "pass" and stage.name in _line(manifest, record)]
    made = ", ".join(f"{name} {manifest.versions[name]}" for name in ("edgekit",) if name in manifest.versions)
    yield "## Details"
    yield ""
    yield f"- File: `{PurePath(record.path).name}`, {record.format}, {record.scheme}, {record.size_bytes:,} bytes"
    yield f"- sha256: `{record.sha256}`"
    yield f"- Made from: {_text(source.get('file')) or _text(source.get('use'))}, sha256 {_text(source.get('sha256'))}"
    yield f"- By: recipe {manifest.name}, seed {manifest.seed}, started {manifest.started}; {made or 'edgekit'}"
    yield f"- Passes: {', '.join(steps) or 'none'}"
    yield f"- Authors: {said.authors or UNKNOWN}"
    yield from (f"- Note: {note}" for note in record.notes)


def _use(said: CardSection) -> Iterator[str]:
    yield "## Intended use"
    yield ""
    yield said.intended_use or UNKNOWN


def _running(record: ArtifactRecord, contract: Contract, programs: Sequence[str]) -> Iterator[str]:
    yield "## How to run it"
    yield ""
    yield from (f"    python {name} reference/0.bmp" for name in programs)
    yield ""
    needed = [PACKAGES[runtime] for runtime in RUNTIMES[record.format] if program_of(runtime) in programs]
    if needed:
        yield f"They need numpy, pillow and: {', '.join(needed)}; one each."
        yield ""
    yield f"What it takes and gives, `{PurePath(record.path).name}.json` in words:"
    yield ""
    yield from (f"    {line}" for line in contract_lines(contract))


def _data(manifest: Manifest, said: CardSection) -> Iterator[str]:
    yield "## Data"
    yield ""
    yield "| split | images | source | fingerprint |"
    yield "|---|---|---|---|"
    for data in manifest.data:
        yield f"| {data.split} | {data.images:,} | {_cell(_place(data.source))} | `{data.fingerprint[:16]}` |"
    yield ""
    yield "What the model was trained on before this run: unknown, but for what its authors say."
    if manifest.classes:
        shown = ", ".join(manifest.classes[:20]) + (", ..." if len(manifest.classes) > 20 else "")
        yield f"Classes ({len(manifest.classes)}): {_cell(shown)}."
    yield f"Licence of the data: {said.data_license or UNKNOWN}."


def _metrics(manifest: Manifest, record: ArtifactRecord) -> Iterator[str]:
    yield "## Metrics"
    yield ""
    yield "| what | value | interval | on | how got |"
    yield "|---|---|---|---|---|"
    for found in manifest.measurements:
        if found.subject == record.name:
            value = plain(show(found.name, found.value, found.unit))
            yield f"| {_label(found.name)} | {value} | {_interval(found)} | {found.device or '-'} | {found.source} |"
    if any(found.subject == record.name and found.device == HERE for found in manifest.measurements):
        yield ""
        yield f"`{HERE}` was {_machine(manifest)}."


def _verdicts(manifest: Manifest, record: ArtifactRecord) -> Iterator[str]:
    yield "## Verdicts"
    yield ""
    verdicts = [verdict for verdict in manifest.verdicts if verdict.artifact == record.name]
    if not verdicts:
        yield "No gate judged it."
        return
    yield "| gate | limit | on | verdict | why |"
    yield "|---|---|---|---|---|"
    yield from (_row(verdict) for verdict in verdicts)


def _row(verdict: Verdict) -> str:
    limit = plain(show_limit(verdict.gate, verdict.limit))
    return f"| {_label(verdict.gate)} | {limit} | {verdict.device} | {verdict.outcome} | {_cell(verdict.reason)} |"


def _limits(manifest: Manifest, record: ArtifactRecord, said: CardSection) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if said.limits:
        yield f"- {said.limits}"
    yield from (f"- {sentence}" for sentence in shortfalls(manifest, record))
    yield from (f"- Warning of the run: {warning}" for warning in manifest.warnings)


def _licences(said: CardSection) -> Iterator[str]:
    yield "## Licences"
    yield ""
    yield f"- Model: {said.license or UNKNOWN}"
    yield f"- Data: {said.data_license or UNKNOWN}"
    yield "- The example programs: Apache-2.0, as Edgekit, which wrote them"


def _machine(manifest: Manifest) -> str:
    """The computer of the run, without its name."""
    host = manifest.host
    return f"{host.get('cpu') or UNKNOWN}, {host.get('cores') or UNKNOWN} cores ({host.get('machine') or UNKNOWN})"


def _line(manifest: Manifest, record: ArtifactRecord) -> set[str]:
    """Names of the stages that led to a file."""
    parents = {stage.name: stage.parent for stage in manifest.stages}
    found, name = set[str](), record.stage
    while name and name not in found:
        found.add(name)
        name = parents.get(name, "")
    return found


def _interval(found: Measurement) -> str:
    if found.interval is None:
        return "-"
    low, high = (plain(show(found.name, end, found.unit)) for end in (found.interval.low, found.interval.high))
    sure = f" at {100 * found.interval.confidence:g}%" if found.interval.confidence else ""
    return f"{low} .. {high}{sure}"


def _label(name: str) -> str:
    return f"{quantity(name).label} (`{name}`)"


def _place(source: str) -> str:
    """Where data came from without the folders of whoever ran it."""
    return PurePath(source).name if source.startswith(("/", "~")) else source


def _text(value: object) -> str:
    return str(value) if value else UNKNOWN


def _cell(text: str) -> str:
    """Inside a table: no line ends, no column ends."""
    return " ".join(text.split()).replace("|", "\\|")
