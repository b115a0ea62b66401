"""How well latency repeats: one file measured twice over, and our minimum against that of `litert-benchmark`.

Two runs of Edgekit's protocol and runs of ai-edge-litert's own benchmark take turns. Targets, for a model of 0.4 ms or
more: the two p50 within 5%, the two minima within 5%.

    python benchmarks/latency_agreement.py [--model model.tflite] [--processes 8] [--seconds 1.0]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from toolkit.measuring import bench_files

TARGET = 0.05


def default_model(folder: Path) -> Path:
    """MobileNetV2 0.35 at 96x96, random weights, float32: about half a millisecond on a desktop core."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, 96, 96, 3)))
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    path = folder / "mobilenet_v2_035_96.tflite"
    frozen = convert_variables_to_constants_v2(call)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    return path


def ours(model: Path, args: argparse.Namespace) -> dict[str, float]:
    """One run of our protocol: name -> milliseconds."""
    found = bench_files([model], processes=args.processes, seconds=args.seconds)
    return {row["name"]: row["value"] for row in found["measurements"]}


def theirs(model: Path, args: argparse.Namespace, folder: Path, estimate_ms: float) -> float:
    """Smallest latency of `litert-benchmark` over as many processes, in milliseconds."""
    tool = Path(sys.executable).with_name("litert-benchmark")
    least = float("inf")
    for number in range(args.processes):
        out = folder / f"{number}.json"
        runs = max(50, round(args.seconds * 1000 / estimate_ms))
        command = [tool, "--model", model, "--num_runs", runs, "--warmup_runs", 200, "--num_threads", 1]
        command += ["--result_json", out]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"litert-benchmark: {done.stderr.strip().splitlines()[-1:]}")
        least = min(least, smallest(json.loads(out.read_text())))
    return least


def smallest(found: object) -> float:
    """The smallest latency anywhere in litert-benchmark's JSON, in milliseconds."""
    if isinstance(found, dict):
        for key, value in found.items():
            if "min" in key and isinstance(value, int | float):
                return float(value)
        for value in found.values():
            with contextlib.suppress(LookupError):
                return smallest(value)
    raise LookupError("no minimum in litert-benchmark's result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = args.model or default_model(Path(name))
        first = ours(model, args)
        reference = theirs(model, args, Path(name), first["latency_p50_ms"])
        second = ours(model, args)
    p50 = abs(first["latency_p50_ms"] - second["latency_p50_ms"]) / first["latency_p50_ms"]
    p5 = abs(first["latency_p5_ms"] - second["latency_p5_ms"]) / first["latency_p5_ms"]
    least = min(first["latency_min_ms"], second["latency_min_ms"])
    gap = abs(least - reference) / reference
    print(f"{model.name}: p50 {first['latency_p50_ms']:.4f} and {second['latency_p50_ms']:.4f} ms")
    for label, value in (("p50, run to run", p50), ("p5, run to run", p5), ("minimum, to litert-benchmark", gap)):
        print(f"  {label:<30} {value:6.1%}   target {TARGET:.0%}: {'reached' if value <= TARGET else 'missed'}")
    print(f"  minima: ours {least:.4f} ms, litert-benchmark {reference:.4f} ms")


if __name__ == "__main__":
    main()
