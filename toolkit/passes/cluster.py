"""Clustering: the weights of a layer share few values, which are trained while the original teaches.

Han, Mao, Dally 2016, arXiv:1510.00149; tensorflow.org/model_optimization, "Weight clustering". The network keeps its
shape and does the same work: how few values a file's weights have makes it compress better (docs/cluster.md).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import Codebook, LayerChange, Model, PassContext, PassResult
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes.distill import kept_codebooks, still_zero
from toolkit.passes.weightwise import Weightwise
from toolkit.traits import SHAPE, ZEROS, Trait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.engine.clusters import Sharing
    from toolkit.engine.teaching import Teaching

LEAST_WITH_ZERO = 3  # values: zero, one below it, one above (cluster_wrapper.py of tensorflow-model-optimization)


class Cluster(Weightwise):
    """Lets the weights of a layer share few values, and trains these; they stay few in the passes that follow."""

    called: ClassVar[str] = "cluster"

    clusters: Annotated[int, Field(ge=2, le=256)]
    """How many values the weights of a layer, or of each of its output channels, have at most; zeros of a sparse model
    stay, and zero is one of them."""
    per: Literal["layer", "channel"] = "layer"
    """What has values of its own: a layer, whose file compresses best, or each output channel."""
    start: Literal["kmeans", "linear", "density"] = "kmeans"
    """Values to begin with: k-means of the weights, evenly from the least to the largest, or with as many weights
    each."""
    assignment: Literal["renewed", "fixed"] = "renewed"
    """Which weight has which value: renewed after each step, whichever is nearest, or fixed from the start."""
    protect: tuple[str, ...] = ()
    """Name patterns (`*` and `?`) of layers that stay as they are."""
    epochs: Annotated[int, Field(ge=0, le=10_000)] = 5
    """Passes over the train split; 0 shares the values at once and trains nothing (let `distill` follow)."""
    backend: Literal["native", "tfmot"] = "native"
    """What trains: native is Edgekit's own; tfmot is tensorflow-model-optimization's cluster_weights."""

    @model_validator(mode="after")
    def _tfmot_takes(self) -> Self:
        self._check_tfmot({"assignment": "renewed"})
        if not self.epochs and self.assignment != "renewed":
            raise ValueError("assignment is of no use with epochs = 0, which trains nothing; leave it out")
        return self

    @property
    def makes(self) -> frozenset[Trait]:  # type: ignore[override]
        """Shared values."""
        return frozenset({"clustered", "trained"} if self.epochs else {"clustered"})

    @property
    def keeps(self) -> frozenset[Trait]:  # type: ignore[override]
        """What it leaves as earlier passes made it: the zeros, and shared values of layers that it leaves alone."""
        return SHAPE | ZEROS | ({"clustered"} if self.backend == "native" else set())

    def run(self, model: Model, context: PassContext) -> PassResult:
        """A copy with shared weights, and a line for each layer.

        Raises as `distill` does; UnsupportedError for a model that is quantized already, or where no layer can share
        weights; InputError for a pattern of `protect` that matches no layer, or too few clusters beside zeros.
        """
        from toolkit.engine.clusters import still

        if model.quant.scheme != "float32":
            raise UnsupportedError(self.called, f"the model is {model.quant.scheme} already", "cluster first")
        layers, whole = self._layers(model)
        others = {name: codebook for name, codebook in model.clustered.items() if name not in layers}
        result = self._made(replace(model, clustered=others), context)
        graph = result.model.graph
        claims = still(graph, {**others, **dict.fromkeys(layers, self._codebook)})
        rows = [self._row(model.graph.get_layer(name), graph.get_layer(name)) for name in layers]
        left = [LayerChange(name, "all weights", "all weights", why) for name, why in whole.items()]
        return PassResult(replace(result.model, clustered=claims), (*result.changes, *rows, *left), result.curves)

    @property
    def _codebook(self) -> Codebook:
        return Codebook(self.clusters, self.per)

    def _layers(self, model: Model) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Layers that get a codebook, and why the others do not."""
        from toolkit.engine.clusters import eligible

        find = partial(eligible, model.graph, self._codebook, self.protect)
        layers, whole = self._found(find, "no layer can share weights")
        if self.clusters < LEAST_WITH_ZERO and set(layers) & set(model.sparse):
            problem = f"zero is one value of a sparse model, needs {LEAST_WITH_ZERO} or more, got {self.clusters}"
            raise InputError(f"{self.called}.clusters", problem)
        return layers, whole

    def sharing_of(self, model: Model, seed: int) -> Sharing:
        """What a training makes, and what it keeps of layers that it leaves as they are."""
        from toolkit.engine.clusters import Sharing

        layers, _ = self._layers(model)
        held = kept_codebooks(model) or Sharing()
        made = dict.fromkeys(layers, self._codebook)
        zeros, renewed = tuple(model.sparse), self.assignment == "renewed"
        return replace(held, made=made, start=self.start, renewed=renewed, zeros=zeros, seed=seed)

    def _teaching(self, model: Model, context: PassContext) -> Teaching:
        return replace(super()._teaching(model, context), sharing=self.sharing_of(model, context.seed))

    def _made(self, model: Model, context: PassContext) -> PassResult:
        """A copy with shared weights, by whoever trains."""
        from toolkit.engine import tfmot_clusters

        if not self.epochs:
            return self._at_once(model, context)
        if self.backend == "tfmot":
            return self._by_tfmot(tfmot_clusters, model, context)
        return super().run(model, context)

    def _at_once(self, model: Model, context: PassContext) -> PassResult:
        """Shared now, nothing trained."""
        from toolkit.engine.clusters import clustered

        graph = clustered(model.graph, self.sharing_of(model, context.seed))
        line = LayerChange("the model", "trained", "not trained since", "epochs = 0; let distill follow")
        return PassResult(replace(model, graph=graph), (line, *still_zero(model, graph)))

    def _row(self, before: Any, after: Any) -> LayerChange:
        """How many values a layer's weights had, and have."""
        import numpy as np

        from toolkit.engine.clusters import channel_axis, most_values
        from toolkit.engine.eligible import kernel_of

        kernels = [np.asarray(kernel_of(layer)) for layer in (before, after)]
        old, new = (most_values(kernel, self.per, channel_axis(after)) for kernel in kernels)
        where = "in each output channel" if self.per == "channel" else "in the layer"
        return LayerChange(before.name, f"{old:,} values of {kernels[0].size:,} weights", f"{new:,} values", where)
