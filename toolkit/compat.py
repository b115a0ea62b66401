"""Whether a runtime's version reads a file: operator versions of .tflite, operator set and IR version of .onnx.

Asked before work, of what an exporter is known to write, and of the file itself before it is sent or run. What is not
known (no version, a newer one than was asked, operators of other makers) is not refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import tflite_versions
from toolkit.core import QuantSpec
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.lint_target import wants
from toolkit.tensorrt.types import Target

# ONNX Runtime from this release on -> highest IR version and operator set; asked of the last patch of each release with
# a file of one Identity (benchmarks/runtime_versions.py)
ONNX: tuple[tuple[tuple[int, int], int, int], ...] = (
    ((1, 9), 8, 15),
    ((1, 11), 8, 16),
    ((1, 12), 8, 17),
    ((1, 14), 8, 18),
    ((1, 15), 9, 18),
    ((1, 16), 9, 19),
    ((1, 17), 9, 20),
    ((1, 18), 10, 21),
    ((1, 21), 10, 22),
    ((1, 23), 11, 23),
    ((1, 24), 13, 25),
    ((1, 25), 13, 26),
)
ASKED = (1, 31)  # the newest ONNX Runtime that was asked; what newer ones read is not known
ONNX_OPERATORS = ("", "ai.onnx")  # the two spellings of ONNX's own domain
PACKAGES: Mapping[str, str] = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
NO_DENSIFY = "tflite-micro has no kernel that unpacks sparse weights: leave pack_sparse out"
FLEX = "Flex"  # how the names of TensorFlow's own operators begin in a .tflite file
# quantizers write version 1 where the types ask for more: (operator, types of its first two operands) -> version
# (tensorflow/lite/tools/versioning/op_version.cc, those that came after 2.7; "INT8*": one scale for each channel)
TYPED: Mapping[tuple[str, ...], int] = {
    ("CONV_2D", "INT8", "INT4"): 7,
    ("DEPTHWISE_CONV_2D", "INT8", "INT4"): 7,
    ("FULLY_CONNECTED", "INT8", "INT4"): 10,
    ("FULLY_CONNECTED", "FLOAT32", "INT8*"): 12,
    ("FULLY_CONNECTED", "INT16", "INT4"): 13,
    ("DEQUANTIZE", "INT4"): 6,
    ("QUANTIZE", "INT4"): 4,
}


def refusals(path: Path, runtime: DeviceRuntime, version: str = "") -> tuple[str, ...]:
    """What of a file this runtime cannot read, one line each; () where it can, or where nothing is known.

    version: what is really installed there; else that of the profile.
    """
    return _unread(path, runtime.use, version or runtime.version)


def require_read(path: Path, device: str, use: str, version: str | None) -> None:
    """Raise UnsupportedError, before it is run, for a file that the runtime installed on a device cannot read."""
    if wrong := _unread(path, use, version or ""):
        more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
        fix = f"install a later {PACKAGES.get(use, use)} there, or choose another scheme or operator set"
        raise UnsupportedError(path.name, f"{device} cannot read it: {wrong[0]}{more}", fix)


def _unread(path: Path, use: str, version: str) -> tuple[str, ...]:
    kind = path.suffix.lower()
    if kind not in (".tflite", ".onnx"):
        return ()
    try:
        if kind == ".tflite":
            return tuple(_operators(use, version, tflite_operators(path)))
        return tuple(_onnx(use, version, *onnx_versions(path)))
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a parser makes of bytes that are not its format
        raise InputError(str(path), f"is not a readable {kind} file ({type(error).__name__})") from error


def expected(component: Any, quant: QuantSpec, targets: Sequence[tuple[DeviceProfile, DeviceRuntime]]) -> list[str]:
    """Notes, before any work, on what the exporter may write for this request and a device does not read."""
    ask = getattr(component, "operator_versions", None)
    versions: Mapping[str, int] = ask(quant) if ask else {}
    opset = getattr(component, "opset", 0)
    notes = []
    for profile, runtime in targets:
        lines = [*_operators(runtime.use, runtime.version, versions, f"{quant.scheme} files with {{}}")]
        lines += [NO_DENSIFY] if runtime.use == "tflite-micro" and "DENSIFY" in versions else []
        notes += [f"{profile.name}: {line}" for line in (*lines, *_onnx(runtime.use, runtime.version, 0, opset))]
    return notes


def tflite_operators(path: Path) -> dict[str, int]:
    """Operator -> the highest version that the file needs of it; TensorFlow's own under their name, "FlexErf"."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    codes = [_code(model.OperatorCodes(index), schema) for index in range(model.OperatorCodesLength())]
    found: dict[str, int] = {}
    for name, version in codes:
        found[name] = max(version, found.get(name, 0))
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            name = codes[operator.OpcodeIndex()][0]
            if any(name == key[0] for key in TYPED):
                types = [_type(graph, operator.Inputs(place), schema) for place in range(operator.InputsLength())][:2]
                asked = max((v for key, v in TYPED.items() if _fits(key, name, types)), default=0)
                found[name] = max(asked, found[name])
    return found


