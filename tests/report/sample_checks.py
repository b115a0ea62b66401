"""What the checks leave in a manifest, for the sample: the matrix, inputs, calibration, diagnoses, repairs, speed.

`hostile(text)` has the same with `text` in every place that holds one.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from toolkit.checks.coverage import CalibrationCheck, TensorCoverage
from toolkit.checks.diagnosis import Diagnosis, Sensitive
from toolkit.checks.divergence import Divergence
from toolkit.checks.equivalence import Equivalence, Pair, Subject
from toolkit.checks.inputs import InputsCheck, Mismatch, Tried
from toolkit.checks.layers import LayerError
from toolkit.checks.speed import Finding, Speed, SpeedLayer
from toolkit.runs import DiagnosisRecord, LeftOutRecord, RepairRecord, RepairTrial

DEVICE = "this-machine"
FILES = ("original.tflite", "original.onnx", "phone.tflite", "server.onnx", "tiny.tflite")
SCHEMES = ("float32", "float32", "int8", "float16", "int8")
ADVICE = "conv2d_1 is likely at fault: its channels differ much in range; keep it in float, or equalize first"


def fields(digests: dict[str, str]) -> dict[str, Any]:
    """Of the sample's manifest. digests: of its files."""
    return {
        "equivalence": equivalence(),
        "inputs": inputs(),
        "calibrations": {"phone.03-quantize": calibration("phone.03-quantize")},
        "diagnoses": {name: DiagnosisRecord(digests[name], (16, True), diagnosis(name)) for name in FILES[2::2]},
        "repairs": {"tiny": repair("tiny")},
        "speeds": (speed("phone.tflite", digests["phone.tflite"]), quick("server.onnx", digests["server.onnx"])),
        "left_out": (LeftOutRecord("scikit-learn digits", "unreadable", 2, ("digit-0007: cut short", "digit-0021")),),
    }


def equivalence() -> Equivalence:
    """Original, two stages and five files; tiny.tflite is further from its model than int8 explains."""
    models = tuple(Subject(name, runtime="keras") for name in ("original", "01-prune", "02-distill"))
    stages = ("original", "original", "02-distill", "02-distill", "02-distill")
    files = tuple(
        Subject(name, DEVICE, "litert" if name.endswith("tflite") else "onnxruntime", scheme, stage)
        for name, scheme, stage in zip(FILES, SCHEMES, stages, strict=True)
    )
    subjects = (*models, *files)
    return Equivalence("softmax", 360, 360, subjects, tuple(_pair(*both) for both in combinations(range(8), 2)))


def _pair(first: int, second: int) -> Pair:
    far = (0, 29, 4, 0, 0, 5, 4, 47)  # images each subject decides otherwise than the original
    agree = 360 - abs(far[first] - far[second]) if 3 in (first, second) else 360 - max(far[first], far[second])
    why = "the model it was written from" if (first, second) == (2, 7) else ""
    same = {first, second} <= {0, 3, 4}
    return Pair(first, second, 360, agree, 1.3e-6 if same else 0.41, 131.4 if same else -2.4 + agree / 12, why)


def inputs() -> InputsCheck:
    """Nothing wrong, one other way tried."""
    tried = (Tried("as they are", 256, 0.972, 0.977, 0.986, 3.6e-05), Tried("mirrored", 256, 0.41, 0.43, 0.77, 0.012))
    return InputsCheck(256, "bn1", tried)


def calibration(stage: str, layer: str = "conv2d") -> CalibrationCheck:
    """Enough images."""
    tensors = (
        TensorCoverage(layer, -1.0, 2.0, 0.0118, 0.0125, 1.5, 20.0),
        TensorCoverage("digit", -14.2, 11.1, 0.0992, 0.0, 0.4, 0.9),
    )
    advice = "200 images are enough: other samples move the output by less than 1 dB"
    return CalibrationCheck(stage, 200, "selection", 180, 16, 30.04, 29.5, 31.0, advice, tensors)


def error(layer: str, alone: float, lost: float, place: int) -> LayerError:
    """One layer of a file, fused with its activation."""
    fused = (layer, f"{layer}_relu")
    return LayerError(layer, fused, "CONV_2D", layer, "int8", alone - 3, alone, lost, -1.5, 6, 0.0125, 0.024, 3, "",
                      place, 2.25, 0.31, 6.0)  # fmt: skip


