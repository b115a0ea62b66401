"""What pruning half of a network's multiply-accumulates costs before any training: seconds and memory, on the networks
of keras.applications with random weights; and what share of their channels cannot be removed.

Planning is the search for channel groups, for widths that halve the MACs, and the scores; surgery is the building of
the smaller network. Each network has a process of its own; seconds are that process's own (CPU). Memory is the highest
the process reached, less what it held before the network was there, over the size of the network's weights: the uncut
network itself is 1 of it. Targets: ResNet50 under 30 s and 3 times its size; seconds a layer the same for 50, 101 and
152 layers.

    python benchmarks/surgery.py [NETWORK ...]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEEPER = ("ResNet50", "ResNet101", "ResNet152")
OTHERS = (
    *("ResNet50V2", "MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0"),
    *("EfficientNetV2B0", "DenseNet121", "InceptionV3", "VGG16", "Xception", "ConvNeXtTiny", "NASNetMobile"),
    "InceptionResNetV2",
)
LARGER = {"InceptionV3": 299, "Xception": 299, "InceptionResNetV2": 299}  # sides of the images they are trained on
SECONDS, MEMORY = 30.0, 3.0


def measured(name: str) -> dict[str, Any]:
    """One network, in this process."""
    import keras

    from toolkit.core import Model, PassContext, Signature, TensorSpec
    from toolkit.engine.cost import cost
    from toolkit.engine.flatten import flatten
    from toolkit.engine.groups import find_groups, frozen_channels
    from toolkit.passes.prune import Prune

    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])  # what Keras loads on first use
    empty = _memory("VmRSS")
    side = LARGER.get(name, 224)
    graph = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3))
    if any(isinstance(layer, keras.Model) for layer in graph.layers):
        graph = flatten(graph)
    specs = [TensorSpec(t.name, t.shape, t.dtype, "image") for t in graph.inputs]
    ends = [TensorSpec(n, t.shape, t.dtype) for n, t in zip(graph.output_names, graph.outputs, strict=True)]
    model = Model("keras", graph, Signature(tuple(specs), tuple(ends)))
    size = sum(weight.value.numpy().nbytes for weight in graph.weights)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, cpu = time.perf_counter(), time.process_time()
    pruned = Prune(macs=0.5, reestimate_batchnorm=False).run(model, PassContext()).model.graph
    cpu, wall, peak = time.process_time() - cpu, time.perf_counter() - wall, _memory("VmHWM")
    frozen = frozen_channels(find_groups(graph))
    return {
        "layers": len(graph.layers),
        "mb": size / 1e6,
        "seconds": cpu,
        "wall": wall,
        "memory": (peak - empty) / size,
        "macs": cost(pruned).macs / cost(graph).macs,
        "channels": frozen.channels,
        "frozen": frozen.share,
    }


def _memory(key: str) -> int:
    """Bytes, from the kernel (Linux)."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    if found is None:
        raise SystemExit(f"/proc/self/status has no {key}: this benchmark needs Linux")
    return int(found[1]) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[*DEEPER, *OTHERS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one)))
        return 0
    print("| network | layers | weights MB | seconds | ms a layer | memory | MACs left | channels | frozen |")
    print("|-|-|-|-|-|-|-|-|-|")
    rows = {}
    for name in options.networks:
        command = [sys.executable, __file__, "--one", name]
        row = rows[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"| {name} | {row['layers']} | {row['mb']:.0f} | {row['seconds']:.1f} "
            f"| {1000 * row['seconds'] / row['layers']:.0f} | {row['memory']:.1f} x | {row['macs']:.1%} "
            f"| {row['channels']:,} | {row['frozen']:.1%} |",
            flush=True,
        )
    first = rows.get("ResNet50")
    if first is None:
        return 0
    met = first["seconds"] < SECONDS and first["memory"] < MEMORY
    print(f"ResNet50: {first['seconds']:.1f} s (wall {first['wall']:.1f} s; target {SECONDS:.0f} s), ", end="")
    print(f"{first['memory']:.1f} times its size (target {MEMORY:.0f}): {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
