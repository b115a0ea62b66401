"""Files of quantization-aware training against the network that was trained, on real images, family by family.

The CIFAR networks of --data, then networks of keras.applications. Those have random weights, and what makes an argmax
of theirs mean something is found on CIFAR-10 training images: the statistics of BatchNormalization, and the head, a
logistic regression on the features. Each network is given its rounding, trained for --steps steps on training images,
exported to int8 TFLite without calibration, and run in LiteRT on test images, which nothing has seen. What the file
gives (by XNNPACK, then by LiteRT's built-in kernels) is compared with `simulate(..., exact=True)`; then its decisions
with those of the network as training computes it. Targets: at least 99.5% of outputs within one step and none over
two for the trained networks, argmax agreement of 0.98 for the others, and no float tensor in any file.

    python benchmarks/qat_parity.py --data FOLDER [--families MobileNetV2 ...] [--images 500] [--steps 20] [--save FILE]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TRAINED = ("resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg", "mnv2_cifar10_96")
CLASSES = 10
SIDE = 64
LEAST_SIDE = {"InceptionV3": 75, "Xception": 71}  # that keras.applications takes
TRAIN = 1000  # images that heads and QAT learn from
RATE = 1e-4  # of the optimizer
RANDOM_RATE = 1e-6  # features with a mean of 1.5, all drifting one way, turn a random network over
BETA = 1.5  # standard deviations
TOGETHER = 250  # of them that the statistics of BatchNormalization are of
KEYS = ("top-1", "within 1", "most", "agreement", "builtin", "builtin most", "to trained", "float tensors")


def side(family: str) -> int:
    """Pixels of its images."""
    return 32 if family in TRAINED else max(SIDE, LEAST_SIDE.get(family, 0))


def pictures(data: Path, part: str, count: int, side: int) -> tuple[Any, Any]:
    """The first CIFAR-10 images of a part, (count, side, side, 3) of 0..255, and their labels."""
    from PIL import Image

    stored = np.load(data / "data" / f"cifar10_jpeg_{part}.npz")
    content, offsets = stored["jpeg"].tobytes(), stored["offsets"]
    images = (Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]])) for i in range(count))
    sized = (image if image.width == side else image.resize((side, side)) for image in images)
    return np.stack([np.asarray(image, np.float32) for image in sized]), stored["labels"][:count]


def enliven(graph: Any, images: Any) -> Any:
    """A flat network with random gammas and offsets; moving statistics are those of the images.

    Offsets lie around BETA, so that most values pass their ReLU: with offsets around 0 a deep random network takes
    images that differ by a rounding to features that have nothing in common.
    """
    from keras import layers

    generator = np.random.default_rng(1)
    norms = [layer for layer in graph.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        weights = {"gamma": generator.uniform(0.7, 1.3, layer.moving_mean.shape)}
        weights["beta"] = generator.normal(BETA, 0.3, layer.moving_mean.shape)
        layer.set_weights([weights.get(weight.name, np.asarray(weight)) for weight in layer.weights])
    graph(images, training=True)
    return graph


def decided(graph: Any, images: Any, labels: Any) -> Any:
    """The flat network with a head that has learned its classes.

    Logits of random weights are nearly the same for all images and classes, and an argmax of them means nothing.
    """
    import keras
    from sklearn.linear_model import LogisticRegression

    from toolkit.engine.predict import predict_arrays

    kinds = (keras.layers.Dense, keras.layers.Conv2D)  # MobileNetV3 ends in a 1x1 convolution of one place
    head = [layer for layer in graph.layers if isinstance(layer, kinds)][-1]
    trunk = keras.Model(graph.inputs[0], head.input)
    features = predict_arrays(trunk, {graph.inputs[0].name: images})[0].reshape(len(images), -1)
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    found = LogisticRegression(C=0.01, max_iter=100).fit((features - mean) / spread, labels)
    kernel = (found.coef_ / spread).T
    shape = head.kernel.shape
    head.set_weights([kernel.reshape(shape), found.intercept_ - mean @ kernel])
    return graph


def application(name: str, **options: Any) -> Callable[[], Any]:
    """A network of keras.applications that takes 0..255."""

    def make() -> Any:
        import keras

        inside = "include_preprocessing" in options or name.startswith("Efficient")
        shape = (side(name), side(name), 3)
        network = getattr(keras.applications, name)(input_shape=shape, weights=None, classes=CLASSES, **options)
        if inside:
            return network
        image = keras.Input(shape, name="image")
        return keras.Model(image, network(keras.layers.Rescaling(1 / 127.5, -1.0)(image)), name=name)

    return make


def transfer() -> Any:
    """A nested backbone with preprocessing and a new head, as transfer learning leaves it."""
    import keras
    from keras import layers

    image = keras.Input((SIDE, SIDE, 3), name="image")
    backbone = keras.applications.MobileNetV2(input_shape=(SIDE, SIDE, 3), weights=None, alpha=0.5, include_top=False)
    x = backbone(layers.Rescaling(1 / 127.5, -1.0)(image), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x), name="transfer")


FAMILIES: dict[str, Callable[[], Any]] = {
    "MobileNetV2": application("MobileNetV2", alpha=0.5),
    "transfer": transfer,
    "MobileNetV3Small": application("MobileNetV3Small", include_preprocessing=True),
    "EfficientNetB0": application("EfficientNetB0"),
    "ResNet50": application("ResNet50"),
    "DenseNet121": application("DenseNet121"),
    "InceptionV3": application("InceptionV3"),
    "Xception": application("Xception"),
}


def answers(path: Path, images: Any, *, builtin: bool = False) -> Any:
    """Integers a file gives for images, one at a time, and the scale they are on."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=kinds[not builtin])
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = given["quantization"]
    found = []
    for image in images:
        steps = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], steps[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken["index"])[0].astype(np.int32) - taken["quantization"][1])
    return np.stack(found), float(taken["quantization"][0])