def diagnosis(artifact: str) -> Diagnosis:
    """conv2d_1 diverges, and is at fault."""
    rows = (error("conv2d_1", 3.2, 31.0, 1), error("dense", 28.4, 4.0, 2), error("conv2d", 41.5, 1.0, 0))
    rows = (*rows, error("dense_1", 44.0, 0.5, 3), error("digit", 200.0, 0.0, 4))
    first = Divergence("conv2d_1", rows[0], 2, len(rows), 0)
    gain = Sensitive("conv2d_1", 6.1, 0.71, 24.5, 0.99, 14.8)
    return Diagnosis(artifact, 16, "conv2d_1", True, ADVICE, rows, 1, (gain,), 9.7, 0.86, "int8", first, "dense", 9.5)


def repair(variant: str) -> RepairRecord:
    """Two rungs, of which neither is enough."""
    trials = (
        RepairTrial("as asked", "as the recipe has it", "quantize", {}, 1.0, "FAIL", "lost 12.8 points", 0.128, 0.87,
                    9.1, 9_523),
        RepairTrial("equalize_bias", "equalize, bias", "quantize", {}, 2.5, "FAIL", "lost 8.3 points", 0.083, 0.91,
                    14.2, 9_523, 0.0061),
        RepairTrial("qat", "quantization-aware training", reason="max_seconds is used up"),
    )  # fmt: skip
    return RepairRecord(variant, "k", trials, 1)


def speed(artifact: str, sha256: str) -> Speed:
    """A float island, and a whole file that gains nothing."""
    island = Finding(
        "float island",
        "2 operators compute in float (SOFTMAX, MEAN), with 3 conversions between types",
        "end the network in logits",
        "measured",
        "the runtime's profile",
        ("model_1/classes_softmax_1/Softmax", "mean"),
        3,
        share=0.31,
    )
    whole = Finding("no gain", "it is no faster than float32", "use scheme = int8", "file", "its operators", whole=True)
    layers = (
        SpeedLayer("model_1/conv2d_1/convolution", "CONV_2D", 0.5, 0.25, 0.62, "XNNPACK", "memory"),
        SpeedLayer("copy", "Copy", 0.01),
    )
    how, estimate = "the runtime's profiler, its mean of 200 inferences", "a roofline of this machine"
    return Speed(artifact, sha256, DEVICE, "litert", "xnnpack", 1, (island, whole), layers, 11, how, estimate)


def quick(artifact: str, sha256: str) -> Speed:
    """Nothing found."""
    return Speed(artifact, sha256, DEVICE, "onnxruntime", "cpu", 1, ())


def hostile(bad: str) -> dict[str, Any]:
    """The same fields, and `bad` wherever they hold a text."""
    row = LayerError(bad, (bad, bad), bad, bad, bad, 1, 2, 30, -1, 1, 0.1, 0.1, 0, bad, 0, 1, 0.5, 1, bad)
    found = Diagnosis(bad, 1, bad, True, bad, (row,), 0, (Sensitive(bad, 1, 1, 1, 1, 1),), 1, 1, "int8")
    tried = (Tried(bad, 2, 0.5), Tried(bad, 1))
    clock = Finding(bad, bad, bad, "measured", bad, (bad,), 2, share=0.4)
    layers = (SpeedLayer(bad, bad, 0.5, by=bad, limit=bad),)
    between = Pair(0, 1, 3, 1, 0.5, 3.0, bad)
    return {
        "equivalence": Equivalence("softmax", 3, 3, (Subject(bad, bad, bad, bad, bad),) * 2, (between,), 1),
        "inputs": InputsCheck(2, bad, tried, (Mismatch("scale", bad, bad),), bad),
        "calibrations": {bad: CalibrationCheck(bad, 2, bad, 2, 1, 1, 1, 1, bad, calibration(bad, bad).tensors, bad)},
        "diagnoses": {
            bad: DiagnosisRecord(bad, (1, True), Diagnosis(**{**vars(found), "first": Divergence(bad, row, 1, 1)})),
            "built up": DiagnosisRecord(bad, (1, True), Diagnosis(**{**vars(found), "builds_up": bad})),
        },
        "repairs": {bad: RepairRecord(bad, bad, (RepairTrial(bad, bad, bad, {bad: bad}, 1, "FAIL", bad),), 0)},
        "speeds": (Speed(bad, bad, bad, bad, bad, 1, (clock,), layers, 2, bad, bad), quick(bad, bad)),
        "left_out": (LeftOutRecord(bad, bad, 1, (bad,)),),
    }
