"""A short program for each delivered file: preprocessing, layout, names and classes as the file's contract has them.

Written beside the file, so that whoever integrates it copies the contract and does not guess it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from toolkit.core import Artifact, Preprocessing, TensorSpec

HEAD = '''"""How to run {name}: `python {name}.py IMAGE...` prints the decision for each image.

Needs numpy, pillow and {package}.
"""

import sys

import numpy as np
from PIL import Image

CLASSES = {classes}


def preprocess(path):
    """One image file as the input `{input}`: {shape} {dtype}, {layout}."""
    image = Image.open(path).convert({mode!r})
'''
CROP = """    height, width = {height}, {width}
    crop_w = max(1, min(image.width, round(image.height * width / height)))  # centre crop to the aspect ratio
    crop_h = max(1, min(image.height, round(image.width * height / width)))
    left, top = (image.width - crop_w) // 2, (image.height - crop_h) // 2
    image = image.crop((left, top, left + crop_w, top + crop_h)).resize((width, height), Image.Resampling.BILINEAR)
"""
RUN = {
    "tflite": """

from ai_edge_litert.interpreter import Interpreter  # on boards that have its predecessor: tflite_runtime.interpreter

run = Interpreter(model_path={path!r}).get_signature_runner()


def answer(pixels):
    return run(**{{{input!r}: pixels}})[{output!r}][0]
""",
    "onnx": """

import onnxruntime

session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])


def answer(pixels):
    return session.run([{output!r}], {{{input!r}: pixels}})[0][0]
""",
}
QUANTIZED = """
SCALE, ZERO_POINT = run.get_input_details()[{input!r}]["quantization"]
OUT_SCALE, OUT_ZERO_POINT = run.get_output_details()[{output!r}]["quantization"]
"""
PACKAGES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}
DECISIONS = {
    "sigmoid": "int(scores[0] > 0.5)",
    "one logit": "int(scores[0] > 0)",
    "several": "int(np.argmax(scores))",
}


def sample_code(artifact: Artifact, contract: Preprocessing, classes: Sequence[str]) -> str:
    """The program, for a file of one image input whose first output decides."""
    image, output = artifact.signature.inputs[0], artifact.signature.outputs[0]
    names = {"name": artifact.name, "path": artifact.path.name, "input": image.name, "output": output.name}
    integer = image.dtype in ("int8", "uint8")
    parts = [
        HEAD.format(
            **names,
            package=PACKAGES[artifact.format],
            classes=json.dumps(list(classes)),
            shape="x".join(map(str, image.shape)),
            dtype=image.dtype,
            layout=image.layout,
            mode="L" if contract.color == "gray" else "RGB",
        ),
        CROP.format(height=contract.size[0], width=contract.size[1]) if contract.size else "",
        _arithmetic(contract, image, integer),
        RUN[artifact.format].format(**names),
        QUANTIZED.format(**names) if integer else "",
        _main(output, integer),
    ]
    return "".join(parts)


def _arithmetic(contract: Preprocessing, image: TensorSpec, integer: bool) -> str:
    lines = ["pixels = np.asarray(image, dtype=np.float32)"]
    lines.append("pixels = pixels.reshape(image.height, image.width, -1)")
    if contract.color == "bgr":
        lines.append("pixels = pixels[:, :, ::-1]")
    lines.append(f"pixels = pixels * np.float32({list(contract.scale)}) + np.float32({list(contract.offset)})")
    if image.layout == "NCHW":
        lines.append("pixels = pixels.transpose(2, 0, 1)")
    if integer:
        low, high = ("0", "255") if image.dtype == "uint8" else ("-128", "127")
        steps = f"np.clip(np.round(pixels / SCALE) + ZERO_POINT, {low}, {high})"
        lines.append(f"pixels = {steps}.astype(np.{image.dtype})")
    lines.append("return np.ascontiguousarray(pixels[None])")
    return "".join(f"    {line}\n" for line in lines)


def _main(output: TensorSpec, integer: bool) -> str:
    several = output.shape[-1] != 1
    kind = "several" if several else "sigmoid" if output.meaning == "sigmoid" else "one logit"
    scores = "answer(preprocess(path))"
    if integer:
        scores = f"({scores}.astype(np.float32) - OUT_ZERO_POINT) * OUT_SCALE"
    return f"""

for path in sys.argv[1:]:
    scores = {scores}
    print(path, CLASSES[{DECISIONS[kind]}])
"""
