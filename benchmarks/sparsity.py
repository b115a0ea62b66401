"""What zeros in weights are worth: size, size after gzip, and latency beside the same file with its own weights.

The zeros are those of the smallest magnitudes of each weight, put into the written file: sizes and latency do not
depend on what a training would make of the others. "packed" is the exporter's pack_sparse. Latency: processor time of
one thread, files of one model in turns of changing order, its fifth percentile as a share of the dense file's. 2:4 is
along input channels.

    python benchmarks/sparsity.py [--data DIR] [--models NAME ...] [--files DIR] [--rounds 300]

Without --data: MobileNetV1 0.25 with random weights. With it: the float32 and int8 .tflite and the float32 .onnx of
four models of DIR/models, or of those named, calibrated on noise; --files keeps them, and takes those that are there.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from toolkit.errors import UnsupportedError

MODELS = ("resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg", "mnv2_cifar10_96", "mobilenet_v1_025_224_imagenet")
FORMS = ("float32.tflite", "int8.tflite", "float32.onnx")
SHARES: tuple[float | str, ...] = (0.0, 0.5, 0.7, 0.9, "2:4")


def written(folder: Path, data: Path | None, names: list[str]) -> Iterator[tuple[str, str, Path]]:
    """(model, form, its dense file)."""
    for name in names:
        paths = {form: folder / f"{name}.{form}" for form in FORMS}
        if any(not path.exists() for path in paths.values()):
            export(data, name, paths)
        yield from ((name, form, path) for form, path in paths.items())


def export(data: Path | None, name: str, paths: dict[str, Path]) -> None:
    """Write the files that are missing."""
    from dataclasses import replace

    from toolkit.core import ExportContext, Model, QuantSpec
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    model: Model = Keras().load(model_path(data, name, paths["float32.onnx"].parent))
    for form, path in paths.items():
        if path.exists():
            continue
        scheme, _, suffix = form.partition(".")
        asked = replace(model, quant=QuantSpec(scheme=scheme))  # type: ignore[arg-type]
        (TFLite() if suffix == "tflite" else ONNX()).export(asked, path, ExportContext(Noise(model)))  # type: ignore[arg-type]


def model_path(data: Path | None, name: str, folder: Path) -> Path:
    if data is not None:
        return data / "models" / f"{name}.keras"
    import keras

    keras.utils.set_random_seed(0)
    path = folder / f"{name}.keras"
    keras.applications.MobileNet((224, 224, 3), alpha=0.25, weights=None).save(path)
    return path


class Noise:
    """Images to calibrate on: of no account for size and latency."""

    name, fingerprint, classes, labels = "noise", "0", (), np.zeros(8, np.int64)

    def __init__(self, model: Any) -> None:
        self.spec = model.signature.inputs[0]

    def __len__(self) -> int:
        return 8

    def batches(self, size: int) -> Iterator[Any]:
        from toolkit.core import Batch

        images = np.random.default_rng(0).uniform(0, 1, (len(self), *self.spec.shape[1:])).astype(np.float32)
        for start in range(0, len(self), size):
            rows = images[start : start + size]
            yield Batch({self.spec.name: rows}, {}, tuple(str(start + number) for number in range(len(rows))))


def zeroed(array: Any, share: float | str, axis: int) -> Any:
    """An array with zeros; axis: of the input channels."""
    found = array.copy()
    if share == "2:4":
        rows = np.moveaxis(found, axis, -1)
        if rows.shape[-1] % 4 == 0:
            groups = rows.reshape(-1, 4)
            least = np.argsort(np.abs(groups.astype(np.float32)), axis=1, kind="stable")[:, :2]
            np.put_along_axis(groups, least, 0, axis=1)
            found = np.ascontiguousarray(np.moveaxis(groups.reshape(rows.shape), -1, axis))
        return found
    size = np.abs(found.astype(np.float32)).ravel()
    found.flat[np.argsort(size, kind="stable")[: round(size.size * float(share))]] = 0
    return found


def sparse_tflite(content: bytes, share: float | str) -> bytes:
    """A .tflite file with zeros in the weights that can be packed; depthwise ones stay whole, as `sparsify` has it."""
    from toolkit.exporters import tflite_file, tflite_packed

    model = tflite_file.parse(content)
    kinds = tflite_file.kinds(model)
    for graph in model.subgraphs:
        chosen = {
            int(op.inputs[1]) for op in graph.operators if kinds[op.opcodeIndex] in ("CONV_2D", "FULLY_CONNECTED")
        }
        for index in chosen & set(tflite_packed.weights(graph, model)):
            tensor = graph.tensors[index]
            array = zeroed(tflite_file.constant(tensor, model), share, -1)
            model.buffers[tensor.buffer].data = np.frombuffer(array.tobytes(), np.uint8)
    return tflite_file.pack(model)


def sparse_onnx(content: bytes, share: float | str) -> bytes:
    import onnx
    from onnx import numpy_helper

    proto = onnx.load_from_string(content)
    grouped = {n.input[1] for n in proto.graph.node for a in n.attribute if a.name == "group" and a.i > 1}
    weights = {n.input[1] for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")} - grouped
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(zeroed(array, share, 1 if array.ndim == 4 else 0), tensor.name))
    return bytes(proto.SerializeToString())


def litert(content: bytes) -> Callable[[], None]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        rows = np.random.default_rng(0).uniform(0, 1, detail["shape"]) * (255 if detail["dtype"] != np.float32 else 1)
        interpreter.set_tensor(detail["index"], rows.astype(detail["dtype"]))
    return interpreter.invoke  # type: ignore[no-any-return]


def onnxruntime(content: bytes) -> Callable[[], None]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in first.shape]
    feed = {first.name: np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)}
    return lambda: session.run(None, feed)


def fifths(runners: dict[Any, Callable[[], None]], rounds: int) -> dict[Any, float]:
    """Fifth percentile of each file's processor time, in turns."""
    taken: dict[Any, list[int]] = {key: [] for key in runners}
    keys, rng = list(runners), np.random.default_rng(0)
    for number in range(rounds + 20):
        for place in rng.permutation(len(keys)):  # what ran before leaves its mark on the caches
            key = keys[place]
            started = time.thread_time_ns()
            runners[key]()
            if number >= 20:
                taken[key].append(time.thread_time_ns() - started)
    return {key: float(np.percentile(times, 5)) for key, times in taken.items()}


