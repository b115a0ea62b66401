"""Which operator versions, operator sets and IR versions each release of a runtime reads: asked of the releases.

For TFLite a file that names one operator of one version and nothing else, for ONNX a file of one Identity: each release
loads it or refuses it. Prints the table of toolkit/tflite_versions.py anew, and whether it and the rows of
toolkit/compat.py are as shipped. Each release is installed into a folder of its own, by the first Python that has a
wheel for it; what cannot be had is named. Some hundred megabytes of downloads.

    python benchmarks/runtime_versions.py [--python PYTHON ...] [--only tflite|onnx]
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from toolkit import compat, tflite_versions

VERSIONS = 20  # of an operator are asked; the highest known is 14
TFLITE = {
    **{f"2.{minor}": f"tflite-runtime==2.{minor}.*" for minor in range(7, 15)},
    **{f"litert-1.{minor}": f"ai-edge-litert==1.{minor}.*" for minor in range(5)},
    **{f"litert-2.{minor}": f"ai-edge-litert==2.{minor}.*" for minor in range(4)},
}
ONNX = {f"1.{minor}": f"onnxruntime==1.{minor}.*" for minor in range(9, 32)}
NUMPY = ("numpy<2", "numpy>=2")  # the first with which it works
BESIDE = ("flatbuffers", "tqdm", "typing-extensions", "protobuf", "ml_dtypes", "backports.strenum", "coloredlogs",
          "packaging", "sympy")  # fmt: skip
PROBE = """
import json, pickle, sys
files = pickle.load(open(sys.argv[1], "rb"))
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import onnxruntime
        onnxruntime.set_default_logger_severity(4)
        cpu = ["CPUExecutionProvider"]
        Interpreter = lambda model_content: onnxruntime.InferenceSession(model_content, providers=cpu)
highest = {}
for (name, version), content in files.items():
    try:
        Interpreter(model_content=content)
    except SystemError:
        sys.exit(3)
    except Exception:
        continue
    highest[name] = max(version, highest.get(name, 0))
json.dump(highest, open(sys.argv[2], "w"))
"""


def tflite_files() -> dict[tuple[str, int], bytes]:
    """(operator, version) -> a file that names it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    found = {}
    for name, number in vars(schema.BuiltinOperator).items():
        for version in range(1, VERSIONS + 1) if isinstance(number, int) and name != "CUSTOM" else ():
            code, tensor, graph, model = schema.OperatorCodeT(), schema.TensorT(), schema.SubGraphT(), schema.ModelT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            tensor.shape, tensor.type, tensor.buffer, tensor.name = [1], 0, 0, b"x"
            graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
            model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
            model.buffers = [schema.BufferT()]
            builder = flatbuffers.Builder(256)
            builder.Finish(model.Pack(builder), b"TFL3")
            found[name, version] = bytes(builder.Output())
    return found


def onnx_files() -> dict[tuple[str, int], bytes]:
    """("ir" or "opset", version) -> a file of one Identity."""
    from onnx import TensorProto, helper

    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])] for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", *ends)

    def model(opset: int, ir: int) -> bytes:
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        made.ir_version = ir
        return bytes(made.SerializeToString())

    by_ir = {("ir", ir): model(11, ir) for ir in range(3, 24)}
    return by_ir | {("opset", opset): model(opset, 4) for opset in range(7, 40)}


def answers(package: str, files: Path, pythons: Sequence[str], folder: Path) -> dict[str, int] | None:
    """Name -> the highest version that a release reads; None where no Python has it."""
    for python in pythons:
        for numpy in NUMPY:
            target = folder / "packages"
            shutil.rmtree(target, ignore_errors=True)
            installs = (["--no-deps", package, *BESIDE], [numpy])
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(target)]
            if any(subprocess.run([*pip, *each], capture_output=True, check=False).returncode for each in installs):
                break
            out = folder / "answers.json"
            out.unlink(missing_ok=True)
            command = [python, "-c", PROBE, str(files), str(out)]
            subprocess.run(command, capture_output=True, env={"PYTHONPATH": str(target)}, check=False)
            if out.is_file() and (found := json.loads(out.read_text())):
                return {str(name): int(version) for name, version in found.items()}
    return None


def table(asked: dict[str, dict[str, int]]) -> Iterator[str]:
    """Lines of tflite_versions.TABLE."""
    rises: dict[str, dict[int, str]] = {}
    for release, highest in asked.items():
        for operator, version in highest.items():
            row = rises.setdefault(operator, {})
            if version > max(row, default=0):
                row[version] = release
    for operator, row in sorted(rises.items()):
        yield f"{operator} " + " ".join(f"{version}:{release}" for version, release in row.items())


def main() -> None:
    """Ask, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="A Python to install with; may be repeated.")
    parser.add_argument("--only", choices=["tflite", "onnx"])
    given = parser.parse_args()
    found = [shutil.which(f"python3.{minor}") for minor in (9, 10, 11)]
    pythons = given.python or [sys.executable, *(path for path in found if path)]
    with tempfile.TemporaryDirectory(prefix="edgekit-versions-") as place:
        folder = Path(place)
        asked: dict[str, dict[str, dict[str, int]]] = {}
        for kind, releases, make in (("tflite", TFLITE, tflite_files), ("onnx", ONNX, onnx_files)):
            if given.only not in (None, kind):
                continue
            (folder / "files").write_bytes(pickle.dumps(make(), protocol=4))
            for release, package in releases.items():
                highest = answers(package, folder / "files", pythons, folder)
                print(f"{package}: {'asked' if highest else 'cannot be had here'}", file=sys.stderr, flush=True)
                if highest:
                    asked.setdefault(kind, {})[release] = highest
    if "tflite" in asked:
        lines = list(table(asked["tflite"]))
        print("\n".join(lines))
        whole = asked["tflite"].keys() >= set(tflite_versions.RELEASES)
        same = lines == [line for line in tflite_versions.TABLE.splitlines() if line]
        print(f"# as shipped: {same}" if whole else "# not all releases were asked: not compared")
    for release, highest in asked.get("onnx", {}).items():
        number = tuple(map(int, release.split(".")))
        _, ir, opset = [row for row in compat.ONNX if row[0] <= number][-1]
        print(f"onnxruntime {release}: {highest}, as shipped: {highest == {'ir': ir, 'opset': opset}}")


if __name__ == "__main__":
    main()
