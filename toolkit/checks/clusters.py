"""How few values a delivered file's weights have, what they would take coded by that, and whether a runtime is faster.

The bound is that of coding each value by how often its weight has it (Shannon 1948; Huffman coding comes within a bit a
value of it): gzip also finds repetitions, and may come below it. Each rule names the document it is from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.checks.weights import Weight
from toolkit.checks.zeros import VELA, reads_compressed
from toolkit.core import Artifact, Codebook, Measurement
from toolkit.devices import DeviceProfile

if TYPE_CHECKING:
    from toolkit.core import Array

ONE_BY_ONE = "the file stores each weight by itself, and the runtime computes with all of them"
RULES = {
    "litert": (ONE_BY_ONE, "ai.google.dev/edge/litert, the file format has no codebooks of weights"),
    "tflite-runtime": (ONE_BY_ONE, "ai.google.dev/edge/litert, the file format has no codebooks of weights"),
    "onnxruntime": (ONE_BY_ONE, "onnx.ai, Conv and Gemm take whole weights"),
    "openvino": (ONE_BY_ONE, "onnx.ai, Conv and Gemm take whole weights"),
    "tensorrt": (ONE_BY_ONE, "docs.nvidia.com, TensorRT has sparse weights and no shared ones"),
    "tflite-micro": (
        "look-up tables of weights need a form of the file that this is not, and take longer",
        "tflite-micro, docs/compression.md",
    ),
}


COMPRESSED = (
    "an Ethos-U reads weights compressed by Vela, and fewer values may save it time: see `edgekit device estimate`",
    VELA,
)


@dataclass(frozen=True)
class Coded:
    """Bytes of weights: as stored, and coded by how often each value occurs."""

    stored: float
    coded: float


@dataclass(frozen=True)
class Shared:
    """Layers of a file with few values in each output channel: so many of `layers`, whose channels have more weights
    than that; they hold `share` of all weights of the file. in_channel, in_layer: the largest numbers of values.
    """

    held: int
    layers: int
    share: float
    in_channel: int
    in_layer: int


def coded(weights: Sequence[Weight]) -> Coded:
    """n x H(values) / 8 bytes for each weight, and its codebook: one for all of it or one for each output channel,
    whichever is less, and no more than it takes as it is."""
    stored = bound = 0.0
    for weight in weights:
        own = weight.values.size * weight.bits / 8
        stored += own
        bound += min(own, _bytes(weight.values, weight.bits), sum(_bytes(row, weight.bits) for row in weight.channels))
    return Coded(stored, bound)


def _bytes(values: Array, bits: int) -> float:
    """Of values by their entropy, and of their codebook."""
    import numpy as np

    different, counts = np.unique(values, return_counts=True)
    entropy = float(-(counts * np.log2(counts / values.size)).sum())
    return (entropy + len(different) * bits) / 8


def measure_entropy(subject: str, weights: Sequence[Weight]) -> Measurement:
    """`entropy_bytes`: an estimated bound of what the weights take where they are sent entropy-coded."""
    found = coded(weights)
    what = "estimated bound: of the weights alone, coded by how often each value occurs in a layer or output channel"
    how = {"what": f"{what}, and their codebooks"}
    stored = {"weights_bytes": round(found.stored)}
    return Measurement(subject, "entropy_bytes", round(found.coded), "bytes", "computed", how={**how, **stored})


def shared(weights: Sequence[Weight], values: int) -> Shared:
    """Those with at most so many different values in each output channel; smaller channels say nothing."""
    import numpy as np

    large = [weight for weight in weights if weight.channels.shape[1] > values]
    most = [max(len(np.unique(row)) for row in weight.channels) for weight in large]
    held = [weight for weight, own in zip(large, most, strict=True) if own <= values]
    size, all_sizes = (sum(weight.values.size for weight in some) for some in (held, weights))
    return Shared(
        len(held),
        len(large),
        size / all_sizes if all_sizes else 0.0,
        max((own for own in most if own <= values), default=0),
        max((len(np.unique(weight.values)) for weight in held), default=0),
    )


def measure_clusters(
    artifact: Artifact, found: Shared, claims: Mapping[str, Codebook], device: DeviceProfile, runtime: str
) -> Measurement:
    """`clusters`: the share of weights with few values; what the model has codebooks for, and what the device gains."""
    compressed = reads_compressed(artifact, device)
    why, source = COMPRESSED if compressed else RULES.get(runtime, (ONE_BY_ONE, "unverified"))
    sizes = {codebook.values for codebook in claims.values()}
    asked = f"{'at most ' if len(sizes) > 1 else ''}{max(sizes)} values, {len(claims)} layers"
    used = "open" if compressed else "no"
    how = {"used": used, "why": why, "rule": source, "asked": asked}
    how["found"] = (
        f"{found.in_channel} in each output channel of {found.held} of {found.layers} layers with more weights there"
    )
    how["in a layer"] = str(found.in_layer)
    return Measurement(artifact.name, "clusters", found.share, "", "computed", device=device.name, how=how)
