"""The text of a first recipe: what a model, a device and images come to, every choice with a comment that says why.

It is a beginning, to be read and changed. What the device runs is looked up in its profile, never guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from toolkit import registry
from toolkit.core import Kind, Meaning, QuantSpec, Scheme
from toolkit.devices import DeviceProfile
from toolkit.errors import UnsupportedError
from toolkit.profiles import planned

CALIBRATION = 200  # images: LiteRT's guide asks for about 100 to 500
TRAINABLE = 1000  # images from which on passes train: fewer leave some hundreds to learn from once others judge
FLASH = 0.5  # of a microcontroller's, for the model: the program needs some
ARENA = 0.6  # of its RAM, for the tensor arena: the program needs the rest
KIB = 1024
SCHEMES: tuple[Scheme, ...] = ("int8", "float16", "float32")  # the smallest first
PRESETS = "raw (0..255), unit (0..1), signed (-1..1), imagenet or caffe"
SUBSETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"test": ("test",), "selection": ("selection", "val", "valid", "validation", "eval")}
)  # split -> what data calls such a part of itself


@dataclass(frozen=True)
class Seen:
    """A model as it was looked at.

    source: as the recipe writes it. size: height and width of its images, None where it leaves them open. scaled: the
    layer that scales pixels inside, "" for none. prunable: whether any channel can be removed.
    """

    source: str
    kind: Kind
    head: Meaning
    outputs: int | None
    parameters: int | None
    macs: int | None = None
    size: tuple[int | None, int | None] = (None, None)
    scaled: str = ""
    prunable: bool = False


@dataclass(frozen=True)
class Images:
    """Images as they were found. table: [data] as the recipe writes it; subsets: parts the data names, their images."""

    table: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0
    classes: int = 0
    subsets: Mapping[str, int] = field(default_factory=dict)

    def part(self, split: str) -> str | None:
        """The data's own part for a split, where it leaves at least half of the images to the others."""
        return next((name for name in SUBSETS[split] if 0 < 2 * self.subsets.get(name, 0) <= self.count), None)


@dataclass(frozen=True)
class Form:
    """A kind of file that the device runs of such a model: what writes it, what runs it."""

    scheme: Scheme
    exporter: str
    runtime: str
    symmetric: bool = False


def forms(kind: Kind, profile: DeviceProfile) -> dict[Scheme, Form]:
    """Scheme -> the form in which the device's preferred runtime takes it, of those that can be written."""
    found = {scheme: _form(kind, profile, scheme) for scheme in SCHEMES}
    return {scheme: form for scheme, form in found.items() if form is not None}


def _form(kind: Kind, profile: DeviceProfile, scheme: Scheme) -> Form | None:
    for runtime in (each for each in profile.runtimes if scheme in each.schemes):
        symmetric = scheme == "int8" and runtime.needs("symmetric_only") is not None
        quant = QuantSpec(scheme, flavour="symmetric" if symmetric else "asymmetric")
        for name in registry.names("exporters"):
            exporter = registry.load("exporters", name)()
            able = exporter.format in runtime.formats and (name == "tensorrt") == (runtime.use == "tensorrt")
            if able and kind in exporter.takes and not _refused(exporter, quant, kind):
                return Form(scheme, name, runtime.use, symmetric)
    return None


def _refused(exporter: Any, quant: QuantSpec, kind: Kind) -> str | None:
    refusal: str | None = exporter.refusal(quant) if kind == "keras" else exporter.refusal(quant, kind)
    return refusal


def first_recipe(model: Seen, profile: DeviceProfile, device: str, images: Images | None) -> str:
    """The recipe. device: as the recipe writes it.

    UnsupportedError: nothing that the device runs can be made of such a model.
    """
    able = forms(model.kind, profile)
    if not able:
        runs = "; ".join(f"{'/'.join(r.formats)} as {', '.join(r.schemes)}" for r in profile.runtimes)
        fix = f"start from a Keras model, or name a device that runs what this becomes; {profile.name} runs {runs}"
        raise UnsupportedError(profile.name, f"runs no file that can be made of this {model.kind} model", fix)
    return "\n".join(_Lines(model, profile, device, images, able).all()) + "\n"


