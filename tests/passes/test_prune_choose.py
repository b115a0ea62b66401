from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import pytest
from keras import layers

from toolkit.core import Delivered, Model, PassContext, Signature, TensorSpec
from toolkit.engine import prices
from toolkit.engine.cost import cost
from toolkit.engine.graph import parameters, walk
from toolkit.engine.groups import find_groups
from toolkit.errors import UnsupportedError
from toolkit.passes.prune import Prune


def network(*convolutions: tuple[int, int]) -> Model:
    """Convolutions c0, c1, ... of so many channels and such a stride, then ten classes."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1), name="image")
    for number, (filters, stride) in enumerate(convolutions):
        x = layers.Conv2D(filters, 3, stride, padding="same", name=f"c{number}")(x)
    end = layers.Dense(10, activation="softmax", name="probs")(layers.GlobalAveragePooling2D()(x))
    given, taken = TensorSpec("image", (None, 8, 8, 1), "float32", "image"), (None, 10)
    return Model(
        "keras", keras.Model(image, end), Signature((given,), (TensorSpec("probs", taken, "float32", "softmax"),))
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return network((32, 1), (64, 1), (64, 1), (4, 1))


def size_of(graph: Any) -> int:
    return sum(map(parameters, graph.layers))


def files(models: Sequence[Model], device: str) -> tuple[Delivered, ...]:
    """Stands in for an exporter: a KiB and the weights."""
    return tuple(Delivered(1.0 + size_of(model.graph) * 4 / 1024) for model in models)


def test_prune_says_that_a_target_is_nearer_to_the_whole_network_than_to_any_other(model: Model) -> None:
    with pytest.raises(UnsupportedError, match=r"99\.0% of the MACs is nearer to the whole network .*less to remain"):
        Prune(macs=0.99).run(model, PassContext())


@pytest.mark.parametrize("share", [0.2, 0.45, 0.6])
def test_prune_evenly_in_steps_comes_to_the_widths_of_one_cut(model: Model, share: float) -> None:
    one = Prune(macs=share).run(model, PassContext()).model.graph
    five = Prune(macs=share, steps=5).run(model, PassContext()).model.graph
    assert [layer.output.shape for layer in five.layers] == [layer.output.shape for layer in one.layers]


def test_prune_to_a_size_takes_what_saves_weights_and_not_macs() -> None:
    """The layers behind the stride have most of the weights, those before it most of the MACs."""
    model = network((64, 1), (64, 1), (64, 4), (64, 1))
    sized = Prune(size=0.6, ranking="global").run(model, PassContext(deliver=files)).model.graph
    reached = size_of(sized) / size_of(model.graph)
    counted = Prune(parameters=reached, ranking="global").run(model, PassContext()).model.graph
    widths = [[graph.get_layer(f"c{number}").filters for number in range(4)] for graph in (sized, counted)]
    assert widths[0] == widths[1] and 0.55 <= reached <= 0.6


def test_prune_weighs_steps_by_what_the_kernels_of_the_device_compute(model: Model) -> None:
    free = [group for group in find_groups(model.graph) if not group.frozen]
    tiled, whole = prices.macs(walk(model.graph), free, 32), cost(model.graph).macs

    def cut(device: str) -> tuple[float, float, str]:
        context = PassContext(multiple=32)
        result = Prune(macs=0.5, ranking="global", importance="l1", device=device).run(model, context)
        widths = {group.id: result.model.graph.get_layer(group.producers[0]).filters for group in free}
        return cost(result.model.graph).macs / whole, tiled(widths), result.changes[0].reason

    (plain, slower, said), (share, faster, told) = cut(""), cut("phone")
    assert abs(plain - 0.5) <= 0.03 and abs(share - 0.5) <= 0.03
    assert faster < slower
    assert said == "asked for 50.0% of the MACs"
    assert told == f"{said}; steps weighed by what kernels of phone compute, 32 channels at once"
