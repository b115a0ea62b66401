"""A manifest as a real run leaves it: the digits CNN, pruned and distilled, leaving as three variants.

Outcomes of every kind: server.onnx passes, phone.tflite is inconclusive on accuracy, tiny.tflite fails.
"""

from __future__ import annotations

import math
from typing import Any

from tests.report import sample_checks
from toolkit.checks.changed import Answer, Changed, ChangedImage, Tally
from toolkit.core import Interval, Measurement, TensorSpec, Verdict
from toolkit.runs import ArtifactRecord, DataRecord, Manifest, StageRecord

DEVICE = "this-machine"
TEST_IMAGES = 360
ORDER = "sha256:"


def wilson(correct: int, total: int = TEST_IMAGES, z: float = 1.96) -> Interval:
    """Wilson's score interval."""
    p, n = correct / total, total
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n), 0.95, "Wilson")


def accuracy(subject: str, correct: int, device: str = "", runtime: str = "Keras 3.15") -> Measurement:
    how = {"runtime": runtime, "images": TEST_IMAGES, "split": "test"}
    return Measurement(subject, "top1", correct / TEST_IMAGES, "", "measured", device, wilson(correct), how)


def latency(subject: str, p50: float, runtime: str) -> list[Measurement]:
    """Every time the check writes, in proportion to the median."""
    how = {"runtime": runtime, "threads": 1, "processes": 8, "kernels": "XNNPACK", "estimator": "best of 8 p50"}
    around = Interval(p50 * 0.97, p50 * 1.04, 0.95, "bootstrap over processes")
    parts = {"min": 0.94, "p90": 1.35, "p99": 2.2}
    found = [Measurement(subject, "latency_p50_ms", p50, "ms", "measured", DEVICE, around, how)]
    found += [
        Measurement(subject, f"latency_{name}_ms", p50 * part, "ms", "measured", DEVICE, None, how)
        for name, part in parts.items()
    ]
    found.append(Measurement(subject, "throughput_per_s", 1000 / p50, "/s", "measured", DEVICE, None, how))
    found.append(Measurement(subject, "first_inference_ms", p50 * 9, "ms", "measured", DEVICE, None, how))
    found.append(Measurement(subject, "load_ms", 1.8, "ms", "measured", DEVICE, None, how))
    return found


def model(subject: str, size: int, macs: int, parameters: int) -> list[Measurement]:
    how = {"from": "graph", "file": "Keras archive"}
    return [
        Measurement(subject, "size_bytes", size, "B", "computed", how=how),
        Measurement(subject, "macs", macs, "", "computed", how=how),
        Measurement(subject, "parameters", parameters, "", "computed", how=how),
    ]


def artifact(name: str, size: int, correct: int, drop: tuple[float, float], agreement: float) -> list[Measurement]:
    """Size, accuracy and parity of one delivered file."""
    runtime = "LiteRT 2.3.0" if name.endswith("tflite") else "ONNX Runtime 1.31.0"
    how = {"runtime": runtime, "images": TEST_IMAGES, "split": "test", "against": "original in Keras"}
    interval = Interval(*drop, 0.9917, "Newcombe, paired")
    lost = (356 - correct) / TEST_IMAGES
    return [
        Measurement(name, "size_bytes", size, "B", "computed", how={"from": "file"}),
        Measurement(name, "gzip_bytes", int(size * 0.82), "B", "computed", how={"from": "file"}),
        accuracy(name, correct, DEVICE, runtime),
        Measurement(name, "top1_drop", lost, "", "measured", DEVICE, interval, how),
        Measurement(name, "agreement", agreement, "", "measured", DEVICE, None, how),
        Measurement(name, "max_abs_diff", (1 - agreement) * 40 + 0.004, "", "measured", DEVICE, None, how),
        Measurement(name, "mean_abs_diff", (1 - agreement) * 5 + 0.0003, "", "measured", DEVICE, None, how),
        Measurement(name, "sqnr_db", 8 - 20 * math.log10(1.002 - agreement), "dB", "measured", DEVICE, None, how),
    ]


