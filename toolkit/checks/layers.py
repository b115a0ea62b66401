"""Error by layer in a delivered file: every tensor it computes beside the float model's, on a few images.

.tflite files run with LiteRT's built-in kernels and every tensor kept, .onnx files with ONNX Runtime, unoptimized and
with every tensor as an output, so that each operator computes what the file says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Dataset
from toolkit.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.replay import Match, Replay, Trace

IMAGES = 16  # enough for sums over whole tensors; one network's SQNR moved by less than 0.5 dB beyond
TOGETHER = 4  # images whose tensors are in memory at once
FAULT_DB = 15.0  # two bits and a half: MobileNetV2's depthwise layers, with uneven channels, lose up to 12
SAME_SCALE = (
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "RESHAPE",
    "PAD",
    "TRANSPOSE",
    "SQUEEZE",
)  # LiteRT's 8-bit specification
RIGHT = 1.1  # largest weight of a layer in the file over that in the model, or less
MISREAD = 1.02  # LiteRT's own tolerance between a bias's scale and that of input times weights (kernel_util.cc)
DECIBELS = 200.0  # float32 itself ends near 150 dB; no error at all is written as this


@dataclass(frozen=True)
class LayerError:
    """One tensor of a file, and the layer (of the prepared graph) it is. layers: fused into it, with that one.

    sqnr_db: against the float model's tensor, with all errors before it. alone_db: against the float layer run on the
    file's own inputs of it: the layer's own. lost_db: how much less that is than 8 bits over the layer's values, or the
    step that a rule gives it, would have. saturated: share of values that the float layer has beyond the ends of the
    tensor's integers. scale: one number for the tensor, 0 for floats. low, high: of its values. operator: as the file
    has it. misread: the layer before it whose scale does not fit what this operator stores (a bias, or integers it only
    passes on).
    """

    layer: str
    layers: tuple[str, ...]
    operator: str
    tensor: str
    dtype: str
    sqnr_db: float
    alone_db: float
    lost_db: float
    low: float
    high: float
    saturated: float
    scale: float
    zero_point: int
    misread: str = ""


@dataclass(frozen=True)
class Culprit:
    """layer: at fault. row: where it shows. faulty: it loses what 8 bits do not explain."""

    layer: str
    row: LayerError
    faulty: bool


@dataclass(frozen=True)
class LayerErrors:
    """rows: one a layer, in the file's order. unmatched: tensors that are inside a layer, or of no layer."""

    rows: tuple[LayerError, ...]
    images: int
    unmatched: int

    def worst_first(self) -> tuple[LayerError, ...]:
        """By each layer's own error."""
        return tuple(sorted(self.rows, key=lambda row: row.alone_db))

    def culprit(self) -> Culprit | None:
        """The layer most likely at fault: the one that loses most where one loses too much, else the worst."""
        if not self.rows:
            return None
        wrong = max(self.rows, key=lambda row: row.lost_db)
        row = wrong if wrong.lost_db >= FAULT_DB else self.worst_first()[0]
        return Culprit(row.misread or row.layer, row, faulty=row.lost_db >= FAULT_DB)


def layer_errors(path: Path, model: Any, images: Mapping[str, Array]) -> LayerErrors:
    """Errors of a .tflite or .onnx file against a Keras graph.

    model: the float graph the file was written from. images: float32, channels last, by input name.
    Raises UnsupportedError for a file whose tensors are not that graph's at all.
    """
    from toolkit.engine.prepare import prepare
    from toolkit.engine.replay import Replay

    file = _opened(path)
    replay, count = Replay(prepare(model).graph), len(next(iter(images.values())))
    for start in range(0, count, TOGETHER):
        replay.add(file.trace({name: array[start : start + TOGETHER] for name, array in images.items()}))
    ends = {replay.graph.calls[edge.call].name for edge in replay.graph.inputs}
    if not any(found.layer not in ends for found in replay.matches):
        fix = "name the trained model that the file was written from"
        raise UnsupportedError(str(path), "none of its tensors is one of the model's layers", fix)
    steps = _steps(replay)
    rows = _by_layer([_row(file, found, replay, steps.get(found.edge)) for found in replay.matches])
    return LayerErrors(rows, count, len(file.tensors) - len(replay.matches))


