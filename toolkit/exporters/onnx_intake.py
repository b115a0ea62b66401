"""Puts an intake in front of an .onnx graph: its input becomes uint8 pixels, and nothing behind it changes.

Cast, Gather (channel order), Mul and Add in float32, in every scheme: bit for bit the preprocessing contract. In a Q/DQ
file the QuantizeLinear that was the first operator reads what they give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.core import Layout
from toolkit.exporters.intake import PREFIX, Intake

if TYPE_CHECKING:
    from toolkit.core import Array


def embed(proto: Any, intake: Intake, layout: Layout) -> None:
    """Change a ModelProto in place."""
    import numpy as np
    import onnx

    graph, axis = proto.graph, 1 if layout == "NCHW" else 3
    steps: list[tuple[str, Array | None, dict[str, Any]]] = [("Cast", None, {"to": onnx.TensorProto.FLOAT})]
    if intake.flip:
        steps.append(("Gather", np.array([2, 1, 0], np.int64), {"axis": axis}))
    if set(intake.scale) != {1.0}:
        steps.append(("Mul", _along(intake.scale, axis), {}))
    if set(intake.offset) != {0.0}:
        steps.append(("Add", _along(intake.offset, axis), {}))
    for node in graph.node:
        node.input[:] = [f"{PREFIX}/input" if name == intake.name else name for name in node.input]
    made, at = [], intake.name
    for kind, constant, attributes in steps:
        result = f"{PREFIX}/input" if kind == steps[-1][0] else f"{PREFIX}/{kind.lower()}"
        inputs = [at]
        if constant is not None:
            inputs.append(f"{PREFIX}/{kind.lower()}_by")
            graph.initializer.append(onnx.numpy_helper.from_array(constant, inputs[1]))
        made.append(onnx.helper.make_node(kind, inputs, [result], name=f"{PREFIX}/{kind}", **attributes))
        at = result
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *rest])
    given = next(value for value in graph.input if value.name == intake.name)
    given.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _along(values: tuple[float, ...], axis: int) -> Array:
    """One value for each channel, shaped to be combined with a batch of images."""
    import numpy as np

    return np.array(values, np.float32).reshape([len(values) if each == axis else 1 for each in range(4)])