def record(name: str, variant: str, stage: str, scheme: Any, size: int) -> ArtifactRecord:
    form = name.rpartition(".")[2]
    inputs = (TensorSpec("image", (1, 8, 8, 1), "float32", "image", "NHWC"),)
    outputs = (TensorSpec("digit", (1, 10), "float32", "logits"),)
    digest = (f"{size:x}" * 20)[:64]
    notes = ("input and output stay float32",) if scheme == "int8" else ()
    return ArtifactRecord(name, variant, stage, f"artifacts/{name}", form, scheme, size, digest, inputs, outputs, notes)


def changes(ratio: float) -> tuple[dict[str, str], ...]:
    """What structured pruning did to each layer."""
    widths = {"conv2d": 32, "conv2d_1": 64, "conv2d_2": 64, "dense": 64}
    found = tuple(
        {
            "layer": layer,
            "before": f"{width} channels",
            "after": f"{int(width * ratio)} channels",
            "reason": "lowest L1 norm",
        }
        for layer, width in widths.items()
    )
    return (
        *found,
        {"layer": "dense_1", "before": "10 channels", "after": "10 channels", "reason": "skipped: the output"},
    )


def curves(start: float, end: float, epochs: int = 15) -> dict[str, tuple[float, ...]]:
    fade = [math.exp(-epoch / 4) for epoch in range(epochs)]
    wave = [0.012 * math.sin(2.1 * epoch) for epoch in range(epochs)]
    return {
        "loss": tuple(0.08 + 0.9 * part for part in fade),
        "selection_loss": tuple(0.12 + 0.7 * part + bump for part, bump in zip(fade, wave, strict=True)),
        "accuracy": tuple(end + 0.008 - (end - start) * part for part in fade),
        "selection_accuracy": tuple(end - (end - start) * part - bump for part, bump in zip(fade, wave, strict=True)),
    }


def stage(name: str, kind: Any, parent: str, seconds: float, **rest: Any) -> StageRecord:
    use = rest.pop("use", name.rpartition(".")[2].partition("-")[2] or name.rpartition(".")[2])
    parameters = rest.pop("parameters", {})
    return StageRecord(name, use, kind, parent, f"{abs(hash_of(name)):012x}", parameters, seconds, **rest)


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return sum(place * 7919 * ord(char) for place, char in enumerate(text, start=1))


def stages() -> tuple[StageRecord, ...]:
    quantize = {"scheme": "int8", "granularity": "per_channel", "io": "float32"}
    prune = {"macs": 0.5, "size": None, "device": "", "importance": "l1"}
    distill = {"epochs": 15, "temperature": 4.0, "alpha": 0.7, "learning_rate": 0.001}
    return (
        stage("original", "source", "", 1.2, use="keras"),
        stage("01-prune", "pass", "original", 0.9, parameters=prune, changes=changes(0.5)),
        stage("02-distill", "pass", "01-prune", 24.6, parameters=distill, curves=curves(0.93, 0.985)),
        stage("phone.03-quantize", "pass", "02-distill", 0.1, parameters=quantize, same_graph=True),
        stage("phone.tflite", "export", "phone.03-quantize", 4.2, notes=("calibrated on 200 images",)),
        stage("server.03-quantize", "pass", "02-distill", 0.1, parameters={"scheme": "float16"}, same_graph=True),
        stage("server.onnx", "export", "server.03-quantize", 3.3, parameters={"layout": "NCHW"}),
        stage("tiny.03-prune", "pass", "02-distill", 0.8, parameters={"macs": 0.6}, changes=changes(0.2)),
        stage("tiny.04-quantize", "pass", "tiny.03-prune", 0.1, parameters=quantize, same_graph=True, reused=True),
        stage("tiny.tflite", "export", "tiny.04-quantize", 4.0, notes=("calibrated on 200 images",)),
        stage("original.tflite", "export", "original", 3.8),
        stage("original.onnx", "export", "original", 3.1),
        stage("latency@this-machine", "check", "", 38.5, use="latency", parameters={"processes": 8, "threads": 1}),
    )


