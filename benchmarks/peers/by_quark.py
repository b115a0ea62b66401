"""Float .onnx and calibration images in, int8 .onnx out, by AMD Quark's configuration for processors (U8S8_AAWS).

    python by_quark.py FLOAT.onnx CALIBRATION.npz OUT.onnx

As by_nncf.py; for an environment that has amd-quark and onnxruntime. Weights have one scale for each output channel.
"""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config import Config, get_default_config

source, data, target = sys.argv[1:4]
given = np.load(data)
name = str(given["input"])


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = iter(given["images"])

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {name: image[None]}


settings = get_default_config("U8S8_AAWS")
settings.per_channel = True
ModelQuantizer(Config(global_quant_config=settings)).quantize_model(source, target, Images())
