"""Files for TensorRT on real networks: top-1 against float in ONNX Runtime, int8 convolutions, seconds to build.

    python benchmarks/tensorrt_forms.py make  --data DIR --out DIR [--models NAME ...]
    python benchmarks/tensorrt_forms.py judge --data DIR --out DIR [--models NAME ...] [--images 8000] [--other GLOB]

`make` writes each network in every form (calibrated by minmax on 500 training images) and calibration images as .npz;
`judge` runs the files on test images (paired 95% intervals, in points) and, where tensorrt_rtx is installed, builds an
engine of each with NVIDIA's own parser and builder on the CPU for SM86. No engine is run. --other: more files in --out
to judge beside them, as `NAME.modelopt.onnx` from NVIDIA's quantizer. Targets: int8 within 0.5 points of float,
agreement at least 0.97, build and lint within 10 s.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import peers_int8
from peers import here

CIFAR = ("mnv2_cifar10_96", "resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg")
IMAGENET = ("mobilenet_v1_025_224_imagenet",)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float16": ("float16", {}),
    "int8-fp32": ("int8", {"rest": "float32"}),
    "int8-fp16": ("int8", {"rest": "float16"}),
}
BATCH = 50
LAYERS = ("Conv", "ConvTranspose")


def images_of(name: str, folder: Path, count: int) -> peers_int8.Data:
    return (peers_int8.cifar if name in CIFAR else peers_int8.imagenet)(folder / "data", count)


# ---------------------------------------------------------------- make


def make(name: str, data: Path, out: Path, corrections: tuple[Any, ...]) -> None:
    """Every form of a network with an open batch, and ONNX Runtime's per-channel file."""
    from dataclasses import replace

    from toolkit.core import ExportContext, PassContext, QuantSpec
    from toolkit.exporters.tensorrt import TensorRT
    from toolkit.passes.quantize import Quantize
    from toolkit.sources.keras import Keras

    model = Keras().load(data / "models" / f"{name}.keras")
    images = images_of(name, data, 1).calibration
    given: Any = here.Images(model.signature.inputs[0].name, images)
    context = PassContext(original=model, calibration=given)
    quantized = Quantize(scheme="int8", flavour="symmetric", corrections=corrections).run(model, context).model
    for form, (scheme, how) in FORMS.items():
        asked = quantized if scheme == "int8" else replace(model, quant=QuantSpec(scheme))  # type: ignore[arg-type]
        started = time.perf_counter()
        artifact = TensorRT(dynamic_batch=True, **how).export(asked, out / f"{name}.{form}.onnx", ExportContext(given))
        print(f"{artifact.path.name}: {time.perf_counter() - started:.1f} s", *artifact.notes, sep="\n  ", flush=True)
    np.savez(out / f"{name}.calibration.npz", x=images.transpose(0, 3, 1, 2))
    if name in IMAGENET:
        floats = out / f"{name}.float32.onnx"
        channels_first = here.Given(model, floats, floats, images.transpose(0, 3, 1, 2))
        here.onnxruntime(per_channel=True)(channels_first, out / f"{name}.onnxruntime.onnx")


# ---------------------------------------------------------------- judge


def answers(path: Path, images: Any) -> Any:
    """Class of each image; files take them channels first unless they say otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    last = session.get_inputs()[0].shape[-1] == images.shape[-1]
    images = images if last else images.transpose(0, 3, 1, 2)
    parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([session.run(None, {name: np.ascontiguousarray(part)})[0].argmax(1) for part in parts])


def placed(path: Path) -> str:
    """Convolutions whose data input comes from a DequantizeLinear, of all in the graph."""
    from toolkit.exporters import onnx_file

    file = onnx_file.read(path)
    nodes = [node for node in file.nodes if node.op_type in LAYERS]
    makers = [file.producers.get(node.input[0]) for node in nodes]
    return f"{sum(maker is not None and maker.op_type == 'DequantizeLinear' for maker in makers)} of {len(nodes)}"


def built(path: Path) -> str:
    """Seconds and int8 convolutions of an engine, by tensorrt_rtx."""
    try:
        from tests import tensorrt_rtx_build as rtx

        started = time.perf_counter()
        found = rtx.build(path.read_bytes(), "SM86", batch=1)
    except ImportError:
        return "not built: no tensorrt_rtx here"
    seconds = time.perf_counter() - started
    return "refuses it" if found.problems else f"{found.int8_convolutions} in {seconds:.1f} s"


def linted(path: Path) -> str:
    """Seconds of the linter."""
    from toolkit.exporters import onnx_file
    from toolkit.tensorrt.lint import lint

    started = time.perf_counter()
    lint(onnx_file.read(path).proto)
    return f"{time.perf_counter() - started:.1f} s"


def judge(name: str, data: Path, out: Path, *, count: int, others: str) -> None:
    """Print a table row for each file."""
    known = images_of(name, data, count)
    files = [out / f"{name}.{form}.onnx" for form in FORMS]
    files += [path for path in sorted(out.glob(others)) if path.name.startswith(name)] if others else []
    right, first = {}, None
    print(
        f"\n{name}, {len(known.labels)} images\n\n| file | top-1 | lost, points (95%) | agreement | int8 convolutions |"
    )
    print("|---|---|---|---|---|")
    for path in files:
        found = answers(path, known.images)
        first = found if first is None else first
        right[path] = found == known.labels
        lost = peers_int8.lost(right[files[0]], right[path])
        cells = f"{100 * right[path].mean():.2f} | {lost} | {(found == first).mean():.4f} | {placed(path)}"
        print(f"| {path.name.removeprefix(name + '.')} | {cells}; RTX {built(path)}; lint {linted(path)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=("make", "judge"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", nargs="+", default=[*CIFAR, *IMAGENET])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--other", default="")
    parser.add_argument("--corrections", nargs="*", default=[], help="of quantize: bias, equalize, ...")
    arguments = parser.parse_args()
    if None in (arguments.step, arguments.data, arguments.out):
        print("skipped: name a step, the folder of trained models and images (--data) and one for the files (--out)")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        if arguments.step == "make":
            make(name, arguments.data, arguments.out, tuple(arguments.corrections))
        else:
            judge(name, arguments.data, arguments.out, count=arguments.images, others=arguments.other)


if __name__ == "__main__":
    main()
