"""Float .onnx and calibration images in, int8 .onnx out, by NNCF's defaults; for an environment that has nncf and onnx.

    python by_nncf.py FLOAT.onnx CALIBRATION.npz OUT.onnx

CALIBRATION.npz holds `images`, (n, ...) float32 as the model takes them, and `input`, the name of its input.
"""

import sys

import nncf
import numpy as np
import onnx

source, data, target = sys.argv[1:4]
given = np.load(data)
name = str(given["input"])
dataset = nncf.Dataset(list(given["images"]), lambda image: {name: image[None]})
model = nncf.quantize(onnx.load(source), dataset, subset_size=len(given["images"]))
onnx.save(model, target)
