"""The layers of networks that others publish latencies of, from their papers: no file is needed to count their work.

MobileNetV1: Howard et al. 2017, table 1. MobileNetV2: Sandler et al. 2018, table 2. ResNet-50: He et al. 2015, table 1.
ResNet8: MLPerf Tiny's image classification model. SSD heads: TensorFlow's detection model zoo (six feature maps,
1x1 box predictors, 91 classes); its box decoding, which runs on the CPU, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import UnsupportedError
from toolkit.estimates.workload import BYTES, Kind, Layer
from toolkit.hardware import Arithmetic
from toolkit.registry import suggest

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STAGES_50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))  # SSD: channels of each extra feature map, before and of it
CLASSES_COCO = 91


@dataclass
class _Net:
    """Layers, as they are added to a square feature map of `size` pixels and `channels`."""

    arithmetic: Arithmetic
    size: int
    channels: int = 3
    layers: list[Layer] = field(default_factory=list)

    def conv(self, filters: int, kernel: int = 1, stride: int = 1) -> _Net:
        size = -(-self.size // stride)
        weights = kernel * kernel * self.channels * filters
        self._add("convolution", weights * size * size, weights, filters * size * size)
        self.size, self.channels = size, filters
        return self

    def depthwise(self, stride: int = 1) -> _Net:
        size = -(-self.size // stride)
        self._add("depthwise", 9 * self.channels * size * size, 9 * self.channels, self.channels * size * size)
        self.size = size
        return self

    def add(self) -> _Net:
        count = self.size * self.size * self.channels
        self._add("other", count, count, count)
        return self

    def pool(self, stride: int = 0) -> _Net:
        """Down by a stride, or to one pixel."""
        before = self.size * self.size * self.channels
        self.size = -(-self.size // stride) if stride else 1
        after = self.size * self.size * self.channels
        self._add("other", before, 0, after, read=before)
        return self

    def dense(self, units: int) -> _Net:
        weights = self.channels * units
        self._add("dense", weights, weights, units)
        self.channels = units
        return self

    def side(self, filters: int) -> None:
        """A convolution of 1x1 that reads the feature map and leaves it as it is."""
        weights, pixels = self.channels * filters, self.size * self.size
        self._add("convolution", weights * pixels, weights, filters * pixels)

    def _add(self, kind: Kind, operations: int, weights: int, written: int, *, read: int | None = None) -> None:
        taken = self.size * self.size * self.channels if read is None else read
        moved = BYTES[self.arithmetic] * (taken + weights + written)
        self.layers.append(Layer(f"{len(self.layers)}", kind, kind, self.arithmetic, operations, moved))


def layers_of(model: str, arithmetic: Arithmetic) -> tuple[Layer, ...]:
    """The layers of a network by the name that published figures have; UnsupportedError for one that is not known."""
    if model not in MODELS:
        raise UnsupportedError(model, "its layers are not known", suggest(model, MODELS))
    return tuple(MODELS[model](arithmetic).layers)


def _v1_body(arithmetic: Arithmetic, alpha: float, size: int, blocks: int = len(V1)) -> _Net:
    net = _Net(arithmetic, size).conv(_width(32, alpha), 3, 2)
    for filters, stride in V1[:blocks]:
        net.depthwise(stride).conv(_width(filters, alpha))
    return net


def _v2_body(arithmetic: Arithmetic, size: int, heads: Callable[[_Net], None] = lambda net: None) -> _Net:
    """heads: called on the expansion of the thirteenth block, which SSD reads from."""
    net = _Net(arithmetic, size).conv(32, 3, 2)
    block = 0
    for expansion, filters, repeats, first in V2:
        for repeat in range(repeats):
            stride, taken = (first, net.channels) if repeat == 0 else (1, net.channels)
            if expansion > 1:
                net.conv(expansion * taken)
            if block == 13:
                heads(net)
            net.depthwise(stride).conv(filters)
            if stride == 1 and taken == filters:
                net.add()
            block += 1
    return net.conv(1280)


def _mobilenet_v1(alpha: float, size: int, classes: int) -> Callable[[Arithmetic], _Net]:
    return lambda arithmetic: _v1_body(arithmetic, alpha, size).pool().dense(classes)


def _mobilenet_v2(arithmetic: Arithmetic) -> _Net:
    return _v2_body(arithmetic, 224).pool().dense(1000)


def _resnet50(arithmetic: Arithmetic) -> _Net:
    net = _Net(arithmetic, 224).conv(64, 7, 2).pool(2)
    for filters, repeats, first in STAGES_50:
        for repeat in range(repeats):
            stride = first if repeat == 0 else 1
            if repeat == 0:
                before, size = net.channels, net.size
                net.conv(4 * filters, 1, stride)
                net.channels, net.size = before, size
            net.conv(filters).conv(filters, 3, stride).conv(4 * filters).add()
    return net.pool().dense(1000)


def _resnet8(arithmetic: Arithmetic) -> _Net:
    net = _Net(arithmetic, 32).conv(16, 3)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        if stride > 1:
            before, size = net.channels, net.size
            net.conv(filters, 1, stride)
            net.channels, net.size = before, size
        net.conv(filters, 3, stride).conv(filters, 3).add()
    return net.pool().dense(10)


def _predictors(net: _Net, boxes: int = 6) -> None:
    net.side(boxes * 4)
    net.side(boxes * CLASSES_COCO)


def _ssd(net: _Net, alpha: float = 1.0) -> _Net:
    """The head on the last feature map and on four more, made of it."""
    _predictors(net)
    for narrow, wide in EXTRA:
        net.conv(_width(narrow, alpha)).conv(_width(wide, alpha), 3, 2)
        _predictors(net)
    return net


def _ssd_v1_075(arithmetic: Arithmetic) -> _Net:
    net = _v1_body(arithmetic, 0.75, 300, blocks=11)
    _predictors(net, 3)
    for filters, stride in V1[11:]:
        net.depthwise(stride).conv(_width(filters, 0.75))
    return _ssd(net)


def _ssd_v2(arithmetic: Arithmetic) -> _Net:
    return _ssd(_v2_body(arithmetic, 300, lambda net: _predictors(net, 3)))


def _width(filters: int, alpha: float) -> int:
    return max(8, int(filters * alpha + 4) // 8 * 8)


MODELS: dict[str, Callable[[Arithmetic], _Net]] = {
    "mobilenet_v1_1.0_224": _mobilenet_v1(1.0, 224, 1000),
    "mobilenet_v1_0.25_96": _mobilenet_v1(0.25, 96, 2),
    "mobilenet_v2_1.0_224": _mobilenet_v2,
    "resnet50_224": _resnet50,
    "resnet8_32": _resnet8,
    "ssd_mobilenet_v1_0.75_300": _ssd_v1_075,
    "ssd_mobilenet_v2_300": _ssd_v2,
}
