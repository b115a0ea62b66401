"""What a microcontroller's program needs of a .tflite file: the array, the operators to register, the arena's size.

For tflite-micro (github.com/tensorflow/tflite-micro): MicroMutableOpResolver and its Add... methods, as its header
names them. The arena is the least one in which tflite-micro loads the file on this machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import InputError, StageError, UnsupportedError
from toolkit.estimates.workload import readable
from toolkit.exporters import tflite_file
from toolkit.runtimes.tflite_micro import TFLiteMicro
from toolkit.sources import opening
from toolkit.transports.local import WORKER, run_program, tail

ARRAY = "g_model"
COLUMNS = 16  # bytes a line
TIMEOUT_S = 600.0
# micro_mutable_op_resolver.h
REGISTERED = frozenset(
    {
        *("ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BATCH_TO_SPACE_ND"),
        *("BROADCAST_TO", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DEPTH_TO_SPACE"),
        *("DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV"),
        *("FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "IF"),
        *("L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOG_SOFTMAX", "LOGICAL_AND"),
        *("LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL"),
        *("NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU", "QUANTIZE", "REDUCE_MAX", "RELU", "RELU6", "RESHAPE"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE"),
        *("SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
        *("SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK"),
        "ZEROS_LIKE",
    }
)
NAMED = {"PADV2": "PadV2", "CUMSUM": "CumSum", "BATCH_MATMUL": "BatchMatMul"}  # the others are the operator's words
ETHOS_U = "CUSTOM:ethos-u"  # what Vela makes of a network


@dataclass(frozen=True)
class Needs:
    """arena_bytes: None where tflite-micro is not installed here, and why then stands in `unknown`."""

    operators: tuple[str, ...]
    file_bytes: int
    arena_bytes: int | None
    unknown: str = ""

    @property
    def calls(self) -> tuple[str, ...]:
        """The resolver's methods to call, one for each kind of operator."""
        return tuple(f"Add{_method(kind)}" for kind in self.operators)

    def lines(self, subject: str) -> Iterator[str]:
        """For a person, to paste."""
        arena = f"arena unknown: {self.unknown}"
        if self.arena_bytes:
            arena = f"{self.arena_bytes:,} bytes of arena  [emulated: tflite-micro on this machine]"
        yield f"{subject}: {self.file_bytes:,} bytes of flash, {arena}"
        yield f"tflite::MicroMutableOpResolver<{len(self.operators)}> resolver;"
        yield from (f"resolver.{call}();" for call in self.calls)


def needs(path: Path) -> Needs:
    """Operators, size and arena of a .tflite file; raises UnsupportedError for an operator tflite-micro has not."""
    if path.suffix.lower() != ".tflite":
        raise InputError(str(path), "is no .tflite file, and microcontrollers run no other here", "export it as tflite")
    opening.check_kind(path, "a .tflite file")
    file = readable(path, tflite_file.read)
    kinds = tuple(sorted({operator.kind for operator in file.operators} | ({"DENSIFY"} if file.unpacking else set())))
    for kind in kinds:
        _method(kind, str(path))
    if TFLiteMicro().version() is None:
        return Needs(kinds, path.stat().st_size, None, "tflite-micro is not installed; pip install 'edgekit[mcu]'")
    if ETHOS_U in kinds:
        return Needs(kinds, path.stat().st_size, None, "Vela made this file, and its operator runs on Ethos-U alone")
    return Needs(kinds, path.stat().st_size, arena(path))


def arena(path: Path) -> int:
    """Bytes of the least arena a file loads in, tried by tflite-micro in a process of its own, since it can abort."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        asked = {"kind": "bench", "runtime": "tflite-micro", "seconds": 0, "warmup_seconds": 0}
        job.write_text(json.dumps({**asked, "model": str(path.absolute()), "result": str(result)}))
        ended = run_program([sys.executable, str(WORKER), str(job)], timeout_s=TIMEOUT_S)
        if not result.is_file():
            raise StageError(str(path), f"tflite-micro ended with exit code {ended.returncode}{tail(ended.stderr)}")
        found = json.loads(result.read_text())
    if "error" in found:
        raise InputError(str(path), found["error"])
    return int(found["arena_bytes"])


def sources(path: Path) -> Mapping[str, str]:
    """Files of C++ for a microcontroller's program, name -> text: the array, and what tflite-micro is told of it."""
    found = needs(path)
    return {
        "model_data.h": _header(path.name, found),
        "model_data.cc": _array(path.name, path.read_bytes()),
        "model_ops.h": _operators(path.name, found),
    }


def _method(kind: str, where: str = "operator") -> str:
    if kind == ETHOS_U:
        return "EthosU"
    if kind == "CUSTOM:TFLite_Detection_PostProcess":
        return "DetectionPostprocess"
    if kind not in REGISTERED:
        problem = f"tflite-micro has no kernel for {kind.removeprefix('CUSTOM:')}"
        raise UnsupportedError(where, problem, "replace the layer")
    return NAMED.get(kind) or "".join(part if part[0].isdigit() else part.capitalize() for part in kind.split("_"))


def _header(name: str, found: Needs) -> str:
    lines = [
        f"// {name}: the model, in flash. {found.file_bytes:,} bytes.",
        "#pragma once",
        "",
        f"extern const unsigned char {ARRAY}[];",
        f"extern const unsigned int {ARRAY}_size;",
        "",
    ]
    if found.arena_bytes:
        lines += [
            "// The least arena in which tflite-micro loads it on a 64-bit computer. Pointers have half the width on a",
            "// microcontroller, which needs a little less. Align it to 16 bytes.",
            f"constexpr unsigned int kArenaBytes = {found.arena_bytes};",
        ]
    else:
        lines.append(f"// kArenaBytes is unknown: {found.unknown}.")
    return "\n".join(lines) + "\n"


def _array(name: str, content: bytes) -> str:
    rows = (content[start : start + COLUMNS] for start in range(0, len(content), COLUMNS))
    body = "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)
    return (
        f'// {name}\n#include "model_data.h"\n\n'
        f"alignas(16) const unsigned char {ARRAY}[] = {{\n{body}\n}};\n"
        f"const unsigned int {ARRAY}_size = sizeof({ARRAY});\n"
    )


def _operators(name: str, found: Needs) -> str:
    count = len(found.operators)
    calls = "".join(f"  TF_LITE_ENSURE_STATUS(resolver.{call}());\n" for call in found.calls)
    return (
        f"// {name}: the operators it uses, and no others, so that the program holds no other kernels.\n"
        "#pragma once\n\n"
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"using ModelOps = tflite::MicroMutableOpResolver<{count}>;\n\n"
        "inline TfLiteStatus AddModelOps(ModelOps& resolver) {\n"
        f"{calls}  return kTfLiteOk;\n}}\n"
    )
