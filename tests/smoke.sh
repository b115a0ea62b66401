#!/bin/sh
# The wheel in a bare environment: it installs, carries its recipes and devices, and does a whole job away from the
# checkout. Usage: sh tests/smoke.sh [python]. Needs the network for packages.
set -eu
PYTHON=${1:-python3}
ROOT=$(cd "$(dirname "$0")/.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

"$PYTHON" -m venv "$WORK/venv"
BIN=$WORK/venv/bin
"$BIN/python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$WORK/wheel" "$ROOT"
"$BIN/python" -m pip install --quiet --disable-pip-version-check -c "$ROOT/constraints.txt" "$WORK"/wheel/edgekit-*.whl
cd "$WORK"

"$BIN/edgekit" --version
"$BIN/edgekit" doctor
"$BIN/edgekit" list recipes
"$BIN/edgekit" check post-training-int8
"$BIN/edgekit" check this-machine
"$BIN/python" - <<'PY'
import keras, numpy as np
from keras import layers
rng = np.random.default_rng(0)
labels = np.arange(600) % 3
images = rng.integers(0, 80, (600, 8, 12, 3))
images[np.arange(600), :, :, labels] += 120  # the class is the brightest channel
np.savez("images.npz", images=images.astype(np.uint8), labels=labels)
model = keras.Sequential([
    keras.Input((8, 12, 3), name="image"), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, activation="relu"),
    layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax"),
])
model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
model.fit(images.astype("float32"), labels, epochs=15, verbose=0)
model.save("model.keras")
PY
"$BIN/edgekit" run post-training-int8 --model model.keras --data images.npz --out run \
    --set measure.processes=2 --set measure.seconds=0.1 --set data.splits.calibration=100
test -s run/report.html -a -s run/artifacts/int8.tflite -a -s run/artifacts/int8.onnx
echo "smoke: passed"