@dataclass(frozen=True)
class _Lines:
    model: Seen
    profile: DeviceProfile
    device: str
    images: Images | None
    able: Mapping[Scheme, Form]

    def all(self) -> Iterator[str]:
        for section in (
            self._top,
            self._source,
            self._data,
            self._splits,
            *self._variants(),
            self._budget,
            self._target,
        ):
            yield from section()

    @property
    def trains(self) -> bool:
        """Whether a variant is trained: a Keras graph, images enough, and a device for the int8 it is trained for."""
        enough = self.images is not None and self.images.count >= TRAINABLE
        return self.model.kind == "keras" and enough and "int8" in self.able

    @property
    def small(self) -> bool:
        """Whether there is a device without an operating system to write for."""
        return any(runtime.use == "tflite-micro" for runtime in self.profile.runtimes)

    # ------------------------------------------------------------ what there is

    def _top(self) -> Iterator[str]:
        title = self.profile.title or self.profile.name
        trained = ", and int8 of a model that is trained further" if self.trains else ""
        yield f"# {title}: {' and '.join(self._schemes())}, nothing trained{trained}."
        yield "# `edgekit plan` says what it would do, `edgekit run` does it; docs/recipes.md says more."
        yield "schema = 1"
        yield f"description = {_text(f'A first recipe for {self.profile.name}')}"

    def _source(self) -> Iterator[str]:
        model = self.model
        counts = ((model.parameters, "parameters"), (model.macs, "multiply-accumulates an image"))
        known = ", ".join(f"{number:,} {what}" for number, what in counts if number is not None)
        yield from ("", "[model]")
        if known:
            yield f"# {known}."
        yield f"source = {_text(model.source)}"
        seen = f"as its last layer shows ({model.head})" if model.head != "tensor" else "found when it is read"
        yield f"# What its output means, {seen}; say so where that is wrong."
        yield 'head = "auto"'
        if None in model.size:
            yield "# The model leaves height and width open: CHECK. 224 x 224 is what ImageNet's networks are given."
            yield f"input_shape = [{', '.join(str(side or 224) for side in model.size)}]"

    def _data(self) -> Iterator[str]:
        yield from ("", "[data]")
        if self.images is None:
            yield "# Give images with --data: a folder of a folder for each class, a .csv, .npz, ... (docs/data.md)."
        else:
            yield f"# {self.images.count:,} images, {self.images.classes} {self._what()}."
            yield from (f"{key} = {_value(value)}" for key, value in self.images.table.items())
        if self.model.scaled:
            yield f"# The model takes pixels of 0..255 and scales them itself (its layer {self.model.scaled})."
        else:
            yield f"# CHECK: what the model was trained on: {PRESETS}."
            yield "# A file does not say it, and a wrong choice costs the accuracy of the original as well."
        yield 'preprocess = "raw"'

    def _what(self) -> str:
        return {"regression": "numbers each", "sigmoids": "labels"}.get(self.model.head, "classes")

    def _splits(self) -> Iterator[str]:
        images = self.images
        yield from ("", "[data.splits]")
        if self.trains and images is not None:
            own, share = images.part("selection"), 0.1
            yield "# Training keeps its best epoch by these, so that the test images choose nothing."
            yield f"selection = {_value(own or share)}"
        if why := CALIBRATING.get(next(iter(self.able))):
            yield from (f"# {why}", f"calibration = {self._calibration()}")
        own = images.part("test") if images else None
        if self.trains:
            yield "# Images that judge, once; training gets all that is left. Name images that the model itself was not"
            yield "# trained on, with [data.held_out] or as a subset of the data, or it looks better than it is."
            yield f"test = {_value(own or 0.2)}"
        else:
            yield f"# Images that judge, once{'' if own else ': all others'}. Nothing is trained."
            yield f"test = {_value(own or 'rest')}"

    def _calibration(self) -> int:
        """Images for ranges: no more than a quarter of what there is."""
        return min(CALIBRATION, max(1, self.images.count // 4)) if self.images else CALIBRATION

    # ------------------------------------------------------------ what is made

    def _variants(self) -> Iterator[Any]:
        yield from (lambda scheme=scheme: self._variant(scheme) for scheme in self._schemes())
        if self.trains:
            yield self._pruned if self.model.prunable else self._trained

    def _schemes(self) -> Iterator[Scheme]:
        """The smallest scheme; beside int8 also float16, where a GPU computes in it."""
        yield next(iter(self.able))
        half = self.able.get("float16")
        if "int8" in self.able and half and half.runtime == "tensorrt":
            yield "float16"

    def _variant(self, scheme: Scheme) -> Iterator[str]:
        form, words = self.able[scheme], WORDS[scheme]
        yield from _variant_head(scheme, f"{words}, no training", form)
        if scheme != "float32":
            yield from self._rounding(form)

    def _pruned(self) -> Iterator[str]:
        """Fewer channels, taught by the original, then int8."""
        form = self.able["int8"]
        words = "Fewer channels, taught by the original, in 8 bits: most of the run's time is spent here"
        yield from _variant_head("small", words, form)
        key, share, why = self._cut()
        yield from ("", "[[variants.passes]]", 'use = "prune"', f"# {why}", f"{key} = {share:g}")
        if self.model.head in ("logits", "softmax", "sigmoid"):
            yield "# Channels that the answers on training images depend on least go first, wherever they are."
            yield from ('importance = "fisher"', 'ranking = "global"')
        yield "# What is left is refitted to give the feature maps it gave before."
        yield "reconstruct = true"
        yield from ("", "[[variants.passes]]", 'use = "distill"', "# The model as it was teaches what is left of it.")
        yield from ('teacher = "original"', "# For a quick first look: 2.", "epochs = 20")
        yield from self._rounding(form)

    def _cut(self) -> tuple[str, float, str]:
        """What of the model stays: half of its work, or what fits on the device."""
        room = (self.profile.storage_kib or math.inf) * FLASH * KIB
        if self.model.parameters and self.model.parameters > room:
            share = max(0.01, math.floor(100 * room / self.model.parameters) / 100)
            return "parameters", share, f"Share that stays: in 8 bits all take more than {FLASH:.0%} of the storage."
        return "macs", 0.5, "Share of the multiply-accumulates that stays."

    def _trained(self) -> Iterator[str]:
        """Where no channel can go: int8 learned."""
        form = self.able["int8"]
        yield from _variant_head("trained", "Weights and activations in 8 bits, learned with the rounding", form)
        yield from ("", "[[variants.passes]]", "# No channel of this model can be removed (edgekit inspect says why).")
        yield from ('use = "qat"', "epochs = 5", *self._ends(form))

    def _rounding(self, form: Form) -> Iterator[str]:
        yield from ("", "[[variants.passes]]", 'use = "quantize"', f'scheme = "{form.scheme}"')
        if form.scheme == "int8":
            yield from self._ends(form)
            if self.model.kind == "keras":
                yield "# Takes the mean shift that rounding leaves out of the biases, found on the calibration images."
                yield 'corrections = ["bias"]'

    def _ends(self, form: Form) -> Iterator[str]:
        if form.symmetric:
            yield f"# Zero point 0: {form.runtime} takes no other."
            yield 'flavour = "symmetric"'
        if self.small:
            yield "# A camera's bytes go in as they are, and no float arithmetic is linked into the program."
            yield 'io = "int8"'

    # ------------------------------------------------------------ what must hold

    def _budget(self) -> Iterator[str]:
        key, limit, words = LIMITS.get(self.model.head, LIMITS["logits"])
        yield from ("", "[budget]", f"# {words}", f"{key} = {limit:g}", "# For all verdicts of a run together.")
        yield "confidence = 0.95"

    def _target(self) -> Iterator[str]:
        profile = self.profile
        yield from ("", "[[targets]]", f"# {_sentence(next(planned(profile)))}", f"device = {_text(self.device)}")
        yield from ("", "[targets.budget]")
        if profile.storage_kib:
            yield f"# {FLASH:.0%} of its {profile.storage_kib:,} KiB of storage."
            yield f"max_size_kib = {profile.storage_kib * FLASH:g}"
        if self.small and profile.memory_kib:
            yield f"# {ARENA:.0%} of its {profile.memory_kib:,} KiB of memory: the program needs the rest."
            yield f"max_arena_kib = {math.floor(profile.memory_kib * ARENA)}"
        yield "# How quick it must be: yours to say."
        yield "# max_latency_p50_ms = 20"


WORDS: Mapping[Scheme, str] = MappingProxyType(
    {
        "int8": "Weights and activations in 8 bits",
        "float16": "Weights in 16 bits: half the size, next to no loss",
        "float32": "As it is",
    }
)
# scheme -> what images are for, where it needs some
CALIBRATING: Mapping[str, str] = MappingProxyType(
    {
        "int8": "Images that give int8 its ranges; LiteRT's guide asks for about 100 to 500.",
        "float16": "Images that show which layers float16 is too narrow for.",
    }
)
# head -> limit, its value, and what it means
LIMITS: Mapping[Meaning, tuple[str, float, str]] = MappingProxyType(
    {
        "logits": ("max_accuracy_drop", 0.02, "At most two points less accurate than the original."),
        "regression": ("max_error_increase", 0.05, "The mean error grows by at most a twentieth of the original's."),
        "embedding": ("min_cosine", 0.98, "On average next to the original's direction."),
    }
)


def _variant_head(name: str, description: str, form: Form) -> Iterator[str]:
    yield from ("", "[[variants]]", f"name = {_text(name)}", f"description = {_text(description)}")
    yield f"# Run by {form.runtime}."
    yield f"export = [{_text(form.exporter)}]"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # TOML's basic strings are JSON's but for it


def _value(value: Any) -> str:
    """A plain value as TOML has it; a table inline."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_text(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)