def _code(code: Any, schema: Any) -> tuple[str, int]:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    custom = code.CustomCode()
    return custom.decode(errors="replace") if custom else names.get(number, f"operator {number}"), int(code.Version())


def _type(graph: Any, index: int, schema: Any) -> str:
    """INT8, or INT8* where it has several scales; "" for an operand that is left out."""
    if index < 0:
        return ""
    tensor = graph.Tensors(index)
    names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    scales = tensor.Quantization().ScaleLength() if tensor.Quantization() else 0
    return str(names.get(tensor.Type(), "")) + ("*" if scales > 1 else "")


def _fits(key: tuple[str, ...], name: str, types: Sequence[str]) -> bool:
    """Whether an operator's types are those of a key of TYPED; there INT4 holds for any number of scales."""
    wanted = key[1:]
    pairs = zip(wanted, types, strict=False)
    return key[0] == name and len(types) >= len(wanted) and all(w in (t, t.removesuffix("*")) for w, t in pairs)


def onnx_versions(path: Path) -> tuple[int, int]:
    """IR version and operator set of an .onnx file; its weights are not read."""
    import onnx

    proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    opsets = [entry.version for entry in proto.opset_import if entry.domain in ONNX_OPERATORS]
    return int(proto.ir_version), max(opsets, default=0)


def tflite_release(use: str, version: str) -> str | None:
    """The entry of tflite_versions.RELEASES whose answers hold for this version of a runtime; None where none does."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if use not in PACKAGES or not found:
        return None
    prefix = "litert-" if use == "litert" else ""
    number = int(found[1]), int(found[2])
    asked = {
        tuple(map(int, each.removeprefix(prefix).split("."))): each
        for each in tflite_versions.RELEASES
        if each.startswith("litert-") == bool(prefix)
    }
    if number > max(asked):
        return None
    return next((asked[each] for each in sorted(asked, reverse=True) if each <= number), tflite_versions.RELEASES[0])


def _operators(use: str, version: str, operators: Mapping[str, int], what: str = "this file") -> Iterator[str]:
    """Lines for operators or versions that a TFLite runtime does not read; what: asks for them."""
    release = tflite_release(use, version)
    for operator, asked in sorted(operators.items()) if use in PACKAGES else ():
        if operator.startswith(FLEX):
            yield f"{use} has no {operator}, an operator of TensorFlow's own"
        if release is None or not tflite_versions.history(operator):
            continue
        known = tflite_versions.highest(operator, release)
        if known < asked:
            reads = f"{operator} up to version {known}" if known else f"no {operator}"
            asks = f"{what.format(operator)} {'ask' if '{}' in what else 'asks'} for version {asked}"
            yield f"{use} {version} reads {reads}, {asks}{_since(operator, asked)}"


def _since(operator: str, version: int) -> str:
    first = tflite_versions.first(operator, version)
    if not first:
        return ""
    name, _, number = first.rpartition("-")
    return f" (read from {'ai-edge-litert' if name else 'tflite-runtime'} {number} on)"


def _onnx(use: str, version: str, ir: int, opset: int) -> Iterator[str]:
    if use == "tensorrt" and version:
        known = wants(Target(version, "", "", "")).opset
        if known is not None and opset > known:
            problem = f"TensorRT {version} is known to read operator sets up to {known}, this file has {opset}"
            yield f"{problem}: set opset = {known}"
    found = re.match(r"(\d+)\.(\d+)", version)
    if use != "onnxruntime" or not found:
        return
    number = int(found[1]), int(found[2])
    rows = [(top, most) for since, top, most in ONNX if since <= number] or [(ONNX[0][1], ONNX[0][2])]
    top, most = rows[-1]
    if ir > top and number <= ASKED:
        yield f"onnxruntime {version} reads IR versions up to {top}, this file has {ir}"
    if opset > most and number <= ASKED:
        yield f"onnxruntime {version} reads operator sets up to {most}, this file has {opset}: set opset = {most}"
