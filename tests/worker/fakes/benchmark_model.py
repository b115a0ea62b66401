"""Stands in for TFLite's benchmark_model: a table of options of its own, and real inferences by LiteRT.

Options and lines are those of tensorflow/lite/tools/benchmark (benchmark_model.cc, benchmark_tflite_model.cc,
profile_summary_formatter.cc); BENCHMARK_MODEL_AGE=old prints no percentiles, as those before 2024 do.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

OPTIONS = {
    "graph": str,
    "num_threads": int,
    "warmup_runs": int,
    "warmup_min_secs": float,
    "num_runs": int,
    "min_secs": float,
    "max_secs": float,
    "use_xnnpack": lambda text: {"true": True, "false": False}[text],
    "report_peak_memory_footprint": lambda text: {"true": True, "false": False}[text],
    "enable_op_profiling": lambda text: {"true": True, "false": False}[text],
    "op_profiling_output_mode": str,
    "op_profiling_output_file": str,
}
CSV = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
ModifyGraphWithDelegate, 0, 0.9, 0.9, 90%, 90%, 0, 1, ModifyGraphWithDelegate/0
AllocateTensors, 0.9, 0.1, 0.1, 10%, 100%, 0, 2, AllocateTensors/0

Number of nodes executed: 2

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0, 0.11, 0.3, 60%, 60%, 0, 1, [net/conv/Relu]:0
Convolution (NHWC, F32) IGEMM, 0.3, 0.026, 0.15, 30%, 90%, 0, 1, Delegate/Convolution:1
SOFTMAX, 0.45, 0.05, 0.05, 10%, 100%, 0, 1, [Identity]:2

============================== Top by Computation Time ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0, 0.11, 0.3, 60%, 60%, 0, 1, [net/conv/Relu]:0
"""


def parsed(arguments: list[str]) -> tuple[dict, list[str]]:
    known, unknown = {}, []
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in OPTIONS:
            known[name] = OPTIONS[name](value)
        else:
            unknown.append(argument)
    return known, unknown


def timed(invoke, runs: int, seconds: float) -> list[int]:
    samples, stop = [], time.perf_counter() + seconds
    while len(samples) < runs or time.perf_counter() < stop:
        before = time.perf_counter_ns()
        invoke()
        samples.append((time.perf_counter_ns() - before) // 1000)
    return samples


def stat(samples: list[int]) -> str:
    import statistics

    mean, spread = statistics.fmean(samples), statistics.pstdev(samples)
    text = f"count={len(samples)} first={samples[0]} curr={samples[-1]} min={min(samples)} max={max(samples)}"
    text += f" avg={mean:g} std={spread:.0f}"
    if os.environ.get("BENCHMARK_MODEL_AGE") == "old":
        return text
    ranked = sorted(samples)
    at = {share: ranked[min(len(ranked) - 1, len(ranked) * share // 100)] for share in (5, 50, 95)}
    return f"{text} p5={at[5]} median={at[50]} p95={at[95]}"


def main() -> int:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    options, unknown = parsed(sys.argv[1:])
    print("INFO: STARTING!")
    if unknown:
        print(f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}")
    if not Path(options["graph"]).is_file():
        print(f"ERROR: Failed to mmap model {options['graph']}\nERROR: Benchmarking failed.", file=sys.stderr)
        return 1
    started = time.perf_counter()
    kind = OpResolverType.AUTO if options["use_xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        net = Interpreter(options["graph"], num_threads=options["num_threads"], experimental_op_resolver_type=kind)
        net.allocate_tensors()
    except (ValueError, RuntimeError):
        print("ERROR: Failed to construct interpreter\nERROR: Benchmarking failed.", file=sys.stderr)
        return 1
    load = int((time.perf_counter() - started) * 1e6)
    if options["use_xnnpack"]:
        words = "Replacing 3 out of 3 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions"
        print(f"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nVERBOSE: {words} for subgraph 0.")
    if options.get("enable_op_profiling"):
        assert options["op_profiling_output_mode"] == "csv"
        Path(options["op_profiling_output_file"]).write_text(CSV)
    warm = timed(net.invoke, options["warmup_runs"], options["warmup_min_secs"])
    print(f"INFO: {stat(warm)}\n")
    samples = timed(net.invoke, options["num_runs"], options["min_secs"])
    print(f"INFO: {stat(samples)}\n")
    means = [sum(part) / len(part) for part in (warm, samples)]
    print(
        f"INFO: Inference timings in us: Init: {load}, First inference: {warm[0]}, "
        f"Warmup (avg): {means[0]:g}, Inference (avg): {means[1]:g}"
    )
    print("INFO: Memory footprint delta from the start of the tool (MB): init=3.1 overall=4.5")
    if options["report_peak_memory_footprint"]:
        print("INFO: Overall peak memory footprint (MB) via periodic monitoring: 6.25")
    return 0


if __name__ == "__main__":
    sys.exit(main())