def verdicts() -> tuple[Verdict, ...]:
    def drop(name: str, outcome: Any, value: float, low: float, high: float, reason: str) -> Verdict:
        interval = Interval(low, high, 0.9917, "Newcombe, paired")
        return Verdict(name, DEVICE, "max_accuracy_drop", outcome, value, 0.02, interval, reason)

    def size(name: str, outcome: Any, kib: float, reason: str) -> Verdict:
        return Verdict(name, "", "max_size_kib", outcome, kib, 60.0, None, reason)

    def speed(name: str, value: float) -> Verdict:
        interval = Interval(value * 0.97, value * 1.04, 0.9917, "bootstrap over processes")
        return Verdict(name, DEVICE, "max_latency_p50_ms", "PASS", value, 0.05, interval, "Within the limit.")

    return (
        drop(
            "phone.tflite",
            "INCONCLUSIVE",
            0.0083,
            -0.0054,
            0.0261,
            "The interval reaches 2.6 points; about 310 more test images would tell.",
        ),
        size("phone.tflite", "PASS", 26.4, "Under the limit by 33.6 KiB."),
        speed("phone.tflite", 0.0112),
        drop("server.onnx", "PASS", 0.0028, -0.0093, 0.0171, "The worst end of the interval is within the limit."),
        size("server.onnx", "PASS", 49.1, "Under the limit by 10.9 KiB."),
        speed("server.onnx", 0.0146),
        drop("tiny.tflite", "FAIL", 0.1278, 0.0889, 0.1711, "Lost at least 8.9 points, more than the 2.0 allowed."),
        size("tiny.tflite", "PASS", 9.3, "Under the limit by 50.7 KiB."),
        speed("tiny.tflite", 0.0061),
    )


def measurements() -> tuple[Measurement, ...]:
    return (
        *model("original", 412_300, 1_087_000, 93_322),
        accuracy("original", 356),
        *model("01-prune", 118_900, 301_400, 24_570),
        accuracy("01-prune", 331),
        *model("02-distill", 118_900, 301_400, 24_570),
        accuracy("02-distill", 355),
        *model("tiny.03-prune", 34_100, 61_200, 5_120),
        accuracy("tiny.03-prune", 318),
        Measurement("original.tflite", "size_bytes", 376_900, "B", "computed", how={"from": "file"}),
        *latency("original.tflite", 0.0268, "LiteRT 2.3.0"),
        Measurement("original.onnx", "size_bytes", 379_500, "B", "computed", how={"from": "file"}),
        *latency("original.onnx", 0.0291, "ONNX Runtime 1.31.0"),
        *artifact("phone.tflite", 27_034, 353, (-0.0054, 0.0261), 0.9861),
        Measurement("phone.tflite", "arena_kib", 11.2, "KiB", "measured", DEVICE),
        *latency("phone.tflite", 0.0112, "LiteRT 2.3.0"),
        *artifact("server.onnx", 50_278, 355, (-0.0093, 0.0171), 0.9944),
        *latency("server.onnx", 0.0146, "ONNX Runtime 1.31.0"),
        *artifact("tiny.tflite", 9_523, 310, (0.0889, 0.1711), 0.8694),
        Measurement("tiny.tflite", "arena_kib", 4.6, "KiB", "measured", DEVICE),
        *latency("tiny.tflite", 0.0061, "LiteRT 2.3.0"),
    )


def per_class() -> dict[str, tuple[dict[str, int], ...]]:
    totals = (36, 36, 35, 37, 36, 37, 37, 36, 33, 37)
    wrong = {
        "original": (0, 1, 0, 0, 0, 1, 0, 0, 1, 1),
        "phone.tflite": (0, 1, 0, 1, 0, 1, 0, 0, 3, 1),
        "server.onnx": (0, 1, 0, 1, 0, 1, 0, 0, 1, 1),
        "tiny.tflite": (1, 9, 3, 6, 2, 3, 1, 2, 15, 8),
    }
    return {
        subject: tuple({"correct": total - miss, "total": total} for total, miss in zip(totals, misses, strict=True))
        for subject, misses in wrong.items()
    }


