"""A short program for each delivered file: preprocessing, layout, names and classes as the file's contract has them.

Written beside the file, so that whoever integrates it copies the contract and does not guess it. Its `preprocess` gives
the tensor that the worker got for the same image, to the bit (tests/test_same_tensor.py).
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Sequence

from toolkit.core import Artifact, Preprocessing, TensorSpec
from toolkit.datasets import resample

HEAD = '''"""How to run {name}: `python {program} IMAGE...` prints {prints}.

Needs numpy, pillow and {package}. The contract in words and numbers: {path}.json.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
{imports}
MODEL = str(Path(__file__).with_name({path!r}))
CLASSES = {classes}

'''
DECODE = '''
def decode(path):
    """An image file as uint8, height x width x 1 (gray) or 3 (RGB); no transparency, no EXIF orientation."""
    with open(path, "rb") as file:
        head = file.read(25)
    with Image.open(path) as image:
        deep_png = head[:8] == b"\\x89PNG\\r\\n\\x1a\\n" and head[24] > 8
        if deep_png or image.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
            raise SystemExit(f"{path}: more than 8 bits a channel; convert it to 8 bits")
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)
'''
SIGNATURE = '''

def preprocess(path):
    """An image file as the input `{input}`: {shape} {dtype}, {layout}."""
    pixels = decode(path)