def floats(path: Path) -> int:
    """Tensors of a file that are not integers."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(path)).get_tensor_details()
    return sum(np.issubdtype(detail["dtype"], np.floating) for detail in details)


def trained_graph(flat: Any, head: str, images: Any, *, steps: int, rate: float) -> tuple[Any, Any]:
    """The network with its rounding after some steps of training, and what it has learned."""
    from toolkit.engine.loss import Target
    from toolkit.engine.prepare import prepare
    from toolkit.engine.qat import Rounding, find_ranges, learned, rounding_graph
    from toolkit.engine.teaching import Teaching
    from toolkit.engine.train import fit

    prepared = prepare(flat).graph
    how = Rounding(moving_steps=steps)
    trained = rounding_graph(prepared, find_ranges(prepared, {prepared.inputs[0].name: images[:TOGETHER]}), how)
    if steps:
        images = images[: steps * 32]
        teaching = Teaching(-(-steps * 32 // len(images)), 32, rate, head=head, target=Target(alpha=1.0))
        trained = fit(trained, flat, images, np.zeros(len(images)), how=teaching).model
    return trained, learned(prepared, trained, how)


def export(found: Any, head: str, path: Path) -> None:
    """The int8 file of what was learned, without calibration."""
    from toolkit.core import ExportContext, Model, QuantSpec, Signature, Statistics, TensorSpec
    from toolkit.exporters.tflite import TFLite
    from toolkit.quantization import TensorRange

    ranges = {key: TensorRange(*ends, "learned") for key, ends in found.ranges.items()}
    (image,), (output,) = found.graph.inputs, found.graph.outputs
    ends = (
        TensorSpec(image.name, tuple(image.shape), "float32", "image"),
        TensorSpec(found.graph.output_names[0], tuple(output.shape), "float32", head),
    )
    signature, quant = Signature((ends[0],), (ends[1],)), QuantSpec("int8", io="int8")
    model = Model("keras", found.graph, signature, quant=quant, statistics=Statistics(ranges, TOGETHER))
    TFLite().export(model, path, ExportContext())


def parity(trained: Any, found: Any, path: Path, images: Any, labels: Any) -> dict[str, float]:
    """How far the file is from what was trained."""
    from toolkit.engine.predict import predict_arrays
    from toolkit.engine.simulate import simulate

    given = {found.graph.inputs[0].name: images}
    integers, scale = answers(path, images)
    builtin, _ = answers(path, images, builtin=True)
    wanted = np.rint(predict_arrays(simulate(found.graph, found.ranges, exact=True), given)[0] / scale)
    classes = integers.argmax(-1)
    apart, apart_builtin = np.abs(integers - wanted), np.abs(builtin - wanted)
    return {
        "top-1": float((classes == labels).mean()),
        "within 1": float((apart <= 1).mean()),
        "most": float(apart.max()),
        "agreement": float((classes == wanted.argmax(-1)).mean()),
        "builtin": float((builtin.argmax(-1) == wanted.argmax(-1)).mean()),
        "builtin most": float(apart_builtin.max()),
        "to trained": float((classes == predict_arrays(trained, given)[0].argmax(-1)).mean()),
        "float tensors": floats(path),
    }


def row(family: str, data: Path, *, images: int, steps: int) -> dict[str, float]:
    """All figures of one family."""
    import keras

    from toolkit.engine.flatten import flatten

    keras.utils.set_random_seed(0)
    size = side(family)
    known, labels = pictures(data, "train50k", TRAIN, size)
    if family in TRAINED:
        flat = flatten(keras.models.load_model(data / "models" / f"{family}.keras", compile=False))
    else:
        flat = decided(enliven(flatten(FAMILIES[family]()), known[:TOGETHER]), known, labels)
    head = "logits" if "resnet20" in family else "softmax"
    trained, found = trained_graph(flat, head, known, steps=steps, rate=RATE if family in TRAINED else RANDOM_RATE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export(found, head, path)
        return parity(trained, found, path, *pictures(data, "test10k", images, size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--families", nargs="*", default=[*TRAINED, *FAMILIES], choices=[*TRAINED, *FAMILIES])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save", type=Path, help="one line of JSON a family; those it has are not run again")
    args = parser.parse_args()
    if args.data is None:
        print("skipped: name the folder of trained models and images (--data)")
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from toolkit.errors import EdgekitError

    done = {}
    if args.save and args.save.exists():
        done = {found["family"]: found for found in map(json.loads, args.save.read_text().splitlines())}
    print(f"{'family':22}" + "".join(f"{key:>14}" for key in KEYS))
    for family in args.families:
        try:
            found = done.get(family) or row(family, args.data, images=args.images, steps=args.steps)
        except EdgekitError as error:
            print(f"{family:22}{error}", flush=True)
            continue
        if args.save and family not in done:
            with args.save.open("a") as file:
                file.write(json.dumps({"family": family, **found}) + "\n")
        print(f"{family:22}" + "".join(f"{found[key]:14.4g}" for key in KEYS), flush=True)


if __name__ == "__main__":
    main()