def recipe() -> dict[str, Any]:
    int8 = {"use": "quantize", "scheme": "int8", "granularity": "per_channel", "io": "float32"}
    prune = {"use": "prune", "macs": 0.5, "importance": "l1"}
    return {
        "schema": 1,
        "model": {"source": "digits-cnn.keras", "input_shape": None},
        "data": {"use": "digits", "splits": {"selection": 0.1, "calibration": 200, "test": 0.2}},
        "passes": [prune, {"use": "distill", "epochs": 15, "temperature": 4.0}],
        "variants": [
            {"name": "phone", "passes": [int8], "export": ["tflite"]},
            {"name": "server", "passes": [{"use": "quantize", "scheme": "float16"}], "export": ["onnx"]},
            {"name": "tiny", "passes": [{**prune, "macs": 0.6}, int8], "export": ["tflite"]},
        ],
        "budget": {"max_accuracy_drop": 0.02, "max_size_kib": 60.0, "max_latency_p50_ms": 0.05, "confidence": 0.95},
    }


def data() -> tuple[DataRecord, ...]:
    source = "scikit-learn digits"
    counts = (36, 36, 35, 37, 36, 37, 37, 36, 33, 37)
    return (
        DataRecord("train", 1057, ORDER + "9c1f6be2a47d0351", source),
        DataRecord("selection", 180, ORDER + "03be55d1907ac4f2", source),
        DataRecord("calibration", 200, ORDER + "e6a90c7714bd2f08", source),
        DataRecord("test", TEST_IMAGES, ORDER + "51d7f0ab83c96e24", source, counts),
    )


def changed() -> Changed:
    """Four of the images that tiny.tflite decides otherwise, without their pictures."""

    def answer(subject: str, place: int, right: bool, sure: float) -> Answer:
        return Answer(subject, "" if subject == "original" else DEVICE, (place,), right, sure)

    images = tuple(
        ChangedImage(
            f"digit-{place:04d}",
            place,
            (label,),
            answer("original", label, True, 0.97),
            (answer("tiny.tflite", other, False, 0.81), answer("phone.tflite", other, False, 0.55))[: 1 + place % 2],
            f"samples/changed/{place:06d}.png",
            "00",
        )
        for place, label, other in ((12, 8, 1), (31, 2, 3), (77, 8, 9), (200, 5, 9))
    )
    tallies = (
        Tally("phone.tflite", DEVICE, TEST_IMAGES, 5, 4, 1),
        Tally("server.onnx", DEVICE, TEST_IMAGES, 2, 1, 0),
        Tally("tiny.tflite", DEVICE, TEST_IMAGES, 47, 46, 0),
    )
    return Changed(tallies, images, 12, brighter=15)


PIXEL = bytes.fromhex(  # a PNG of one gray pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55"
    "0000000a49444154789c6360000000020001 48afa471 0000000049454e44ae426082".replace(" ", "")
)


def pictures(manifest: Manifest) -> dict[str, bytes]:
    """A picture for each of them."""
    return {image.thumbnail: PIXEL for image in manifest.changed.images} if manifest.changed else {}


