"""ONNX Runtime's GPU providers: what they are asked, and what they really ran, which a session alone does not tell.

ONNX Runtime runs on the CPU whatever a provider does not take, and all of it where the provider cannot be loaded. So
one run is profiled, in a session of its own, and its nodes are counted by provider.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

import onnx_types
import trt_build

CPU = "CPUExecutionProvider"
TITLES = {CPU: "CPU", "CUDAExecutionProvider": "CUDA", "TensorrtExecutionProvider": "TensorRT"}
PACKAGE = "onnxruntime-gpu, in place of onnxruntime (on a Jetson: NVIDIA's own build of it)"
ENDING = "_kernel_time"  # of a node's event in a profile


class Node(NamedTuple):
    """One node of an optimized graph as it ran. operator: of a whole subgraph, the provider's name for it."""

    name: str
    operator: str
    provider: str


def providers(delegate: str, job: Dict[str, Any]) -> List[Tuple[str, Dict[str, Any]]]:
    """Providers of a delegate with their options, the one that was asked for first.

    What TensorRT does not take goes to CUDA. Float16 and int8 are allowed where the file holds them; engines are kept
    in the job's work folder alone, since to load one is to run it.
    """
    cuda = ("CUDAExecutionProvider", {"device_id": 0})
    if delegate == "cuda":
        return [cuda]
    held = onnx_types.held(job["model"])
    folder = os.path.join(os.path.dirname(os.path.abspath(job["result"])), "ort-engines")
    asked = job.get("build") or {}
    workspace_mib, _ = trt_build.workspace(asked.get("workspace_mib"), *trt_build.memory())
    options: Dict[str, Any] = {
        "device_id": 0,
        "trt_max_workspace_size": workspace_mib << 20,
        "trt_fp16_enable": "float16" in held,
        "trt_int8_enable": "int8" in held,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": folder,
    }
    options.update(_shapes(asked.get("shapes") or {}))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return [("TensorrtExecutionProvider", options), cuda]


def _shapes(shapes: Dict[str, Any]) -> Dict[str, str]:
    """{input: [least, usual, greatest]} as the provider writes it: `x:1x3x96x96,z:1x4`."""
    found: Dict[str, List[str]] = {}
    for name, value in shapes.items():
        ranges = [value[key] for key in ("least", "usual", "greatest")] if isinstance(value, dict) else value
        for key, shape in zip(("min", "opt", "max"), ranges):
            found.setdefault("trt_profile_%s_shapes" % key, []).append("%s:%s" % (name, "x".join(map(str, shape))))
    return {key: ",".join(texts) for key, texts in found.items()}


def nodes(profile: Iterable[Dict[str, Any]]) -> List[Node]:
    """The nodes of a profile, each once, in the order they ran; copies between devices are none of the file's."""
    found: Dict[Tuple[str, str], Node] = {}
    for event in profile:
        name, arguments = event.get("name", ""), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(ENDING) or "provider" not in arguments:
            continue
        node = Node(name[: -len(ENDING)], arguments.get("op_name", ""), arguments["provider"])
        if not node.operator.startswith("Memcpy"):
            found.setdefault((node.name, str(arguments.get("node_index", ""))), node)
    return list(found.values())


def read(path: str) -> List[Node]:
    """The nodes of a profile that ONNX Runtime wrote."""
    with open(path) as file:
        return nodes(json.load(file))


def words(asked: str, found: List[Node]) -> str:
    """`CUDA 41 of 43 nodes; on the CPU: Softmax, Resize`. A node may be a whole subgraph under TensorRT."""
    counts: Dict[str, int] = {}
    for node in found:
        counts[node.provider] = counts.get(node.provider, 0) + 1
    parts = ["%s %d of %d nodes" % (title(asked), counts.get(asked, 0), len(found))]
    parts[0] += " (a node may be a whole subgraph)" if asked.startswith("Tensorrt") else ""
    others = [name for name in counts if name not in (asked, CPU)]
    parts += ["%s %d" % (title(name), counts[name]) for name in others]
    left = sorted({node.operator for node in found if node.provider == CPU})
    return ", ".join(parts) + ("; on the CPU: %s" % ", ".join(left) if left else "")


def title(provider: str) -> str:
    """A provider's name for people."""
    return TITLES.get(provider, provider)
