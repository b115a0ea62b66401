"""Float .onnx and calibration images in, int8 .onnx out, by Qualcomm's AIMET (its defaults, unsigned activations).

    python by_aimet.py FLOAT.onnx CALIBRATION.npz OUT.onnx

As by_nncf.py; for an environment that has aimet-onnx.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
from aimet_onnx.quantsim import QuantizationSimModel

source, data, target = sys.argv[1], sys.argv[2], Path(sys.argv[3])
given = np.load(data)
name = str(given["input"])
model = onnx.load(source)
fold_all_batch_norms_to_weight(model)
simulation = QuantizationSimModel(model, param_type="int8", activation_type="int8", providers=["CPUExecutionProvider"])
simulation.compute_encodings([{name: image[None]} for image in given["images"]])
onnx.save(simulation.to_onnx_qdq(), target)