def rows(form: str, path: Path, rounds: int) -> Iterator[tuple[str, int, int, float]]:
    """(what, bytes, bytes after gzip, latency as a share of the dense file's)."""
    from toolkit.exporters import tflite_packed

    dense, is_onnx = path.read_bytes(), form.endswith("onnx")
    files: dict[str, bytes] = {}
    for share in SHARES:
        label = f"{share:.0%}" if isinstance(share, float) else str(share)
        files[label] = (sparse_onnx if is_onnx else sparse_tflite)(dense, share)
        if share and not is_onnx:
            try:
                files[f"{label} packed"] = tflite_packed.pack(files[label])[0]
            except UnsupportedError:
                files[f"{label} packed"] = b""
    files["0% again"] = dense  # what is between two of the same is noise
    opened = {label: (onnxruntime if is_onnx else litert)(content) for label, content in files.items() if content}
    times = fifths(opened, rounds)
    for label, content in files.items():
        packed = len(gzip.compress(content, 9, mtime=0)) if content else 0
        yield label, len(content), packed, times[label] / times["0%"] if content else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", metavar="NAME", help=f"of DIR/models; default: {' '.join(MODELS)}")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    args = parser.parse_args()
    if args.models and not args.data:
        parser.error("--models names models of --data DIR")
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    names = args.models or list(MODELS) if args.data else ["mobilenet_v1_025_random"]
    for name in names if args.data else ():
        if not model_path(args.data, name, args.data).is_file():
            parser.error(f"no such model: {model_path(args.data, name, args.data)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("| model | file | zeros | KiB | gzip KiB | latency |\n|---|---|---|---|---|---|")
        for name, form, path in written(folder, args.data, names):
            for label, size, packed, ratio in rows(form, path, args.rounds):
                shown = f"{size / 1024:,.0f} | {packed / 1024:,.0f} | {ratio:.2f}" if size else "no smaller | - | -"
                print(f"| {name} | {form} | {label} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
