"""Wall time of `edgekit run` of static int8 against a hand-written script of the same stages, interleaved.

Both read the model, write float32 and int8 TFLite and ONNX files with the same converters and calibration images,
and answer on the same test images in Keras, LiteRT and ONNX Runtime, an image at a time. Neither measures latency. The
import of TensorFlow is in both and reported apart. Target: at most 1.15.

    python benchmarks/run_overhead.py --model resnet8.keras --calibration train.npz --test test.npz [--preprocess raw]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 1.15

SCRIPT = """
import json, sys, time
start = time.perf_counter()
import keras, numpy as np, tensorflow as tf
imported = time.perf_counter() - start
import onnxruntime as ort, tf2onnx
from onnxruntime import quantization as oq
from ai_edge_litert.interpreter import Interpreter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
model_path, arrays, folder = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
calibration, test, labels = arrays["calibration"], arrays["test"], arrays["labels"]
model = keras.models.load_model(model_path, compile=False)
name = model.inputs[0].name
spec = tf.TensorSpec((1, *test.shape[1:]), tf.float32, name=name)

def accuracy(outputs):
    return float((np.argmax(outputs, 1) == labels).mean())

def freeze():
    call = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(spec)
    return convert_variables_to_constants_v2(call)

def tflite(int8):
    converter = tf.lite.TFLiteConverter.from_concrete_functions([freeze()])
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()

results = {"keras": accuracy(model.predict(test, batch_size=64, verbose=0))}
for int8 in (False, True):
    content = tflite(int8)
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    i, o = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outputs = []
    for image in test:
        interpreter.set_tensor(i, image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(o)[0])
    results[f"tflite {int8}"] = accuracy(np.array(outputs))
    open(f"{folder}/{int8}.tflite", "wb").write(content)

class Reader(oq.CalibrationDataReader):
    def __init__(self): self.items = iter([{name: x[None]} for x in calibration])
    def get_next(self): return next(self.items, None)

frozen = freeze()
name = frozen.inputs[0].name
graph = frozen.graph.as_graph_def()
proto, _ = tf2onnx.convert._convert_common(
    graph, name="m", opset=18,
    input_names=[t.name for t in frozen.inputs], output_names=[t.name for t in frozen.outputs]
)
open(f"{folder}/f.onnx", "wb").write(proto.SerializeToString())
oq.quantize_static(f"{folder}/f.onnx", f"{folder}/q.onnx", Reader(), per_channel=True,
                   activation_type=oq.QuantType.QUInt8, weight_type=oq.QuantType.QInt8)
for file in ("f", "q"):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(f"{folder}/{file}.onnx", options, providers=["CPUExecutionProvider"])
    key = session.get_inputs()[0].name
    outputs = [session.run(None, {key: image[None]})[0][0] for image in test]
    results[f"onnx {file}"] = accuracy(np.array(outputs))
print(json.dumps({"import": imported, "results": results}))
"""


def prepare(args: argparse.Namespace, path: Path) -> None:
    """The images the recipe will draw, as arrays, so that the script need not decode them."""
    import numpy as np

    from toolkit.data import load_splits
    from toolkit.recipe_reader import load_recipe

    recipe = load_recipe("post-training-int8", overrides=overrides(args), model=args.model, data=str(args.calibration))
    shape = _input_shape(args.model)
    splits = load_splits(recipe.data, recipe.data.preprocess.resolve(shape), seed=recipe.seed)
    if splits.calibration is None:
        raise SystemExit("the recipe has no calibration split")
    arrays = {
        name: np.concatenate([batch.inputs["image"] for batch in split.batches(256)])
        for name, split in (("calibration", splits.calibration), ("test", splits.test))
    }
    np.savez(path, labels=splits.test.labels, **arrays)


def _input_shape(model: Path) -> tuple[int | None, ...]:
    from toolkit.inspection import inspect_file

    return tuple(inspect_file(model)["inputs"][0]["shape"])


def overrides(args: argparse.Namespace) -> list[str]:
    """The recipe's settings for this benchmark."""
    found = [
        f"data.preprocess={args.preprocess}",
        "measure.processes=0",
        "data.splits.train=1",
        "variants.int8.passes.0.corrections=[]",  # which the script has none of
    ]
    if args.test:
        found += [f'data.held_out={{path="{args.test.absolute()}"}}', f"data.splits.test={args.images}"]
        found += ["data.splits.selection=1"]
    return found


def edgekit(args: argparse.Namespace, folder: Path) -> None:
    """One run of the recipe."""
    options = [part for text in overrides(args) for part in ("--set", text)]
    command = [sys.executable, "-m", "toolkit", "run", "post-training-int8", "--model", args.model]
    command += ["--data", args.calibration, "--out", folder / "run", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 4):
        raise SystemExit(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calibration", type=Path, help="dataset the calibration images are drawn from")
    parser.add_argument("--test", type=Path, help="dataset of the test images")
    parser.add_argument("--preprocess", default="raw")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not args.model or not args.calibration:
        print("skipped: name a trained model and data (--model, --calibration, --test)")
        return
    found: dict[str, list[float]] = {"edgekit run": [], "script": [], "its import of TensorFlow": []}
    with tempfile.TemporaryDirectory() as name:
        arrays = Path(name) / "arrays.npz"
        prepare(args, arrays)
        for number in range(args.rounds):
            folder = Path(name) / str(number)
            folder.mkdir()
            started = time.perf_counter()
            edgekit(args, folder)
            found["edgekit run"].append(time.perf_counter() - started)
            started = time.perf_counter()
            command = [sys.executable, "-c", SCRIPT, args.model, arrays, folder]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found["script"].append(time.perf_counter() - started)
            found["its import of TensorFlow"].append(json.loads(done.stdout.splitlines()[-1])["import"])
    for label, values in found.items():
        print(f"{label:<26} min {min(values):6.1f} s   median {statistics.median(values):6.1f} s")
    ratios = [ours / theirs for ours, theirs in zip(found["edgekit run"], found["script"], strict=True)]
    ratio = statistics.median(ratios)
    reached = "reached" if ratio <= TARGET else "missed"
    print(f"ratio, median of {args.rounds} interleaved pairs: {ratio:.2f} (target {TARGET}: {reached})")


if __name__ == "__main__":
    main()
