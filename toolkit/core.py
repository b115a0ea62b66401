"""The few types everything speaks in. Read this page and you know the whole program.

    recipe + device profile -> plan -> passes -> exporters -> checks -> gate -> manifest -> report

A `Model` goes through passes, each a `Model` in and a `Model` out. An exporter writes it to an
`Artifact`. A runtime on a device runs the artifact on a `Dataset`; checks turn what comes back into
`Measurement`s, and the gate turns those into `Verdict`s. The manifest keeps all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from toolkit.budget import Budget as Budget  # noqa: PLC0414  (part of this page)
from toolkit.budget import MeasureSpec as MeasureSpec  # noqa: PLC0414  (part of this page)
from toolkit.codebook import Codebook as Codebook  # noqa: PLC0414  (part of this page)
from toolkit.quantization import ACTIVATION_BITS as ACTIVATION_BITS  # noqa: PLC0414  (part of this page)
from toolkit.quantization import STATIC as STATIC  # noqa: PLC0414  (part of this page)
from toolkit.quantization import QuantSpec as QuantSpec  # noqa: PLC0414  (part of this page)
from toolkit.quantization import Scheme as Scheme  # noqa: PLC0414  (part of this page)
from toolkit.quantization import Statistics as Statistics  # noqa: PLC0414  (part of this page)
from toolkit.traits import Trait as Trait  # noqa: PLC0414  (part of this page)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Labels = NDArray[np.int64]

# of outputs: one score a class (logits, softmax), one score of two classes (sigmoid), one score for each label that may
# hold beside others (sigmoids), a vector that is compared with others (embedding), numbers (regression)
Meaning = Literal["image", "tensor", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"]
Kind = Literal["keras", "savedmodel", "tflite", "onnx"]
Task = Literal["classes", "labels", "values"]
Layout = Literal["NHWC", "NCHW", "none"]
Provenance = Literal["measured", "emulated", "estimated", "quoted", "computed"]
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


# ---------------------------------------------------------------- what a model takes and gives


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output. `shape` includes the batch dimension; None is a free dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    meaning: Meaning = "tensor"
    layout: Layout = "none"


@dataclass(frozen=True)
class Signature:
    """Named inputs and outputs, in the order of the original model. Consumers bind by name."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Preprocessing:
    """The contract from a decoded image (uint8, height x width x channels) to the model's input.

    In this order: crop, resize to `size`; channels to `color`; then `x * scale + offset` in float32, per channel.
    Layout and type are those of the input itself (`TensorSpec`).
    """

    size: tuple[int, int] | None = None  # (height, width) in pixels; None keeps the image's own
    resize: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bilinear"
    antialias: bool = True  # filter as wide as the shrinking asks for
    crop: Literal["center", "none"] = "center"  # to the aspect ratio of `size`; none stretches
    crop_share: float = 1.0  # of the sides that are left after that, centred: 0.875 is "resize to 256, crop 224"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: tuple[float, ...] = (1.0,)  # one value, or one for each channel
    offset: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Model:
    """A trained network and everything needed to use it rightly. Passes return new ones.

    graph: for kind "keras" a flat functional keras.Model in inference form; for the others the pathlib.Path of the
    file (.onnx, .tflite) or folder (SavedModel), which nothing changes. sparse: layer -> pattern of the zeros in its
    weight ("unstructured", "2:4", "4x1"), which passes keep and exporters may use. clustered: layer -> how few values
    its weight has, which passes keep.
    """

    kind: Kind
    graph: Any
    signature: Signature
    preprocessing: Preprocessing = Preprocessing()
    quant: QuantSpec = QuantSpec()
    statistics: Statistics | None = None  # ranges for static quantization, of the graph in prepared form
    notes: tuple[str, ...] = ()  # of its source, in words: what it was carried from, how far its outputs are from that
    sparse: Mapping[str, str] = field(default_factory=dict)
    clustered: Mapping[str, Codebook] = field(default_factory=dict)

    @property
    def head(self) -> Meaning:
        """What the first output means."""
        return self.signature.outputs[0].meaning


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class Batch:
    """inputs: name -> (n, ...) float32 array, preprocessed, NHWC. targets: name -> (n,) array. ids: stable names."""

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Records:
    """Labelled images as a dataset finds them, none decoded yet.

    labels: as `task` says: (n,) int64 class indexes (classes), (n, classes) uint8 with 1 where a label holds (labels),
    or (n, columns) float32 (values; `classes` then names the columns). subsets: for each record the name of the part
    the data itself puts it in ("train", "eval", ...), or "". read(i): record i as a uint8 array, height x width x
    channels; safe to call from several threads. content(i): bytes that identify the image, for fingerprints and
    duplicate checks. encoded: content(i) is an encoded file, and read(i) nothing but `images.decode` of it. groups: for
    each record the name of what it must stay together with (a person, a scene), "" for none; empty where nothing is
    grouped. faults(): index -> what the container's own checksums say against a record. notes: worth a warning.
    """

    source: str
    ids: tuple[str, ...]
    labels: Array
    subsets: tuple[str, ...]
    classes: tuple[str, ...]
    read: Callable[[int], Array]
    content: Callable[[int], bytes]
    task: Task = "classes"
    encoded: bool = False
    groups: tuple[str, ...] = ()
    faults: Callable[[], Mapping[int, str]] = dict
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@runtime_checkable
class Dataset(Protocol):
    """A re-iterable, fingerprinted stream of preprocessed batches (one split of a recipe's data)."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Hash of ids, labels, image bytes and preprocessing, in order."""
        ...

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Array: ...
    @property
    def task(self) -> Task: ...
    @property
    def ids(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most `size`, always in the same order."""
        ...


# ---------------------------------------------------------------- passes and exporters


@dataclass(frozen=True)
class LayerChange:
    """One line of what a pass did: changed (before != after) or skipped, and why."""

    layer: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """Something to show while work goes on. fraction: 0..1, or None where not known. keep: worth a line of a log."""

    text: str
    fraction: float | None = None
    keep: bool = False


@dataclass(frozen=True)
class Delivered:
    """What a model is as a float32 file. milliseconds, range: of one inference on the device that was asked for.

    source: "measured", "emulated" or "estimated"; "computed" without a device. how: in words, for what is said of it.
    """

    size_kib: float
    milliseconds: float | None = None
    range: tuple[float, float] | None = None
    source: Provenance = "computed"
    how: str = ""


@dataclass(frozen=True)
class PassContext:
    """What a pass may use from above it.

    original: the model as it was read (the default teacher). evaluate(model): its head's score on the selection split,
    larger is better (top-1 for classes). load(path): another trained model, of any kind, checked as a source is.
    application(name, weights, alpha): a trained network of keras.applications under its own preprocessing contract.
    Splits a recipe does not have are None. unlabelled: more images to train on, by a teacher alone. memory: kept
    between the passes of one run (a calibration serves them all). checkpoint: the file a training keeps its state in
    after each epoch, None to keep none; key: of that training. deliver(models, device): what they are as files, timed
    interleaved where a device is named that is within reach, estimated elsewhere. multiple: of channels that the
    kernels of the recipe's devices compute together. cache: folder for what is dear to find out and stays true, None
    to keep none.
    """

    seed: int = 0
    original: Model | None = None
    train: Dataset | None = None
    unlabelled: Dataset | None = None
    selection: Dataset | None = None
    calibration: Dataset | None = None
    evaluate: Callable[[Model], float] | None = None
    load: Callable[[Path], Model] | None = None
    application: Callable[[str, str, float | None], Model] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    key: str = ""
    deliver: Callable[[Sequence[Model], str], tuple[Delivered, ...]] | None = None
    multiple: int = 8
    cache: Path | None = None
    emit: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class PassResult:
    """The new model, what changed layer by layer, and the curves of any training (name -> value per epoch)."""

    model: Model
    changes: tuple[LayerChange, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Pass(Protocol):
    """Changes a Model: input untouched, signature kept. A frozen pydantic model whose fields are its parameters."""

    takes: ClassVar[tuple[str, ...]]  # kinds of graph
    needs: ClassVar[tuple[str, ...]]  # splits it cannot do without: "train", "calibration", ...
    makes: ClassVar[frozenset[Trait]]  # of the model, which a later pass may undo
    keeps: ClassVar[frozenset[Trait]]  # of what earlier passes made

    def run(self, model: Model, context: PassContext) -> PassResult: ...


@dataclass(frozen=True)
class Artifact:
    """One file a run produced. layout and names are the file's own, in its signature.

    notes: what was changed or skipped on the way, in words. pixels: it takes uint8 pixels as decoded, RGB or gray.
    """

    name: str
    path: Path
    format: str
    scheme: Scheme
    size_bytes: int
    sha256: str
    signature: Signature
    notes: tuple[str, ...] = ()
    pixels: bool = False


@dataclass(frozen=True)
class ExportContext:
    """calibration: images for schemes that need ranges. classes, provenance (what -> what it was): for metadata."""

    calibration: Dataset | None = None
    emit: Callable[[Progress], None] = lambda progress: None
    classes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


class Exporter(Protocol):
    """Writes a model to one file, exactly as its QuantSpec says, or raises UnsupportedError."""

    format: ClassVar[str]
    suffix: ClassVar[str]
    takes: ClassVar[tuple[str, ...]]
    schemes: ClassVar[tuple[Scheme, ...]]

    def refusal(self, quant: QuantSpec, kind: Kind = "keras") -> str | None:
        """Why this request cannot be written of a model of this kind, or None. Asked by `plan`, before any work."""
        ...

    def export(self, model: Model, path: Path, context: ExportContext) -> Artifact: ...


# ---------------------------------------------------------------- runtimes, devices


class Runtime(Protocol):
    """How one kind of file is run: what it takes, and the file of worker/ that drives it."""

    formats: ClassVar[tuple[str, ...]]
    worker: ClassVar[str]  # module name under worker/
    package: ClassVar[str]  # distribution whose version is reported

    def version(self) -> str | None:
        """Installed version on this machine, or None."""
        ...


@dataclass(frozen=True)
class Completed:
    """A finished command on a device."""

    returncode: int
    stdout: str
    stderr: str


class Session(Protocol):
    """An open connection to a device with a work folder of its own; closing it leaves nothing behind.

    Runs share a host while they work there, and have it alone while they measure.
    """

    def push(self, path: Path) -> str:
        """The file's path on the device, its hash checked."""
        ...

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One worker job in a fresh process; raises StageError with the tail of its stderr."""
        ...

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program of the device in the work folder; whatever its exit code, its output as text."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """The host for oneself, for measuring: waits until nobody else works there, and keeps others waiting."""
        ...

    def pull(self, remote: str, path: Path) -> None: ...
    def folder(self) -> str:
        """The work folder's path on the device."""
        ...

    def close(self) -> None: ...


class Transport(Protocol):
    """How a device is reached."""

    def open(self) -> Session: ...


# ---------------------------------------------------------------- metrics


class Metric(Protocol):
    """A number of a model's outputs: statistics of each example, then their reduction.

    So any metric can be paired with another model's, resampled and sharded. A frozen pydantic model whose fields are
    its parameters. estimate: what `reduce` is: a "share" of examples (values of 0 and 1), a "mean" of values, or a
    number of the "whole" split. against: whether it needs the original's outputs.
    """

    heads: ClassVar[tuple[Meaning, ...]]
    tasks: ClassVar[tuple[Task, ...]]  # of the data it can be computed on
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    estimate: ClassVar[Literal["share", "mean", "whole"]]
    against: ClassVar[bool]

    @property
    def name(self) -> str:
        """What its measurement is called."""
        ...

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Array:
        """Statistics, (n, ...), in the examples' order; NaN in a (n,) array for one that does not count."""
        ...

    def reduce(self, values: Array) -> float:
        """The number, from any selection of `per_example`'s rows; NaN where these cannot tell."""
        ...

    def left_out(self, values: Array) -> str:
        """What `reduce` leaves out of these rows and why, in words; "" for nothing."""
        ...


# ---------------------------------------------------------------- what comes out


@dataclass(frozen=True)
class Interval:
    """A confidence interval; confidence 0 for a range that claims none. method: the estimator's usual name."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Measurement:
    """One number and how it was got.

    subject: "original", a stage's name or an artifact's name. device: "" for what needs no device.
    how: runtime, version, threads, delegate, kernel path, estimator, number of images, ... as text.
    """

    subject: str
    name: str
    value: float
    unit: str
    source: Provenance
    device: str = ""
    interval: Interval | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """One gate's answer for one artifact on one device, and the sentence that explains it."""

    artifact: str
    device: str
    gate: str
    outcome: Outcome
    value: float | None
    limit: float
    interval: Interval | None = None
    reason: str = ""