'''
CENTER = """
height, width = pixels.shape[:2]  # the centre, in the input's aspect ratio
rows = max(1, min(height, round(width * {height} / {width})))
columns = max(1, min(width, round(height * {width} / {height})))
"""
WHOLE = """
height, width = pixels.shape[:2]
rows, columns = height, width
"""
SHARE = """
rows, columns = max(1, round(rows * {share!r})), max(1, round(columns * {share!r}))  # the middle of that
"""
CUT = """
top, left = (height - rows) // 2, (width - columns) // 2
pixels = pixels[top : top + rows, left : left + columns]
"""
FILTERED = """
if pixels.shape[:2] != ({height}, {width}):  # Pillow filters as wide as the shrinking asks for
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image = image.resize(({width}, {height}), Image.Resampling.{method})
    pixels = np.asarray(image).reshape({height}, {width}, -1)
"""
SAMPLED = """
if pixels.shape[:2] != ({height}, {width}):
    pixels = point_sample(pixels, ({height}, {width}), {method!r})
"""
COLORS = {
    "gray": """
if pixels.shape[2] == 3:
    pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
""",
    "rgb": """
if pixels.shape[2] == 1:
    pixels = np.repeat(pixels, 3, axis=2)
""",
}
COLORS["bgr"] = COLORS["rgb"] + "pixels = pixels[:, :, ::-1]\n"
# what runs a format's files, the usual one first: its package, and how it is imported
RUNTIMES = {"tflite": ("litert", "tflite-runtime", "openvino"), "onnx": ("onnxruntime", "openvino")}
PACKAGES = {
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime (numpy below 2)",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
IMPORTS = {
    # boards that have LiteRT's predecessor: tflite_runtime.interpreter
    "litert": "\nfrom ai_edge_litert.interpreter import Interpreter  # or tflite_runtime.interpreter\n",
    "tflite-runtime": "\nfrom tflite_runtime.interpreter import Interpreter\n",
    "onnxruntime": "\nimport onnxruntime\n",
    "openvino": "\nimport openvino\n",
}
LITERT = """

run = Interpreter(model_path=MODEL).get_signature_runner()
{quantization}

def answer(pixels):
    output = run(**{{{input!r}: pixels}})[{output!r}][0]
    return {scores}
"""
RUN = {
    "litert": LITERT,
    "tflite-runtime": LITERT,
    "onnxruntime": """

session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


def answer(pixels):
    output = session.run([{output!r}], {{{input!r}: pixels}})[0][0]
    return {scores}
""",
    "openvino": """

compiled = openvino.Core().compile_model(MODEL, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
(OUTPUT,) = [port for port in compiled.outputs if {output!r} in port.get_names()] or compiled.outputs


def answer(pixels):
    output = compiled([pixels])[OUTPUT][0]
    return {scores}
""",
}
STEPS = 'SCALE, ZERO_POINT = run.get_input_details()[{input!r}]["quantization"]\n'
OUT_STEPS = 'OUT_SCALE, OUT_ZERO_POINT = run.get_output_details()[{output!r}]["quantization"]\n'
MAIN = """

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for path in sys.argv[1:]:
        scores = answer(preprocess(path))
        print(path, {shown})
"""
EMBEDDED = """

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    vectors = [answer(preprocess(path)) for path in sys.argv[1:]]
    for path, vector in zip(sys.argv[1:], vectors):
        print(path, len(vector), "numbers")
    if len(vectors) == 2:
        lengths = np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
        print("cosine", float(vectors[0] @ vectors[1] / lengths) if lengths else 0.0)
"""
SHOWN = {
    "several": "CLASSES[int(np.argmax(scores))]",  # of equal scores the first
    "sigmoid": "CLASSES[int(scores[0] > 0.5)]",
    "one logit": "CLASSES[int(scores[0] > 0)]",
    "sigmoids": '", ".join(name for name, score in zip(CLASSES, scores) if score > 0.5) or "no label"',
    "regression": '", ".join(f"{name} {value:g}" for name, value in zip(CLASSES, scores))',
}
PRINTS = {
    "sigmoids": "the labels that hold in each image",
    "regression": "the values of each image",
    "embedding": "the length of each image's vector, and of two the cosine",
}


def sample_code(
    artifact: Artifact, contract: Preprocessing, classes: Sequence[str], *, runtime: str = "", program: str = ""
) -> str:
    """The program, for a file of one image input whose first output decides.

    runtime: one of the format's RUNTIMES, the usual one by default. program: its own file name.
    """
    image, output = artifact.signature.inputs[0], artifact.signature.outputs[0]
    names = {"name": artifact.name, "path": artifact.path.name, "input": image.name, "output": output.name}
    runtime = runtime or RUNTIMES[artifact.format][0]
    head = HEAD.format(
        **names,
        program=program or f"{artifact.name}.py",
        prints=PRINTS.get(output.meaning, "the class of each image"),
        package=PACKAGES[runtime],
        imports=IMPORTS[runtime],
        classes=json.dumps(list(classes)),
    )
    shape = "x".join("?" if size is None else str(size) for size in image.shape)
    signature = SIGNATURE.format(**names, shape=shape, dtype=image.dtype, layout=image.layout)
    sampled = contract.size is not None and (contract.resize == "nearest" or not contract.antialias)
    functions = "".join(f"\n\n{_source(each)}\n" for each in (resample.taps, resample.point_sample)) if sampled else ""
    body = "".join(_indented(part) for part in (_geometry(contract, sampled), _arithmetic(contract, artifact)))
    return head + DECODE + functions + signature + body + _run(artifact, names, runtime) + _main(output)


def program_of(runtime: str) -> str:
    """The file name of a bundle's program for a runtime."""
    return f"example_{runtime.replace('-', '_')}.py"


def runtimes_of(artifact: Artifact) -> tuple[str, ...]:
    """What such a program can be written for. OpenVINO tells no scale of quantized inputs and outputs, and does not
    read the .tflite files that AI Edge Quantizer writes (2026.4: "Chosen Builtin Option is not accessible")."""
    first, outputs = artifact.signature.inputs[0], artifact.signature.outputs
    integers = [spec.name for spec in outputs if not spec.dtype.startswith("float")]
    scaled = integers or (not first.dtype.startswith("float") and not artifact.pixels)
    unread = scaled or (artifact.format == "tflite" and artifact.scheme != "float32")
    return tuple(name for name in RUNTIMES[artifact.format] if not (unread and name == "openvino"))


def _geometry(contract: Preprocessing, sampled: bool) -> str:
    """As `datasets.preprocess.geometry`: cut, resize, order the channels."""
    height, width = contract.size or (0, 0)
    sizes = {"height": height, "width": width, "share": contract.crop_share}
    centred = contract.size is not None and contract.crop == "center"
    parts = []
    if centred or contract.crop_share < 1:
        parts += [CENTER if centred else WHOLE, SHARE if contract.crop_share < 1 else "", CUT]
    if contract.size is not None:
        parts.append(SAMPLED if sampled else FILTERED)
    method = contract.resize if sampled else contract.resize.upper()
    return "".join(part.format(**sizes, method=method) for part in (*parts, COLORS[contract.color]))


def _arithmetic(contract: Preprocessing, artifact: Artifact) -> str:
    """As `datasets.preprocess.normalise`, then layout and type of the input."""
    image = artifact.signature.inputs[0]
    lines = [f"pixels = pixels.astype(np.float32) * np.float32({list(contract.scale)})"]
    lines[0] += f" + np.float32({list(contract.offset)})"
    if image.layout == "NCHW":
        lines.append("pixels = pixels.transpose(2, 0, 1)")
    if image.dtype in ("int8", "uint8"):
        low, high = ("0", "255") if image.dtype == "uint8" else ("-128", "127")
        if artifact.format == "tflite" and not artifact.pixels:
            lines.append("if SCALE:  # 0 where the file takes plain integers")
            lines.append("    pixels = np.round(pixels / np.float32(SCALE)) + np.float32(ZERO_POINT)")
        lines.append(f"pixels = np.clip(pixels, {low}, {high}).astype(np.{image.dtype})")
    elif image.dtype != "float32":
        lines.append(f"pixels = pixels.astype(np.{image.dtype})")
    lines.append("return np.ascontiguousarray(pixels[None])")
    return "\n".join(lines) + "\n"


def _run(artifact: Artifact, names: dict[str, str], runtime: str) -> str:
    image, output = artifact.signature.inputs[0], artifact.signature.outputs[0]
    scaled = artifact.format == "tflite" and not output.dtype.startswith("float")
    quantization = "" if image.dtype.startswith("float") or artifact.pixels else STEPS.format(**names)
    quantization += OUT_STEPS.format(**names) if scaled else ""
    scores = "output.astype(np.float32).ravel()"
    if scaled:
        scores = "(output.astype(np.float32).ravel() - OUT_ZERO_POINT) * np.float32(OUT_SCALE)"
    return RUN[runtime].format(**names, quantization=quantization, scores=scores)


def _main(output: TensorSpec) -> str:
    if output.meaning == "embedding":
        return EMBEDDED
    if output.meaning in ("sigmoids", "regression"):
        return MAIN.format(shown=SHOWN[output.meaning])
    several = output.shape[-1] != 1
    return MAIN.format(shown=SHOWN["several" if several else "sigmoid" if output.meaning == "sigmoid" else "one logit"])


def _source(function: Callable[..., object]) -> str:
    """A function of ours as it stands in a program that has `np`: without types and without its own import."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{function!r} is no plain function")
    tree.returns = None
    for argument in tree.args.args:
        argument.annotation = None
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import)]
    return ast.unparse(tree)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines() if line)