def take_images(data: Dataset, count: int = IMAGES) -> dict[str, Array]:
    """The first images of a split, by input name."""
    import numpy as np

    batch = next(iter(data.batches(min(count, len(data)))), None)
    if batch is None:
        raise InputError("data", "has no image", "give images")
    return {name: np.asarray(array, np.float32) for name, array in batch.inputs.items()}


def _steps(replay: Replay) -> dict[Any, float]:
    """Of tensors whose scale is a rule's, which may be wider than their values need: softmax and the like have a step.

    0 is the file's own: of those that have another tensor's (pooling, joined ones).
    """
    from toolkit.engine.replay import STEPS
    from toolkit.engine.stored import stored

    tensors = stored(replay.model)
    prescribed = {edge: (high - low) / STEPS for edge, (low, high) in tensors.fixed.items()}
    shared = {edge for edge, source in tensors.source.items() if edge != source or source in tensors.shared}
    return dict.fromkeys(shared, 0.0) | prescribed


def _row(file: Any, found: Match, replay: Replay, step: float | None) -> LayerError:
    sums, known = replay.errors[found.tensor], file.tensors[found.tensor]
    possible = sums.possible_db(0.0 if step is None else step or known.scale)
    return LayerError(
        layer=found.layer,
        layers=found.layers,
        operator=found.kind,
        tensor=known.name,
        dtype=known.dtype,
        sqnr_db=bounded(sums.sqnr_db),
        alone_db=bounded(sums.alone_db),
        lost_db=max(0.0, bounded(possible) - bounded(sums.alone_db)),
        low=sums.low,
        high=sums.high,
        saturated=sums.saturated,
        scale=known.scale,
        zero_point=known.zero_point,
        misread=_misread(file, found, replay),
    )


def _misread(file: Any, found: Match, replay: Replay) -> str:
    """The layer whose scale an operator's own numbers contradict, where its weights are the model's."""
    key = file.contradicts(found.tensor, _largest_weight(found, replay.model))
    return next((each.layer for each in replay.matches if each.tensor == key), "") if key is not None else ""


def _largest_weight(found: Match, model: Any) -> float:
    import numpy as np

    kernels = [layer.kernel for name in found.layers if hasattr(layer := model.get_layer(name), "kernel")]
    return max((float(np.abs(np.asarray(kernel)).max()) for kernel in kernels), default=0.0)


def _by_layer(rows: Sequence[LayerError]) -> tuple[LayerError, ...]:
    """One row a layer: of its tensors (a value, then the same rounded) the worst, with what is left at its end."""
    worst: dict[str, LayerError] = {}
    for row in rows:
        known = worst.get(row.layer)
        chosen = row if known is None or row.alone_db < known.alone_db else known
        worst[row.layer] = replace(chosen, sqnr_db=row.sqnr_db)
    return tuple(worst.values())


def bounded(value: float) -> float:
    """Decibels that any reader of JSON takes."""
    return max(-DECIBELS, min(DECIBELS, value)) if not math.isnan(value) else -DECIBELS


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


def _opened(path: Path) -> Any:
    kinds = {".tflite": _LiteRT, ".onnx": _ONNX}
    if path.suffix.lower() not in kinds:
        raise InputError(str(path), "is neither a .tflite nor an .onnx file", "name a delivered file")
    return kinds[path.suffix.lower()](path)


