"""Real networks whose int8 files collapse, lose a few points, and pass: the verdict, the layer at fault, the advice.

Beside each verdict stands what one would have seen without a gate: one number of top-1 before and after. The runs are
those of `edgekit run post-training-int8`; all but the last leave out its correction of biases, as other converters do.

    python benchmarks/verdicts.py --data DIR [--test N] [--out DIR] [--only NAME ...] [--sensitivity]

DIR holds models/ and data/ (the environment variable EDGEKIT_DATA names such a folder). --test: images that judge the
CIFAR-10 network. --out: where the runs stay, with their reports; else they are gone at the end. --sensitivity: also
simulate which layer would win most back, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from toolkit import pipeline
from toolkit.runs import Manifest

IMAGENET = (
    "data.preprocess=signed",
    "data.num_classes=1000",
    "data.splits.calibration=calib",
    "data.splits.test=eval",
)
CIFAR = (
    "data.held_out={{path='{data}/cifar10_jpeg_test10k.npz'}}",
    "data.splits.train=1000",
    "data.splits.selection={rest}",
    "data.splits.test={test}",
    "budget.max_accuracy_drop=0.01",
    "budget.min_agreement=0.95",
)
PLAIN = "variants.int8.passes.quantize.corrections=[]"
PER_TENSOR = "variants.int8.passes.quantize.granularity=per_tensor"


@dataclass(frozen=True)
class Case:
    """What to run. data: under DIR/data; settings: of the recipe, {data} and {test} filled in."""

    name: str
    words: str
    model: str
    data: str
    settings: tuple[str, ...]


CASES = (
    Case(
        "collapses",
        "MobileNetV1 0.25, ONNX, one scale for each tensor's weights",
        "mobilenet_v1_025_224_imagenet.keras",
        "imagenet_sample300/labels.csv",
        (*IMAGENET, PLAIN, PER_TENSOR, 'variants.int8.export=["onnx"]'),
    ),
    Case(
        "loses",
        "MobileNetV1 0.25, TFLite, a scale for each channel",
        "mobilenet_v1_025_224_imagenet.keras",
        "imagenet_sample300/labels.csv",
        (*IMAGENET, PLAIN, 'variants.int8.export=["tflite"]', "budget.min_agreement=0.95"),
    ),
    Case(
        "starved",
        "ResNet20, TFLite, ranges from a single image",
        "resnet20_cifar10_jpeg.keras",
        "cifar10_jpeg_train50k.npz",
        # which image it is decides: with others the same file passes, and only the warning is left
        (*CIFAR, PLAIN, "data.splits.train=100", "data.splits.calibration=1", 'variants.int8.export=["tflite"]'),
    ),
    Case(
        "passes",
        "ResNet20, TFLite and ONNX, a scale for each channel",
        "resnet20_cifar10_jpeg.keras",
        "cifar10_jpeg_train50k.npz",
        CIFAR,
    ),
)


def main() -> int:
    """Print a section for each case; 1 where an outcome is not what the case is called."""
    asked = _arguments()
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in (case for case in CASES if not asked.only or case.name in asked.only):
            manifest = _run(case, asked, (asked.out or Path(scratch)) / case.name)
            for line in _said(case, manifest):
                print(line, flush=True)
            if (manifest.outcome == "PASS") != (case.name == "passes"):
                wrong.append(case.name)
    return int(bool(wrong))


def _run(case: Case, asked: argparse.Namespace, out: Path) -> Manifest:
    folder = asked.data / "data"
    filled = {"data": folder, "test": asked.test, "rest": 10_000 - asked.test}
    settings = [each.format(**filled) if "{" in each else each for each in case.settings]
    settings += ["diagnosis.images=16", f"diagnosis.sensitivity={str(asked.sensitivity).lower()}"]
    settings += ["measure.seconds=0.3", "measure.processes=3"]
    model = asked.data / "models" / case.model
    result = pipeline.run("post-training-int8", model=model, data=str(folder / case.data), overrides=settings, out=out)
    return result.manifest


def _said(case: Case, manifest: Manifest) -> Iterator[str]:
    """Verdicts, the layer that is named, and what to do about it."""
    top1 = {m.subject: m.value for m in manifest.measurements if m.name == "top1"}
    images = next(record.images for record in manifest.data if record.split == "test")
    yield f"\n## {case.name}: {case.words}"
    yield f"verdict of the run: {manifest.outcome}, on {images:,} test images, in {manifest.seconds:.0f} s"
    for artifact in manifest.artifacts:
        if artifact.variant != "int8":
            continue
        yield f"{artifact.name}: top-1 {100 * top1['original']:.1f}% -> {100 * top1[artifact.name]:.1f}%"
        for verdict in (each for each in manifest.verdicts if each.artifact == artifact.name):
            yield f"  {verdict.outcome:<12} {verdict.gate}: {verdict.reason}"
        record = manifest.diagnoses.get(artifact.name)
        if record is None:
            yield "  no diagnosis"
            continue
        found = record.diagnosis
        worst = next(row for row in found.errors if row.layer == found.culprit)
        name = f"{found.culprit} (faulty)" if found.faulty else found.culprit
        yield f"  layer: {name}: {worst.alone_db:.1f} dB on its own inputs"
        yield f"  advice: {found.advice}"
    yield from (f"  warning: {warning}" for warning in manifest.warnings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = os.environ.get("EDGEKIT_DATA")
    parser.add_argument("--data", type=Path, default=Path(known) if known else None)
    parser.add_argument("--test", type=int, default=8000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--sensitivity", action="store_true")
    asked = parser.parse_args()
    if asked.data is None:
        print("no --data: nothing is run (CI has no real models)")
        sys.exit(0)
    return asked


if __name__ == "__main__":
    sys.exit(main())
