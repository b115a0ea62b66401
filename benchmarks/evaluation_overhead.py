"""Evaluating an int8 TFLite file on 1,000 images against the pure interpreter loop, interleaved in one process.

The pure loop sets, invokes and reads on inputs that are ready in memory. Ours is what the worker does: rows from a
memory-mapped file, quantized where the file is, outputs kept and dequantized. Decoding is apart in both. Target: at
most 1.1.

    python benchmarks/evaluation_overhead.py [--model int8.tflite] [--io int8] [--images 1000] [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "toolkit" / "worker"))
TARGET = 1.1


def default_model(folder: Path, io: str) -> Path:
    """MobileNetV2 0.35 at 96x96 in int8, random weights; io: type of its inputs and outputs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 96, 96, 3)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(call)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(0)
    converter.representative_dataset = lambda: ([rng.random((1, 96, 96, 3), dtype=np.float32)] for _ in range(20))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io)
    path = folder / "mobilenet_v2_035_96_int8.tflite"
    path.write_bytes(converter.convert())
    return path


def pure(interpreter: Any, ready: Any) -> float:
    """Seconds of the plain loop."""
    i, o = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    started = time.perf_counter()
    for row in range(len(ready)):
        interpreter.set_tensor(i, ready[row : row + 1])
        interpreter.invoke()
        interpreter.get_tensor(o)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--io", choices=["float32", "int8"], default="float32", help="ends of the default model")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = args.model or default_model(Path(name), args.io)
        import common  # the worker's own modules, as a device has them
        import litert
        from ai_edge_litert.interpreter import Interpreter

        plain = Interpreter(str(model), num_threads=1)
        plain.allocate_tensors()
        detail = plain.get_input_details()[0]
        images = np.random.default_rng(0).random((args.images, *detail["shape"][1:]), dtype=np.float32)
        np.save(Path(name) / "x.npy", images)
        scale, zero = detail["quantization"]
        integers = detail["dtype"] is not np.float32
        ready = common.quantize(images, detail["dtype"], scale, zero) if integers else images
        output = plain.get_output_details()[0]["name"]
        job = {"runtime": "litert", "delegate": "xnnpack", "threads": 1, "model": str(model), "outputs": {output: ""}}
        runner = litert.Runner(job)
        times: dict[str, list[float]] = {"pure": [], "ours": []}
        for _ in range(args.rounds):
            times["pure"].append(pure(plain, ready))
            started = time.perf_counter()
            runner.run_all({detail["name"]: np.load(Path(name) / "x.npy", mmap_mode="r")}, args.images)
            times["ours"].append(time.perf_counter() - started)
    paired = statistics.median(a / b for a, b in zip(times["ours"], times["pure"], strict=True))
    for label, values in times.items():
        print(f"{label:<5} min {min(values):.3f} s  median {statistics.median(values):.3f} s for {args.images} images")
    reached = "reached" if paired <= TARGET else "missed"
    print(f"ratio, median of {args.rounds} interleaved pairs: {paired:.3f} (target {TARGET}: {reached})")


if __name__ == "__main__":
    main()
