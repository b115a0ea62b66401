"""Where integers flow in a Q/DQ graph: which layers compute in int8, and who reads and writes what.

A model of TensorRT's explicit quantization ("Working with Quantized Types"): a layer takes int8 when a
DequantizeLinear is on each of its inputs, over whatever only moves values; it writes int8 when everything that reads it
goes on to QuantizeLinear. Held against the layers that tensorrt_rtx 1.7 builds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from toolkit.tensorrt.lint_graph import Graph, attribute

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("Gemm", "MatMul")
WEIGHTED = (*CONVOLUTIONS, *PRODUCTS)
# Change the places of values, not the values: quantization moves over them.
MOVING = ("MaxPool", "GlobalMaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split",
          "Pad", "DepthToSpace", "SpaceToDepth", "Identity", "Gather", "Expand", "Dropout")  # fmt: skip
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu")  # fused behind a convolution, before its QuantizeLinear
SUMS = ("Add",)
# Compute without weights; with int8 in, TensorRT wants int8 out (recommendation 5).
PLAIN = ("AveragePool", "GlobalAveragePool", "ReduceMean", "Mul", "Sub", "Concat", *SUMS)


@dataclass(frozen=True)
class Flow:
    """Answers about one graph; nothing in it changes."""

    graph: Graph

    # ------------------------------------------------------------ pairs

    @cached_property
    def dequantizers(self) -> list[Any]:
        return [node for node in self.graph.nodes if node.op_type == "DequantizeLinear"]

    @cached_property
    def quantizers(self) -> list[Any]:
        return [node for node in self.graph.nodes if node.op_type == "QuantizeLinear"]

    def quantizer(self, dequantize: Any) -> Any:
        """The QuantizeLinear whose integers a DequantizeLinear reads, over what moves them; None for stored ones."""
        name = dequantize.input[0]
        while (maker := self.graph.producers.get(name)) is not None and maker.op_type in MOVING:
            name = maker.input[0]
        return maker if maker is not None and maker.op_type == "QuantizeLinear" else None

    def source(self, dequantize: Any) -> str:
        """The float tensor that is quantized, or the stored integers."""
        quantize = self.quantizer(dequantize)
        return str(quantize.input[0] if quantize is not None else dequantize.input[0])

    def of_constant(self, dequantize: Any) -> bool:
        return self.graph.is_constant(self.source(dequantize))

    def scales(self, node: Any) -> Any:
        """The scales of a Q or DQ as an array; None where they are computed."""
        return self.graph.values(node.input[1]) if len(node.input) > 1 else None

    def scale_key(self, node: Any) -> tuple[float, ...] | str:
        """Equal for equal scales."""
        values = self.scales(node)
        return str(node.input[1]) if values is None else tuple(map(float, values.reshape(-1)))

    # ------------------------------------------------------------ inputs

    def supply(self, name: str) -> Any:
        """The DequantizeLinear, of one scale, that gives a tensor, over what moves values; None for a float one."""
        maker = self.graph.producers.get(name)
        while maker is not None and maker.op_type in MOVING and maker.input:
            maker = self.graph.producers.get(maker.input[0])
        if maker is None:
            return None
        if maker.op_type == "DequantizeLinear":
            scales = self.scales(maker)
            return maker if scales is None or scales.size == 1 else None
        if maker.op_type == "Concat":
            given = [self.supply(each) for each in maker.input]
            alike = all(each is not None for each in given) and len({self.scale_key(each) for each in given}) == 1
            return given[0] if alike else None
        return None

    def weight(self, node: Any) -> Any:
        """The DequantizeLinear of constants on a weighted node's second input; None without one."""
        name = node.input[1] if len(node.input) > 1 else ""
        while (maker := self.graph.producers.get(name)) is not None and maker.op_type in (*MOVING, "Cast"):
            name = maker.input[0]
        found = maker is not None and maker.op_type == "DequantizeLinear" and self.of_constant(maker)
        return maker if found else None

    def along_outputs(self, node: Any) -> bool:
        """Whether a weight has one scale, or one for each output of the node (other axes have no int8 kernels)."""
        dequantize = self.weight(node)
        scales = self.scales(dequantize)
        if scales is None or scales.size == 1:
            return True
        if dequantize.output[0] != node.input[1]:  # transposed in between: the axis is another one here
            return True
        rank = len(self.graph.shape(dequantize.output[0]) or (0, 0))
        axis = attribute(dequantize, "axis", 1) % max(rank, 1)
        return bool(axis == output_axis(node, rank))

    # ------------------------------------------------------------ layers

    def computes(self, node: Any) -> bool:
        """Whether a layer takes its inputs in int8 and computes with them."""
        if node.op_type in WEIGHTED:
            return self._product(node)
        if node.op_type in SUMS and self.epilogue(node) is not None:
            return True
        if node.op_type in PLAIN:
            data = [name for name in node.input if not self.graph.is_constant(name)]
            data = data[:1] if node.op_type == "ReduceMean" else data
            return bool(data) and all(self.supply(name) for name in data) and self.demanded(node.output[0])
        return False

    def _product(self, node: Any) -> bool:
        if self.supply(node.input[0]) is None:
            return False
        if self.weight(node) is not None:
            return self.along_outputs(node)
        return node.op_type == "MatMul" and self.supply(node.input[1]) is not None

    def epilogue(self, node: Any) -> Any:
        """The int8 convolution that ends in this sum: it alone is read there, and the other input comes in int8."""
        for index, name in enumerate(node.input):
            maker, other = self.alone(name), node.input[1 - index] if len(node.input) == 2 else ""
            if maker is not None and maker.op_type in CONVOLUTIONS and self._product(maker) and self.supply(other):
                return maker
        return None

    def alone(self, name: str) -> Any:
        """The producer of a tensor that one node reads and that is no output of the network; else None."""
        single = len(self.graph.consumers.get(name, [])) == 1 and name not in self.graph.outputs
        return self.graph.producers.get(name) if single else None

    def demanded(self, name: str) -> bool:
        """Whether whatever reads a tensor takes it in int8, so that its layer can write int8."""
        return name in self._demanded

    @cached_property
    def _demanded(self) -> set[str]:
        """From the end of the network to its beginning, so that each answer rests on those behind it."""
        found: set[str] = set()
        for node in reversed(self.graph.ordered):
            for name in node.output:
                readers = self.graph.consumers.get(name, [])
                if readers and name not in self.graph.outputs and all(self._takes(each, found) for each in readers):
                    found.add(name)
        return found

    def _takes(self, reader: Any, found: set[str]) -> bool:
        if reader.op_type == "QuantizeLinear":
            return True
        moved = reader.op_type in (*MOVING, *ACTIVATIONS) or (
            reader.op_type in SUMS and self.epilogue(reader) is not None
        )
        return moved and reader.output[0] in found

    def writer(self, name: str) -> Any:
        """The layer that writes a tensor in int8 of its own accord, its activation and sum fused; None without one."""
        maker = self.graph.producers.get(name)
        while maker is not None and self.demanded(name) and maker.op_type in (*ACTIVATIONS, *MOVING):
            name = maker.input[0]
            maker = self.graph.producers.get(name)
        if maker is None or not self.demanded(name):
            return None
        if maker.op_type in SUMS and (ended := self.epilogue(maker)) is not None:
            return ended
        return maker if self.computes(maker) else None

    # ------------------------------------------------------------ outputs

    def readers(self, name: str) -> list[tuple[Any, str]]:
        """(node, input) of everything that reads a tensor, over what only moves values; "" for an output."""
        found: list[tuple[Any, str]] = []
        waiting, seen = [name], {name}
        while waiting:
            name = waiting.pop()
            found += [(None, name)] if name in self.graph.outputs else []
            for reader in self.graph.consumers.get(name, []):
                if reader.op_type in MOVING or (reader.op_type == "Concat" and self.supply(reader.output[0])):
                    waiting += [output for output in reader.output if output not in seen]
                    seen.update(reader.output)
                else:
                    found.append((reader, name))
        return found


def output_axis(node: Any, rank: int) -> int:
    """Axis of the outputs in a weighted node's weights."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(str(node.op_type), max(rank - 1, 0))
