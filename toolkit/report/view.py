"""Questions put to a manifest: which number, against which baseline, what each stage changed, who passed.

A manifest may lack any number; every answer here can be None, and nothing is guessed in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from toolkit.core import Measurement, Outcome
from toolkit.runs import ArtifactRecord, Manifest, StageRecord

ORIGINAL = "original"
SCORES = ("top1", "mean_average_precision", "retrieval_at_1", "mae", "cosine")
"""What a model is judged by, whatever its head: the first of these that was measured."""
COSTS = ("size_bytes", "macs", "latency_p50_ms")
WORST_FIRST: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


@dataclass(frozen=True)
class Share:
    """What one stage did to one quantity: value of its output, and the change since the subject `since`.

    `since` is the nearest ancestor with a number. Where that is not the stage's own parent, `skipped` names
    the stages between: their share is in this change. clear: False where the intervals of two times overlap.
    """

    value: float | None = None
    change: float | None = None
    since: str = ""
    skipped: tuple[str, ...] = ()
    clear: bool = True


@dataclass(frozen=True)
class Step:
    """One row of the waterfall: a stage's output or a delivered file.

    group: "" for the trunk, else the variant. same_graph: a stage that changed nothing itself, only what the
    exporter is to do.
    """

    subject: str
    title: str
    group: str
    parent: str
    delivered: bool
    same_graph: bool
    shares: dict[str, Share]


@dataclass(frozen=True)
class Gain:
    """One quantity of an artifact beside its baseline.

    clear: False where the two intervals overlap, None where one has no interval. measured: False where the
    numbers are emulated, estimated or quoted.
    """

    name: str
    baseline: str
    before: float
    after: float
    clear: bool | None = None
    measured: bool = True


@dataclass(frozen=True)
class View:
    """A manifest, indexed. images: thumbnails by their path in the run directory; None: leave images out."""

    manifest: Manifest
    images: Mapping[str, bytes] | None = None

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Measurement]]:
        index: dict[tuple[str, str], list[Measurement]] = {}
        for item in self.manifest.measurements:
            if not math.isnan(item.value):
                index.setdefault((item.subject, item.name), []).append(item)
        return index

    @cached_property
    def score(self) -> str:
        """Name of the number the run's models are judged by."""
        measured = {name for _, name in self._index}
        return next((name for name in SCORES if name in measured), SCORES[0])

    @cached_property
    def loss(self) -> str:
        """Name of what that number loses against the original."""
        return "mae_increase" if self.score == "mae" else f"{self.score}_drop"

    @cached_property
    def waterfall(self) -> tuple[str, ...]:
        """The quantities followed stage by stage."""
        return (self.score, *COSTS)

    def find(self, subject: str, name: str, device: str = "") -> Measurement | None:
        """The number measured on `device`, else the one that needs no device; any device where "" is asked for."""
        found = self._index.get((subject, name), [])
        if not device:
            return found[0] if found else None
        by_device = {item.device: item for item in reversed(found)}
        return by_device.get(device) or by_device.get("")

    @cached_property
    def delivered(self) -> tuple[ArtifactRecord, ...]:
        """Artifacts of the recipe's variants, without the reference files."""
        return tuple(item for item in self.manifest.artifacts if item.variant != ORIGINAL)

    @cached_property
    def references(self) -> tuple[ArtifactRecord, ...]:
        """The original, written unchanged as a file to compare with."""
        return tuple(item for item in self.manifest.artifacts if item.variant == ORIGINAL)

    @cached_property
    def timed_on(self) -> tuple[str, ...]:
        """Devices with a latency, in the manifest's order."""
        return tuple(dict.fromkeys(item.device for item in self.manifest.measurements if item.name == "latency_p50_ms"))

    def first_device(self, name: str) -> str:
        """Where the one number to speak of was measured, for quantities that depend on the device; else ""."""
        return self.timed_on[0] if name.startswith("latency_") and self.timed_on else ""

    def devices_of(self, artifact: str) -> tuple[str, ...]:
        """Devices the artifact was measured on or judged for; ("",) where there is none."""
        judged = [item.device for item in self.manifest.verdicts if item.artifact == artifact]
        measured = [item.device for item in self.manifest.measurements if item.subject == artifact]
        return tuple(dict.fromkeys(filter(None, [*measured, *judged]))) or ("",)

    def outcome(self, artifact: str, device: str = "") -> Outcome | None:
        """The worst verdict on `artifact` (on `device`, and those that need none); None without a gate."""
        found = {
            item.outcome
            for item in self.manifest.verdicts
            if item.artifact == artifact and (not device or item.device in (device, ""))
        }
        return next((outcome for outcome in WORST_FIRST if outcome in found), None)

    def baseline(self, artifact: ArtifactRecord, name: str, device: str = "") -> Measurement | None:
        """The original's number: of its file of the same format, else of any, else of the model itself."""
        alike = sorted(self.references, key=lambda item: item.format != artifact.format)
        subjects = [*(item.name for item in alike if item.name != artifact.name), ORIGINAL]
        return next((found for subject in subjects if (found := self.find(subject, name, device))), None)

    def number(self, artifact: ArtifactRecord, name: str, device: str = "") -> Measurement | None:
        """The artifact's own number, or, for MACs and parameters, that of the model it was written from."""
        found = self.find(artifact.name, name, device)
        if found is None and name in ("macs", "parameters"):
            found = self._of_stage(artifact.stage, name)
        if found is None and name == "size_bytes":
            return Measurement(artifact.name, name, artifact.size_bytes, "B", "computed", how={"from": "file"})
        return found

    def gain(self, artifact: ArtifactRecord, name: str, device: str = "") -> Gain | None:
        """`name` of the artifact beside its baseline, where both are known."""
        after, before = self.number(artifact, name, device), self.baseline(artifact, name, device)
        if after is None or before is None:
            return None
        return self.beside(before, after)

    def beside(self, before: Measurement, after: Measurement) -> Gain:
        """One quantity of two subjects."""
        measured = {before.source, after.source} <= {"measured", "computed"}
        return Gain(after.name, before.subject, before.value, after.value, _apart(before, after), measured)

    def drop(self, artifact: ArtifactRecord, device: str = "") -> Measurement | None:
        """Loss of the score against the original: as measured on paired images, else the plain difference."""
        paired = self.find(artifact.name, self.loss, device)
        before, after = self.find(ORIGINAL, self.score), self.find(artifact.name, self.score, device)
        if paired or before is None or after is None or (self.score == "mae" and not before.value):
            return paired
        lost = after.value / before.value - 1 if self.score == "mae" else before.value - after.value
        how = {"from": "the two numbers, not paired"}
        return Measurement(artifact.name, self.loss, lost, "", "computed", after.device, how=how)

    def headline(self) -> ArtifactRecord | None:
        """The artifact the first lines speak of: the smallest among those with the best outcome."""
        order: tuple[Outcome | None, ...] = ("PASS", None, "INCONCLUSIVE", "FAIL")
        ranked = sorted(self.delivered, key=lambda item: (order.index(self.outcome(item.name)), item.size_bytes))
        return ranked[0] if ranked else None

    # ---------------------------------------------------------------- the waterfall

    @cached_property
    def _stages(self) -> dict[str, StageRecord]:
        return {stage.name: stage for stage in self.manifest.stages}

    def _of_stage(self, stage: str, name: str) -> Measurement | None:
        """A stage's own number; the source's is the original's; counts stand where the graph was kept."""
        for ancestor in self._ancestors(stage):
            record, found = self._stages[ancestor], self.find(ancestor, name)
            if found or record.kind == "source":
                return found or self.find(ORIGINAL, name)
            if name not in ("macs", "parameters") or not record.same_graph:
                return None
        return None

    def _ancestors(self, stage: str) -> Iterator[str]:
        seen: set[str] = set()
        while stage in self._stages and stage not in seen:
            seen.add(stage)
            yield stage
            stage = self._stages[stage].parent

    def steps(self) -> tuple[Step, ...]:
        """The waterfall: trunk first, then each variant's passes and files; each change against its own parent."""
        steps = [self._stage_step(stage) for stage in self.manifest.stages if stage.kind in ("source", "pass")]
        steps += [self._file_step(artifact) for artifact in self.manifest.artifacts]
        groups = list(dict.fromkeys((*(item.variant for item in self.manifest.artifacts), *(x.group for x in steps))))
        order = {
            group: place for place, group in enumerate(sorted(groups, key=lambda name: (name != "", name != ORIGINAL)))
        }
        return tuple(sorted(steps, key=lambda step: (order[step.group], step.delivered)))

    def _stage_step(self, stage: StageRecord) -> Step:
        title = ORIGINAL if stage.kind == "source" else stage.use
        shares = {name: self._share(stage.name, stage.parent, name, self.stage_format) for name in self.waterfall}
        group = self._variant_of(stage.name)
        return Step(stage.name, title, group, stage.parent, delivered=False, same_graph=stage.same_graph, shares=shares)

    def _variant_of(self, stage: str) -> str:
        """The variant a stage belongs to: `phone` of `phone.03-quantize`; "" for the trunk."""
        names = {item.variant for item in self.manifest.artifacts}
        given = self.manifest.recipe.get("variants") or ()
        names |= {str(item["name"]) for item in given if isinstance(item, Mapping) and "name" in item}
        return max((name for name in names if name and stage.startswith(f"{name}.")), key=len, default="")

    def _file_step(self, artifact: ArtifactRecord) -> Step:
        shares = {}
        for name in self.waterfall:
            share = self._share(artifact.name, artifact.stage, name, artifact.format)
            shares[name] = self._beside_reference(artifact, name, share)
        title = f"{artifact.format}, {artifact.scheme}"
        group, parent = artifact.variant, artifact.stage
        return Step(artifact.name, title, group, parent, delivered=True, same_graph=False, shares=shares)

    @cached_property
    def stage_format(self) -> str:
        """The format in which the models of stages were weighed and timed, "" where they were not."""
        found = (item.how.get("format") for item in self.manifest.measurements if item.subject in self._stages)
        return next((str(item) for item in found if item), "")

    def _share(self, subject: str, parent: str, name: str, format: str) -> Share:
        """What a stage or file did. format: of the files that its size and latency may be set against."""
        after = self._measured(subject, name)
        if after is None:
            return Share()
        skipped: list[str] = []
        for ancestor in self._ancestors(parent):
            before = self._measured(ancestor, name)
            if before is not None and before.how.get("format", format) == format:
                return _change(before, after, ancestor, tuple(skipped))
            skipped.append(ancestor)
        return Share(after.value)

    def _beside_reference(self, artifact: ArtifactRecord, name: str, share: Share) -> Share:
        """Where no stage on the way has the number (latency, mostly): the change since the original's own file."""
        if share.value is None or share.since or artifact.variant == ORIGINAL:
            return share
        before = self.baseline(artifact, name, self.first_device(name))
        if before is None:
            return share
        skipped = tuple(item for item in self._ancestors(artifact.stage) if self._stages[item].kind != "source")
        found = self.number(artifact, name, self.first_device(name))
        return _change(before, found, before.subject, skipped) if found else share

    def _measured(self, subject: str, name: str) -> Measurement | None:
        device = self.first_device(name)
        artifact = next((item for item in self.manifest.artifacts if item.name == subject), None)
        if artifact:
            return self.number(artifact, name, device)
        return self.find(subject, name, device) or self._of_stage(subject, name) or self._as_file(subject, name, device)

    def _as_file(self, subject: str, name: str, device: str) -> Measurement | None:
        """Of the original the number of its file in the format of the stages' files."""
        alike = next((item for item in self.references if item.format == self.stage_format), None)
        if alike is None or subject not in self._stages or self._stages[subject].kind != "source":
            return None
        found = self.number(alike, name, device)
        return replace(found, how={**found.how, "format": self.stage_format}) if found else None


def _change(before: Measurement, after: Measurement, since: str, skipped: tuple[str, ...]) -> Share:
    """Scores are paired, so that their intervals may overlap where the difference is clear; times are not."""
    clear = not after.name.startswith("latency_") or after.value == before.value or _apart(before, after) is not False
    return Share(after.value, after.value - before.value, since, skipped, clear)


def _apart(before: Measurement, after: Measurement) -> bool | None:
    if before.interval is None or after.interval is None:
        return None
    return before.interval.high < after.interval.low or after.interval.high < before.interval.low