class _LiteRT:
    """A .tflite file, every tensor kept."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        from toolkit.exporters import tflite_file

        try:
            self._interpreter = Interpreter(
                model_path=str(path),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(str(path), f"LiteRT cannot run it: {text[0]}", "write it anew") from error
        content = path.read_bytes()
        model = tflite_file.parse(content)
        graph, constants = model.subgraphs[0], tflite_file.constant_indexes(content)
        names = {value: key for key, value in vars(tflite_file.generated().BuiltinOperator).items() if key[0] != "_"}
        self._nodes = tuple(_nodes(model, graph, constants, names))
        read = tflite_file.read(path).operators  # the first graph's come first
        made = zip(graph.operators, read, strict=False)
        self._operators = {int(output): known for operator, known in made for output in operator.outputs}
        self._reads = {node.output: next(iter(node.inputs), None) for node in self._nodes}
        self._inputs = {tflite_file.text(pair.name): int(pair.tensorIndex) for pair in _signed(model)}
        self._order = [int(index) for index in graph.inputs]
        details = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        self.tensors = {node.output: _detail(details[node.output]) for node in self._nodes}
        self._details = {key: details[key] for key in (*self.tensors, *self._order)}

    def trace(self, images: Mapping[str, Array]) -> Trace:
        """All tensors for some images, one image at a time."""
        import numpy as np

        from toolkit.engine.replay import Trace

        rows: dict[int, list[Array]] = {key: [] for key in self._details}
        count = len(next(iter(images.values())))
        for i in range(count):
            for key in self._order:
                self._interpreter.set_tensor(key, self._given(key, images, i))
            self._interpreter.invoke()
            for key, found in rows.items():
                found.append(self._interpreter.get_tensor(key))
        stacked = {key: np.concatenate([np.atleast_1d(each) for each in found]) for key, found in rows.items()}
        values = {key: _real(array, *self._details[key]["quantization"]) for key, array in stacked.items()}
        limits = {key: ends for key, known in self.tensors.items() if (ends := _limits(known))}
        return Trace(self._nodes, tuple(self._order), values, limits)

    def contradicts(self, key: int, largest: float) -> int | None:
        """The tensor read by the operator of `key` that has another scale than its bias, or its output, goes by.

        largest: weight of the float layer, by absolute value.
        """
        import numpy as np

        operator = self._operators[key]
        tensors = [tensor for tensor in operator.inputs if tensor is not None]
        if operator.kind in SAME_SCALE:
            scales = tensors[0].scales, operator.outputs[0].scales
            return self._reads[key] if all(scales) and _apart(scales[0][0], scales[1][0]) else None
        if len(tensors) != 3 or not all(tensor.scales for tensor in tensors) or tensors[1].data is None:
            return None
        source, weights, bias = tensors
        if not _apart(source.scales[0] * weights.scales[0], bias.scales[0]):
            return None
        shape = [-1 if axis == weights.axis else 1 for axis in range(len(weights.shape))]
        real = np.abs(weights.data * np.reshape(weights.scales, shape if len(weights.scales) > 1 else ())).max()
        return self._reads[key] if max(real, largest) < RIGHT * min(real, largest) else None

    def _given(self, key: int, images: Mapping[str, Array], i: int) -> Array:
        import numpy as np

        detail = self._details[key]
        name = next((name for name, index in self._inputs.items() if index == key), "")
        given = images[name if name in images else next(iter(images))][i : i + 1]
        shape = tuple(int(length) for length in detail["shape"])
        turned = given.transpose(0, 3, 1, 2) if given.ndim == 4 else given
        array = given if given.shape == shape else turned
        if array.shape != shape:
            problem = f"takes {shape}, the images are {given.shape}"
            raise InputError(detail["name"], problem, "give the model's own data")
        scale, zero = detail["quantization"]
        if not scale:
            return array.astype(detail["dtype"])
        limits = np.iinfo(detail["dtype"])
        steps: Array = np.clip(np.rint(array / np.float32(scale)) + zero, limits.min, limits.max)
        return steps.astype(detail["dtype"])


def _apart(one: float, other: float) -> bool:
    return max(one, other) > MISREAD * min(one, other)


def _signed(model: Any) -> Sequence[Any]:
    return model.signatureDefs[0].inputs if model.signatureDefs else ()


def _nodes(model: Any, graph: Any, constants: set[int], names: Mapping[int, str]) -> Iterator[Any]:
    from toolkit.engine.replay import Node

    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs = tuple(int(i) for i in operator.inputs if i >= 0 and int(i) not in constants)
        for output in operator.outputs:
            yield Node(kind, inputs, int(output))


def _detail(item: Mapping[str, Any]) -> _Tensor:
    import numpy as np

    scale, zero = item["quantization"]
    return _Tensor(str(item["name"]), str(np.dtype(item["dtype"])), float(scale), int(zero))


def _real(array: Array, scale: float, zero: int) -> Array:
    """Integers as the numbers they stand for."""
    import numpy as np

    if not scale or array.dtype.kind not in "iu":
        return array.astype(np.float32)
    return (array.astype(np.float32) - zero) * np.float32(scale)


def _limits(known: _Tensor) -> tuple[float, float] | None:
    """What rounds to a tensor's integers, the ends' half steps included."""
    import numpy as np

    if not known.scale or not known.dtype.startswith(("int", "uint")):
        return None
    ends = np.iinfo(known.dtype)
    return (ends.min - 0.5 - known.zero_point) * known.scale, (ends.max + 0.5 - known.zero_point) * known.scale


class _ONNX:
    """An .onnx file, every tensor an output."""

    def __init__(self, path: Path) -> None:
        import onnx
        import onnxruntime

        from toolkit.engine.replay import Node
        from toolkit.exporters import onnx_file

        try:
            file = onnx_file.read(path)
        except Exception as error:  # whatever a parser makes of bytes that are not its format
            raise InputError(str(path), f"is no .onnx file ({type(error).__name__})", "write it anew") from error
        self._file = file
        constants = _constant(file)
        made = [node for node in file.nodes if node.output[0] not in constants]
        numbers = {spec.name: i for i, spec in enumerate(file.inputs)}
        for node in made:
            for name in node.output:
                numbers.setdefault(name, len(numbers))
        self._numbers = numbers
        self._nodes = tuple(
            Node(node.op_type, tuple(numbers[n] for n in node.input if n in numbers), numbers[name])
            for node in made
            for name in node.output
            if name
        )
        self._wanted = [name for name, number in numbers.items() if number >= len(file.inputs)]
        self.tensors = {numbers[node.output[0]]: self._facts(node) for node in made}
        proto = onnx.ModelProto()
        proto.CopyFrom(file.proto)
        known = {value.name for value in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._wanted if name not in known)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])

    def _facts(self, node: Any) -> _Tensor:
        """A tensor's type and, behind a QuantizeLinear or DequantizeLinear, its scale."""
        import numpy as np

        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return _Tensor(node.output[0], "float32")
        scale = self._file.values(node.input[1])
        zero = self._file.values(node.input[2]) if len(node.input) > 2 else None
        dtype = str(zero.dtype) if zero is not None else "uint8"
        first = float(np.ravel(scale)[0]) if scale is not None else 0.0
        return _Tensor(node.output[0], dtype, first, int(np.ravel(zero)[0]) if zero is not None else 0)

    def trace(self, images: Mapping[str, Array]) -> Trace:
        """All tensors for some images, one image at a time."""
        import numpy as np

        from toolkit.engine.replay import Trace

        rows: dict[int, list[Array]] = {number: [] for number in self._numbers.values()}
        for i in range(len(next(iter(images.values())))):
            given = {spec.name: self._given(spec, images, i) for spec in self._file.inputs}
            for spec in self._file.inputs:
                rows[self._numbers[spec.name]].append(given[spec.name])
            for name, array in zip(self._wanted, self._session.run(self._wanted, given), strict=True):
                rows[self._numbers[name]].append(np.atleast_1d(array))
        stacked = {key: np.concatenate(found) for key, found in rows.items()}
        facts = {key: self.tensors.get(key, _Tensor("", "float32")) for key in stacked}
        values = {key: _real(array, facts[key].scale, facts[key].zero_point) for key, array in stacked.items()}
        limits = {key: ends for key, known in facts.items() if (ends := _limits(known))}
        return Trace(self._nodes, tuple(range(len(self._file.inputs))), values, limits)

    def contradicts(self, key: int, largest: float) -> int | None:
        """Nothing: each number of such a file has a scale of its own."""
        return None

    def _given(self, spec: Any, images: Mapping[str, Array], i: int) -> Array:
        import numpy as np

        array = images[spec.name if spec.name in images else next(iter(images))][i : i + 1]
        fits = all(want is None or want == got for want, got in zip(spec.shape, array.shape, strict=False))
        if not fits and array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(array, dtype=spec.dtype)


def _constant(file: Any) -> set[str]:
    """Names computed from constants alone."""
    found = set(file.constants)
    for node in file.nodes:
        if all(name in found or not name for name in node.input):
            found |= set(node.output)
    return found
