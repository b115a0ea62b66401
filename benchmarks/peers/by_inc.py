"""Float .onnx and calibration images in, int8 .onnx out, by Intel's onnx-neural-compressor; scales per channel, Q/DQ.

    python by_inc.py FLOAT.onnx CALIBRATION.npz OUT.onnx

As by_nncf.py; for an environment that has onnx-neural-compressor and onnxruntime.
"""

import sys

import numpy as np
import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, config, quantize

source, data, target = sys.argv[1:4]
given = np.load(data)
name = str(given["input"])


class Images(data_reader.CalibrationDataReader):
    def __init__(self):
        self.rewind()

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {name: image[None]}

    def rewind(self):
        self.left = iter(given["images"])


settings = config.StaticQuantConfig(
    calibration_data_reader=Images(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    calibration_sampling_size=len(given["images"]),
)
quantize(source, target, settings)
onnx.save(onnx.load(target), target)  # in one file, weights too
