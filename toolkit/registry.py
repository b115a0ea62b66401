"""What Edgekit can use, by family and name: one literal table, plus entry points of other packages.

Names resolve without importing anything; `load` imports the one module that is asked for.
Another package adds a name with an entry point in the group `edgekit.<family>`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from toolkit.errors import InputError, UnavailableError

FAMILIES: dict[str, dict[str, str]] = {
    "passes": {
        "prune": "toolkit.passes.prune:Prune",
        "student": "toolkit.passes.student:Student",
        "distill": "toolkit.passes.distill:Distill",
        "sparsify": "toolkit.passes.sparsify:Sparsify",
        "cluster": "toolkit.passes.cluster:Cluster",
        "quantize": "toolkit.passes.quantize:Quantize",
        "qat": "toolkit.passes.qat:Qat",
    },
    "exporters": {
        "tflite": "toolkit.exporters.tflite:TFLite",
        "onnx": "toolkit.exporters.onnx:ONNX",
        "tensorrt": "toolkit.exporters.tensorrt:TensorRT",
    },
    "runtimes": {
        "litert": "toolkit.runtimes.litert:LiteRT",
        "tflite-runtime": "toolkit.runtimes.tflite_runtime:TFLiteRuntime",
        "onnxruntime": "toolkit.runtimes.onnxruntime:ONNXRuntime",
        "openvino": "toolkit.runtimes.openvino:OpenVINO",
        "tensorrt": "toolkit.runtimes.tensorrt:TensorRT",
        "tflite-micro": "toolkit.runtimes.tflite_micro:TFLiteMicro",
    },
    "transports": {
        "local": "toolkit.transports.local:Local",
        "ssh": "toolkit.transports.ssh:SSH",
        "adb": "toolkit.transports.adb:ADB",
        "replay": "toolkit.transports.replay:Replay",
    },
    "sources": {
        "keras": "toolkit.sources.keras:Keras",
        "savedmodel": "toolkit.sources.savedmodel:SavedModel",
        "tflite": "toolkit.sources.tflite:TFLite",
        "onnx": "toolkit.sources.onnx:ONNX",
        "applications": "toolkit.sources.applications:Applications",
    },
    "datasets": {
        "npz": "toolkit.datasets.npz:Npz",
        "folder": "toolkit.datasets.folder:Folder",
        "csv": "toolkit.datasets.csv:Csv",
        "jsonl": "toolkit.datasets.jsonl:Jsonl",
        "npy": "toolkit.datasets.npy:Npy",
        "tfrecord": "toolkit.datasets.tfrecord:TFRecord",
        "tfds": "toolkit.datasets.tfds:Tfds",
        "keras": "toolkit.datasets.keras:KerasDatasets",
        "callable": "toolkit.datasets.function:Function",
        "digits": "toolkit.datasets.digits:Digits",
    },
    "metrics": {
        "top1": "toolkit.metrics.classification:Top1",
        "top5": "toolkit.metrics.classification:Top5",
        "topk": "toolkit.metrics.classification:TopK",
        "agreement": "toolkit.metrics.classification:Agreement",
        "precision": "toolkit.metrics.scores:Precision",
        "recall": "toolkit.metrics.scores:Recall",
        "f1": "toolkit.metrics.scores:F1",
        "auc": "toolkit.metrics.scores:Auc",
        "ece": "toolkit.metrics.scores:ExpectedCalibrationError",
        "mean_average_precision": "toolkit.metrics.labels:MeanAveragePrecision",
        "label_f1": "toolkit.metrics.labels:LabelF1",
        "exact_match": "toolkit.metrics.labels:ExactMatch",
        "cosine": "toolkit.metrics.vectors:Cosine",
        "retrieval_at_1": "toolkit.metrics.vectors:RetrievalAt1",
        "mae": "toolkit.metrics.regression:MeanAbsoluteError",
        "rmse": "toolkit.metrics.regression:RootMeanSquareError",
    },
}


def names(family: str) -> dict[str, str]:
    """All names of `family` -> "module:Class", the shipped ones first."""
    from importlib.metadata import entry_points

    found = dict(_family(family))
    for point in entry_points(group=f"edgekit.{family}"):
        found.setdefault(point.name, point.value)
    return found


def load(family: str, name: str) -> Any:
    """The class registered as `name`; raises InputError for an unknown one."""
    target = _family(family).get(name) or names(family).get(name)
    if target is None:
        raise InputError(f"{family}.{name}", f"no such {family} entry", suggest(name, names(family)))
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as error:
        raise UnavailableError(f"{family}.{name}", f"cannot be imported: {error}", "run `edgekit doctor`") from error


def suggest(name: str, known: Any) -> str:
    """A `Fix:` text: the closest known names, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"use one of {', '.join(known)}"


def _family(family: str) -> dict[str, str]:
    try:
        return FAMILIES[family]
    except KeyError:
        raise InputError(family, "no such registry family", suggest(family, FAMILIES)) from None
