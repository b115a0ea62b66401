"""A delivered file run with every tensor kept, so that each operator computes what the file says.

.tflite files with LiteRT's built-in kernels, .onnx files with ONNX Runtime, unoptimized and with every tensor as an
output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.replay import Trace

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


@dataclass(frozen=True)
class Tensor:
    """What a file says of one of its tensors. scale: 0 for floats, and for several scales."""

    name: str
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


def opened(path: Path) -> Any:
    """The file, ready to be traced; InputError for what is none."""
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
        self._path = str(path)
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
        self._outputs = tuple(int(index) for index in graph.outputs)
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
        return Trace(self._nodes, tuple(self._order), values, limits, self._outputs)

    def answers(self, images: Mapping[str, Array]) -> Array | None:
        """The first output by the runtime's own choice of kernels (XNNPACK); None where it does not run."""
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=self._path, num_threads=1)
            interpreter.allocate_tensors()
            rows = [self._answer(interpreter, images, i) for i in range(len(next(iter(images.values()))))]
        except (RuntimeError, ValueError):
            return None
        detail = self._details[self._outputs[0]]
        return _real(np.concatenate(rows), *detail["quantization"])

    def _answer(self, interpreter: Any, images: Mapping[str, Array], i: int) -> Array:
        import numpy as np

        for key in self._order:
            interpreter.set_tensor(key, self._given(key, images, i))
        interpreter.invoke()
        return np.atleast_1d(interpreter.get_tensor(self._outputs[0]))

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
            activated = bool(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
            yield Node(kind, inputs, int(output), activated)


def _detail(item: Mapping[str, Any]) -> Tensor:
    import numpy as np

    scale, zero = item["quantization"]
    return Tensor(str(item["name"]), str(np.dtype(item["dtype"])), float(scale), int(zero))


def _real(array: Array, scale: float, zero: int) -> Array:
    """Integers as the numbers they stand for."""
    import numpy as np

    if not scale or array.dtype.kind not in "iu":
        return array.astype(np.float32)
    return (array.astype(np.float32) - zero) * np.float32(scale)


def _limits(known: Tensor) -> tuple[float, float] | None:
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
        self._file, self._path = file, str(path)
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

    def _facts(self, node: Any) -> Tensor:
        """A tensor's type and, behind a QuantizeLinear or DequantizeLinear, its scale."""
        import numpy as np

        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return Tensor(node.output[0], "float32")
        scale = self._file.values(node.input[1])
        zero = self._file.values(node.input[2]) if len(node.input) > 2 else None
        dtype = str(zero.dtype) if zero is not None else "uint8"
        first = float(np.ravel(scale)[0]) if scale is not None else 0.0
        return Tensor(node.output[0], dtype, first, int(np.ravel(zero)[0]) if zero is not None else 0)

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
        facts = {key: self.tensors.get(key, Tensor("", "float32")) for key in stacked}
        values = {key: _real(array, facts[key].scale, facts[key].zero_point) for key, array in stacked.items()}
        limits = {key: ends for key, known in facts.items() if (ends := _limits(known))}
        outputs = tuple(self._numbers[spec.name] for spec in self._file.outputs if spec.name in self._numbers)
        return Trace(self._nodes, tuple(range(len(self._file.inputs))), values, limits, outputs)

    def answers(self, images: Mapping[str, Array]) -> Array | None:
        """The first output with the runtime's own optimizations; None where it does not run."""
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(self._path, options, ["CPUExecutionProvider"])
            name, rows = session.get_outputs()[0].name, []
            for i in range(len(next(iter(images.values())))):
                given = {spec.name: self._given(spec, images, i) for spec in self._file.inputs}
                rows.append(np.atleast_1d(session.run([name], given)[0]))
        except Exception:  # its errors have no class in common
            return None
        found: Array = np.concatenate(rows).astype(np.float32)
        return found

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
