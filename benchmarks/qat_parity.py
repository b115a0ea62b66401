"""Files of quantization-aware training against the network that was trained, on real images, family by family.

The seed CNN and the CIFAR ResNets of --data, then networks of keras.applications at 96 px with random weights and
random BatchNormalization, whose statistics are those of the images. Each is given its rounding, trained for --steps
steps, exported to int8 TFLite without calibration, and run in LiteRT on the same images. Targets: at least 99.5% of
outputs within one step and none over two for the trained networks, argmax agreement of 0.98 for the others, and no
float tensor in any file.

    python benchmarks/qat_parity.py --data FOLDER [--families MobileNetV2 ...] [--images 64] [--steps 0]
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TRAINED = ("resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg")
SIDE = 96
CLASSES = 10


def pictures(data: Path, count: int, side: int) -> Any:
    """Photographs of the ImageNet sample, (count, side, side, 3) of 0..255."""
    from PIL import Image

    paths = sorted((data / "data" / "imagenet_sample300").rglob("*.jp*g"))[:count]
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((side, side)), np.float32) for path in paths])


def small_pictures(data: Path, count: int) -> Any:
    """CIFAR-10 test images, 0..255."""
    from PIL import Image

    stored = np.load(data / "data" / "cifar10_jpeg_test10k.npz")
    content, offsets = stored["jpeg"].tobytes(), stored["offsets"]
    images = (Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]])) for i in range(count))
    return np.stack([np.asarray(image, np.float32) for image in images])


def enliven(model: Any, images: Any) -> Any:
    """Random gammas and offsets; moving statistics are those of the images, so that no activation dies."""
    from keras import layers

    generator = np.random.default_rng(1)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        weights = {"gamma": generator.uniform(0.7, 1.3, layer.moving_mean.shape)}
        weights["beta"] = generator.normal(0, 0.3, layer.moving_mean.shape)
        layer.set_weights([weights.get(weight.name, np.asarray(weight)) for weight in layer.weights])
    model(images, training=True)
    return model


def decided(graph: Any, images: Any) -> Any:
    """The flat network with a head whose logits differ from image to image as a trained network's do.

    Logits of random weights are nearly the same for all images and classes, and an argmax of them means nothing: each
    class's get mean 0 and a standard deviation of 3.
    """
    import keras

    kinds = (keras.layers.Dense, keras.layers.Conv2D)  # MobileNetV3 ends in a 1x1 convolution of one place
    head = [layer for layer in graph.layers if isinstance(layer, kinds)][-1]
    kernel, _ = head.get_weights()
    features = np.asarray(keras.Model(graph.inputs[0], head.input)(images))
    logits = features.reshape(len(images), -1) @ kernel.reshape(-1, kernel.shape[-1])
    scale = 3 / logits.std(axis=0)
    head.set_weights([kernel * scale, -logits.mean(axis=0) * scale])
    return graph


def application(name: str, **options: Any) -> Callable[[], Any]:
    """A network of keras.applications that takes 0..255."""

    def make() -> Any:
        import keras

        inside = "include_preprocessing" in options or name.startswith("Efficient")
        network = getattr(keras.applications, name)(
            input_shape=(SIDE, SIDE, 3), weights=None, classes=CLASSES, **options
        )
        if inside:
            return network
        image = keras.Input((SIDE, SIDE, 3), name="image")
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


def answers(path: Path, images: Any) -> Any:
    """Integers a file gives for images, one at a time, and the scale they are on."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=2)
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


def parity(graph: Any, head: str, images: Any, *, steps: int, folder: Path) -> dict[str, float]:
    """How far the file is from what was trained."""
    from toolkit.core import ExportContext, Model, QuantSpec, Signature, Statistics, TensorSpec
    from toolkit.engine.flatten import flatten
    from toolkit.engine.loss import Target
    from toolkit.engine.predict import predict_arrays
    from toolkit.engine.prepare import prepare
    from toolkit.engine.qat import Rounding, find_ranges, learned, rounding_graph
    from toolkit.engine.simulate import simulate
    from toolkit.engine.teaching import Teaching
    from toolkit.engine.train import fit
    from toolkit.exporters.tflite import TFLite
    from toolkit.quantization import TensorRange

    flat = flatten(graph)
    prepared = prepare(flat).graph
    name = prepared.inputs[0].name
    how = Rounding(moving_steps=steps)
    trained = rounding_graph(prepared, find_ranges(prepared, {name: images}), how)
    if steps:
        batch = min(32, len(images))
        teaching = Teaching(-(-steps * batch // len(images)), batch, 1e-4, head=head, target=Target(alpha=1.0))
        trained = fit(trained, flat, images, np.zeros(len(images)), how=teaching).model
    found = learned(prepared, trained, how)
    ranges = {key: TensorRange(*ends, "learned") for key, ends in found.ranges.items()}
    ends = [
        tuple(TensorSpec(x.name, tuple(x.shape), "float32", meaning) for x in tensors)
        for tensors, meaning in ((prepared.inputs, "image"), (prepared.outputs, head))
    ]
    ends[1] = tuple(
        TensorSpec(name, spec.shape, spec.dtype, spec.meaning)
        for name, spec in zip(prepared.output_names, ends[1], strict=True)
    )
    quant = QuantSpec("int8", io="int8")
    model = Model("keras", found.graph, Signature(*ends), quant=quant, statistics=Statistics(ranges, len(images)))
    path = folder / "model.tflite"
    TFLite().export(model, path, ExportContext())
    integers, scale = answers(path, images)
    wanted = predict_arrays(simulate(found.graph, found.ranges, exact=True), {name: images})[0]
    trained_answers = predict_arrays(trained, {name: images})[0]
    apart = np.abs(integers - np.rint(wanted / scale))
    return {
        "within 1": float((apart <= 1).mean()),
        "most": float(apart.max()),
        "agreement": float((integers.argmax(-1) == wanted.argmax(-1)).mean()),
        "to trained": float((integers.argmax(-1) == trained_answers.argmax(-1)).mean()),
        "float tensors": floats(path),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--families", nargs="*", default=[*TRAINED, *FAMILIES], choices=[*TRAINED, *FAMILIES])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from toolkit.engine.flatten import flatten
    from toolkit.errors import EdgekitError

    print(f"{'family':24}{'within 1':>10}{'most':>6}{'agreement':>11}{'to trained':>12}{'float tensors':>15}")
    for family in args.families:
        keras.utils.set_random_seed(0)
        if family in TRAINED:
            graph = keras.models.load_model(args.data / "models" / f"{family}.keras", compile=False)
            images = small_pictures(args.data, args.images)
            head = "softmax" if "resnet8" in family else "logits"
        else:
            images, head = pictures(args.data, args.images, SIDE), "softmax"
            graph = decided(flatten(enliven(FAMILIES[family](), images)), images)
        try:
            with tempfile.TemporaryDirectory() as folder:
                row = parity(graph, head, images, steps=args.steps, folder=Path(folder))
        except EdgekitError as error:
            print(f"{family:24}{error}", flush=True)
            continue
        print(
            f"{family:24}{row['within 1']:10.2%}{row['most']:6.0f}{row['agreement']:11.3f}"
            f"{row['to trained']:12.3f}{row['float tensors']:15.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
