"""A file's answers and its latency, by LiteRT or ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 50
ROUNDS, ROUND_SECONDS = 7, 0.1  # of latency, for each file
Answer = Callable[[Any], Any]


def litert(path: Path) -> Answer:
    """One image at a time, one thread; integers at the ends are ours to make."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    before, after = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def answer(images: Any) -> Any:
        results = []
        for image in into(images, before):
            interpreter.set_tensor(before["index"], image[None])
            interpreter.invoke()
            results.append(interpreter.get_tensor(after["index"])[0])
        return out_of(np.stack(results), after)

    return answer


def into(images: Any, detail: Any) -> Any:
    scale, zero = detail["quantization"]
    if not scale:
        return images
    bounds = np.iinfo(detail["dtype"])
    return np.clip(np.round(images / scale) + zero, bounds.min, bounds.max).astype(detail["dtype"])


def out_of(values: Any, detail: Any) -> Any:
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values


def ort(path: Path) -> Answer:
    """In batches where the file takes them, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = BATCH if not isinstance(entry.shape[0], int) else entry.shape[0]

    def answer(images: Any) -> Any:
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return np.concatenate([session.run(None, {entry.name: part})[0] for part in parts])

    return answer


RUN = {".tflite": litert, ".onnx": ort}


def answers(path: Path, images: Any) -> Any:
    """Of all images: each processor has a session of its own and a share of them, in whole batches."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = BATCH * -(-len(images) // (BATCH * workers))
    parts = [images[start : start + each] for start in range(0, len(images), each)]
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(partial(_share, path), parts)))


def _share(path: Path, images: Any) -> Any:
    return RUN[path.suffix](path)(images)


def best_ms(paths: list[Path], image: Any) -> list[float]:
    """Least milliseconds of one image, the files taking turns."""
    answers = [RUN[path.suffix](path) for path in paths]
    best = [float("inf")] * len(paths)
    for _ in range(ROUNDS):
        for number, answer in enumerate(answers):
            end = time.perf_counter() + ROUND_SECONDS
            while (started := time.perf_counter()) < end:
                answer(image)
                best[number] = min(best[number], 1000 * (time.perf_counter() - started))
    return best
