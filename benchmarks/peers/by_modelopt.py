"""Float .onnx and calibration images in, int8 .onnx out, by nvidia-modelopt (its defaults, the rest float32).

    python by_modelopt.py FLOAT.onnx CALIBRATION.npz OUT.onnx

As by_nncf.py; for an environment that has nvidia-modelopt[onnx]. Made for TensorRT: symmetric int8 activations.
"""

import sys

import numpy as np
from modelopt.onnx.quantization import quantize

source, data, target = sys.argv[1:4]
given = np.load(data)
quantize(
    source,
    quantize_mode="int8",
    calibration_data={str(given["input"]): given["images"]},
    calibration_eps=["cpu"],
    high_precision_dtype="fp32",
    output_path=target,
)
