"""Quantize sets what exporters must write, finds ranges where they are needed, and leaves the network as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from pydantic import ValidationError

from toolkit.core import STATIC, Batch, Dataset, Model, PassContext, Progress, QuantSpec, Scheme, Signature, Statistics
from toolkit.engine.prepare import prepare
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.quantize import Quantize

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A dataset of images in memory, as calibration reads one. asked: notes each reading through."""

    images: Images
    labels: NDArray[np.int64]
    asked: list[int]
    classes: tuple[str, ...] = ("cat", "dog")
    task: Any = "classes"
    name: str = "calibration"
    fingerprint: str = "f00d"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"image {i}" for i in range(len(self.images)))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[Batch]:
        self.asked.append(size)
        for i in range(0, len(self), size):
            yield Batch({"image": self.images[i : i + size]}, {}, self.ids[i : i + size])


def sample(count: int = 120, scale: float = 1.0, **rest: Any) -> Sample:
    images = scale * np.random.default_rng(0).uniform(-1, 1, (count, 4, 4, 1)).astype(np.float32)
    images[:1, 0, 0] = scale  # the largest
    return Sample(images, np.arange(count) % 2, [], **rest)


def net() -> Model:
    """conv and its ReLU fuse; BatchNormalization goes into conv; the separable convolution becomes two."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 1), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 3, padding="same", name="conv")(image))
    x = layers.SeparableConv2D(3, 2, name="sep")(layers.ReLU(name="relu")(x))
    x = layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))
    return Model("keras", keras.Model(image, x), Signature((), ()))


@pytest.fixture(scope="module")
def model() -> Model:
    return net()


def context(data: Dataset | None = None, said: list[Progress] | None = None, **rest: Any) -> PassContext:
    lines = [] if said is None else said
    return PassContext(calibration=data, emit=lines.append, **rest)


def warnings(said: Sequence[Progress]) -> list[str]:
    return [item.text for item in said if item.keep]


# ---------------------------------------------------------------- the request


@pytest.mark.parametrize(
    ("field", "value", "scheme"),
    [
        ("io", "uint8", "float16"),
        ("io", "int8", "int16x8"),
        ("io", "int16", "int8"),
        ("flavour", "symmetric", "int16x8"),
        ("ranges", "mse", "dynamic"),
        ("percentile", 99.0, "int8"),
        ("layers", {"head": "int16x8"}, "weight_int4"),
    ],
)
def test_what_a_scheme_cannot_have_is_refused(field: str, value: Any, scheme: str) -> None:
    with pytest.raises(ValidationError, match="need"):
        Quantize.model_validate({"scheme": scheme, field: value})


@pytest.mark.parametrize("scheme", [scheme for scheme in get_args(Scheme) if scheme != "float32"])
def test_every_scheme_is_asked_for_and_static_ones_alone_need_images(scheme: Any) -> None:
    component = Quantize(scheme=scheme, layers={"head": "float32"})
    assert component.quant == QuantSpec(scheme, layers=(("head", "float32"),))
    assert component.needs == (("calibration",) if scheme in STATIC else ())


def test_all_fields_reach_the_exporters() -> None:
    component = Quantize(
        scheme="int8",
        granularity="per_tensor",
        io="uint8",
        flavour="symmetric",
        ranges="percentile",
        percentile=99.9,
        layers={"b": "int16x8", "a": "float32"},
        allow_float=True,
        backend="tensorflow",
    )
    assert component.quant == QuantSpec(
        "int8",
        "per_tensor",
        "uint8",
        "symmetric",
        (("a", "float32"), ("b", "int16x8")),
        "percentile",
        99.9,
        allow_float=True,
        backend="tensorflow",
    )


def test_the_graph_stays_and_layers_are_listed(model: Model) -> None:
    result = Quantize(scheme="int8", granularity="per_tensor", layers={"head": "int16x8"}).run(model, context(sample()))
    assert result.model.graph is model.graph
    assert model.quant == QuantSpec()
    assert [(c.layer, c.after) for c in result.changes] == [
        ("conv", "int8 weights (per-tensor), int8 activations"),
        ("sep", "int8 weights (per-tensor), int8 activations"),
        ("head", "int8 weights (per-tensor), int16 activations"),
        ("the calibration", "ranges by minmax of 120 images"),
    ]


def test_a_separable_convolution_is_meant_with_both_of_its_parts(model: Model) -> None:
    result = Quantize(scheme="int8", layers={"sep": "float32"}).run(model, context(sample()))
    assert result.model.quant.layers == (("sep", "float32"), ("sep_depthwise", "float32"))


@pytest.mark.parametrize(
    ("name", "said"),
    [("haed", "no such layer. Fix: did you mean 'head'"), ("bn", "is in the weights of conv by then")],
)
def test_a_layer_that_is_not_there_is_refused(model: Model, name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"quantize.layers.{name}: .*{said}"):
        Quantize(scheme="int8", layers={name: "float32"}).run(model, context(sample()))


def test_quantized_twice_and_nothing_to_quantize_are_refused(model: Model) -> None:
    once = Quantize(scheme="float16").run(model, PassContext()).model
    with pytest.raises(UnsupportedError, match="is float16 already"):
        Quantize(scheme="int8").run(once, PassContext())
    image = keras.Input((4,))
    with pytest.raises(UnsupportedError, match="has none of"):
        Quantize(scheme="int8").run(
            Model("keras", keras.Model(image, layers.ReLU()(image)), Signature((), ())), PassContext()
        )


# ---------------------------------------------------------------- statistics


def found(model: Model, data: Dataset, **fields: Any) -> Statistics:
    component = Quantize.model_validate({"scheme": "int8", **fields})
    statistics = component.run(model, context(data)).model.statistics
    assert statistics is not None
    return statistics


def test_statistics_are_of_the_prepared_graph(model: Model) -> None:
    """Each range is the least and greatest value of that layer in the prepared graph, on the calibration images."""
    data = sample()
    statistics = found(model, data)
    graph = prepare(model.graph).graph
    assert set(statistics.ranges) == {layer.name for layer in graph.layers}
    assert (statistics.images, statistics.sample, statistics.notes) == (120, "f00d", ())
    for name, item in statistics.ranges.items():
        values = np.asarray(keras.Model(graph.inputs, graph.get_layer(name).output)([data.images]))
        assert (item.low, item.high) == pytest.approx((values.min(), values.max()), rel=1e-5, abs=1e-6)
        assert item.how == "minmax"


def test_sixteen_bits_are_not_clipped_where_eight_are(model: Model) -> None:
    data = sample(4000)
    data.images[:] = data.images**9  # most values are small
    widest = found(model, data).ranges
    eight, sixteen = (found(model, data, scheme=scheme, ranges="entropy").ranges for scheme in STATIC)
    assert sixteen["relu"].high == widest["relu"].high
    assert eight["relu"].high < widest["relu"].high
    mixed = found(model, data, ranges="entropy", layers={"relu": "int16x8"}).ranges
    assert mixed == {**eight, "relu": sixteen["relu"]}


def test_one_calibration_serves_all_passes_of_a_run(model: Model) -> None:
    """Min-max reads the images once; the first method that needs histograms once more; all others not at all."""
    data, memory = sample(), dict[str, Any]()
    for number, method in ((1, "minmax"), (1, "minmax"), (2, "entropy"), (2, "percentile"), (2, "mse"), (2, "minmax")):
        component = Quantize.model_validate({"scheme": "int8", "ranges": method})
        component.run(model, context(data, memory=memory))
        assert len(data.asked) == number
    changed = net()
    changed.graph.get_layer("head").bias.assign([1.0, 2.0])
    Quantize(scheme="int8").run(changed, context(data, memory=memory))
    assert len(data.asked) == 3


def test_files_are_calibrated_by_their_exporter(tmp_path: Path) -> None:
    said: list[Progress] = []
    data = sample(20)
    result = Quantize(scheme="int8").run(Model("onnx", tmp_path, Signature((), ())), context(data, said))
    assert result.model.statistics is None
    assert data.asked == []
    assert len(warnings(said)) == 1
    with pytest.raises(InputError, match="there is no calibration split"):
        Quantize(scheme="int8").run(Model("onnx", tmp_path, Signature((), ())), PassContext())


# ---------------------------------------------------------------- what is worth a warning


def test_few_images_and_missing_classes_are_told(model: Model) -> None:
    said: list[Progress] = []
    data = sample(2, classes=tuple("abcdefgh"))
    result = Quantize(scheme="int8").run(model, context(data, said))
    assert result.model.statistics is not None
    assert warnings(said) == [f"warning: {note}" for note in result.model.statistics.notes]
    few, missing = result.model.statistics.notes
    assert few == "the calibration: 2 images; with fewer than about 100 the ranges depend on which images these are"
    assert missing == "the calibration: no image of 6 of 8 classes (c, d, e, f, g, ...)"
    reason = "; ".join(note.removeprefix("the calibration: ") for note in (few, missing))
    assert [c.reason for c in result.changes if c.layer == "the calibration"] == [reason]


def test_labels_that_no_image_has_are_told(model: Model) -> None:
    tags = np.zeros((120, 3), np.uint8)
    tags[:, 1] = 1
    data = Sample(sample().images, tags, [], classes=("a", "b", "c"), task="labels")
    assert found(model, data).notes == ("the calibration: no image of 2 of 3 classes (a, c)",)


def test_values_that_ranges_cut_off_are_told(model: Model) -> None:
    assert found(model, sample(), ranges="percentile", percentile=100).notes == ()
    (note,) = found(model, sample(), ranges="percentile", percentile=90).notes
    assert note.startswith("the calibration: ranges by percentile cut values off in")
    assert "%" in note


def test_sums_and_values_beyond_float16_are_told_for_integers_too(model: Model) -> None:
    assert found(model, sample(scale=2e4)).notes == ()
    result = Quantize(scheme="int8").run(model, context(sample(scale=3e5)))
    assert result.model.statistics is not None
    note = "gives values up to 3e+05; float16 ends at 65,504"
    assert result.model.statistics.notes[0] == f"image: {note}"
    assert ("image", note) in [(c.layer, c.reason) for c in result.changes]


def test_float16_says_what_it_cannot_hold(model: Model) -> None:
    said: list[Progress] = []
    Quantize(scheme="float16").run(model, context(sample(), said))
    assert warnings(said) == []
    Quantize(scheme="float16").run(model, context(None, said))
    assert [line for line in warnings(said) if "not compared with 65,504" in line]
    Quantize(scheme="float16").run(model, context(sample(scale=3e5), said))
    assert any("warning: conv: gives values up to" in line for line in warnings(said))
    wide = net()
    wide.graph.get_layer("head").kernel.assign(np.full((3, 2), 7e4, np.float32))
    with pytest.raises(UnsupportedError, match="head: has a weight of 7e"):
        Quantize(scheme="float16").run(wide, context(sample()))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((3, 4, 4, 1), np.nan), "image 0: input `image` holds NaN"),
        (np.zeros((3, 5, 4, 1)), r"has shape \(5, 4, 1\), the model takes \(4, 4, 1\)"),
        (np.zeros((0, 4, 4, 1)), "there is no calibration split"),
    ],
)
def test_images_that_do_not_fit_are_refused(model: Model, images: Images, said: str) -> None:
    data = Sample(images.astype(np.float32), np.zeros(len(images), np.int64), [])
    with pytest.raises(InputError, match=said):
        Quantize(scheme="int8").run(model, context(data))