def sample() -> Manifest:
    """The whole of it."""
    records = (
        record("original.tflite", "original", "original", "float32", 376_900),
        record("original.onnx", "original", "original", "float32", 379_500),
        record("phone.tflite", "phone", "phone.03-quantize", "int8", 27_034),
        record("server.onnx", "server", "server.03-quantize", "float16", 50_278),
        record("tiny.tflite", "tiny", "tiny.04-quantize", "int8", 9_523),
    )
    return Manifest(
        name="digits-demo",
        status="done",
        started="2026-11-20T14:03:22Z",
        recipe=recipe(),
        seed=0,
        host={
            "cpu": "AMD EPYC 9R14",
            "cores": 2,
            "memory_mib": 7782,
            "system": "Linux 6.8 x86_64",
            "python": "3.11.7",
        },
        versions={
            "edgekit": "0.1.0",
            "tensorflow": "2.21.0",
            "keras": "3.15.0",
            "ai-edge-litert": "2.3.0",
            "onnxruntime": "1.31.0",
        },
        invocation={"recipe": "digits-demo", "model": None, "data": None, "devices": [], "overrides": ["seed=0"]},
        seconds=83.4,
        outcome="FAIL",
        classes=tuple("0123456789"),
        data=data(),
        stages=stages(),
        artifacts=records,
        measurements=measurements(),
        verdicts=verdicts(),
        per_class=per_class(),
        changed=changed(),
        **sample_checks.fields({item.name: item.sha256 for item in records}),
        warnings=("2 images of the test split have a twin in train (same bytes); both stay where they are.",),
    )


def bare() -> Manifest:
    """A run that stopped at once: nothing measured."""
    return Manifest("stopped", "failed", "2026-11-20T14:03:22Z", {}, 0, {}, {}, error="model.keras: not a Keras file.")


HOSTILE = "<script>alert('x')</script>\"&\x1b[31m|`@all`"


def hostile() -> Manifest:
    """Every text the manifest can hold, hostile."""
    bad = HOSTILE
    interval = Interval(0.5, 0.9, 0.95, bad)
    how = {bad: bad}
    worded = dict.fromkeys(("used", "why", "rule", "packed", "2:4", "asked", "found", "in a layer"), bad)
    return Manifest(
        name=bad,
        status="failed",
        started=bad,
        recipe={bad: bad, "table": {bad: [bad, {bad: bad}]}},
        seed=1,
        host={bad: bad},
        versions={bad: bad},
        error=bad,
        outcome="FAIL",
        classes=(bad, "</td>"),
        data=(DataRecord(bad, 3, bad, bad, (1, 2)),),
        stages=(
            StageRecord("original", bad, "source", "", bad, {bad: bad}, 1.0),
            StageRecord(
                bad,
                bad,
                "pass",
                "original",
                bad,
                {bad: bad},
                1.0,
                changes=({"layer": bad, "before": bad, "after": "x", "reason": bad},),
                curves={bad: (1.0, 2.0)},
                notes=(bad,),
            ),
        ),
        artifacts=(
            ArtifactRecord(
                bad,
                bad,
                bad,
                bad,
                bad,
                bad,
                10,
                bad,
                (TensorSpec(bad, (1,), bad),),
                (TensorSpec(bad, (1,), bad),),
                (bad,),
            ),
        ),
        measurements=(
            Measurement(bad, bad, 1.0, bad, "measured", bad, interval, how),
            Measurement(bad, "top1", 0.7, bad, "measured", bad, interval, how),
            Measurement("original", "top1", 0.8, bad, "measured", "", interval, how),
            Measurement(bad, "latency_p50_ms", 2.0, bad, "measured", bad, interval, how),
            Measurement(bad, "zeros", 0.5, bad, "computed", bad, None, worded),
            Measurement(bad, "clusters", 0.5, bad, "computed", bad, None, worded),
        ),
        verdicts=(Verdict(bad, bad, bad, "FAIL", 1.0, 2.0, interval, bad),),
        per_class={bad: ({"correct": 1, "total": 2}, {"correct": 0, "total": 0})},
        warnings=(bad,),
        changed=Changed(
            (Tally(bad, bad, 3, 1, 1, 0),),
            (
                ChangedImage(
                    bad, 1, (0,), Answer("original", "", (0,), True, 0.5), (Answer(bad, bad, (1,), False),), bad, bad
                ),
            ),
            3,
            bad,
        ),
        **sample_checks.hostile(bad),
    )
