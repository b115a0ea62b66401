"""Accuracy that quantization lost, won back without training: corrections of a prepared graph in one fixed order.

Equalization, outliers, then ranges of the graph as it is by then, adaptive or successive rounding, biases (Nagel et al.
2021, arXiv:2106.08295, figure 4). What comes out has its weights on the grid that exporters find again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from toolkit.engine.adaround import Rounding, Settings, adaround
from toolkit.engine.bias_correction import called_once, correct_analytic, correct_measured, with_biases
from toolkit.engine.channel_values import Batches, channel_peaks
from toolkit.engine.equalize import equalize, peak_layers
from toolkit.engine.expected import Normal, expected_inputs
from toolkit.engine.gptq import gptq
from toolkit.engine.outliers import Treated, clip_weights, split_channels
from toolkit.engine.simulate import Flavour, Granularity, simulate
from toolkit.engine.surgery import rebuild
from toolkit.errors import InputError
from toolkit.quantization import Statistics

Array = NDArray[Any]
Correction = Literal["equalize", "outliers", "adaround", "gptq", "bias"]
ORDER: tuple[Correction, ...] = get_args(Correction)


@dataclass(frozen=True)
class Target:
    """What the graph is corrected for. activation_bits: 8, 16, or None where activations stay float.

    layers: the layers that are quantized, by name in the prepared graph; None for all.
    """

    weight_bits: int = 8
    activation_bits: int | None = 8
    flavour: Flavour = "asymmetric"
    granularity: Granularity = "per_channel"
    layers: Collection[str] | None = None


@dataclass(frozen=True)
class Data:
    """Calibration images, again at each call, and the ranges that a graph's tensors have on them."""

    batches: Batches
    calibrate: Callable[[Any], Statistics]


@dataclass(frozen=True)
class Step:
    """One correction at one layer, in words; reason: why it left the layer alone, or ""."""

    layer: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True)
class Recovered:
    """graph: prepared, corrected; statistics: its ranges (None without images); steps: in the order they were done."""

    graph: Any
    statistics: Statistics | None
    steps: tuple[Step, ...]


def recover(
    prepared_graph: Any,
    corrections: Collection[str],
    *,
    target: Target = Target(),
    data: Data | None = None,
    norms: Mapping[str, Normal] | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    watch: Callable[[str], None] = lambda text: None,
) -> Recovered:
    """The graph with these corrections, in the order of ORDER whatever the order given.

    data: adaptive rounding and measured biases need it. Without it, biases follow from `norms` (what expected.
    norm_statistics finds in the graph before it was prepared), and equalization sees weights alone. watch: told what is
    being done.

    Raises:
        InputError: an unknown correction, or one that needs images where there are none.
    """
    _check(corrections, target, data, norms)
    settings = replace(settings or Settings(), bits=target.weight_bits, granularity=target.granularity, seed=seed)
    graph, steps = prepared_graph, list[Step]()
    if "equalize" in corrections:
        graph, norms, found = _equalized(graph, target, data, norms or {})
        steps += found
    reference = graph  # what the weights were: clipped ones compute something else
    if "outliers" in corrections:
        graph, reference, found = _without_outliers(graph, target)
        steps += found
    if not {"adaround", "gptq", "bias"} & set(corrections):
        return Recovered(graph, data.calibrate(graph) if data else None, tuple(steps))
    if "bias" in corrections:
        graph, reference = with_biases(graph), with_biases(reference)
    statistics = data.calibrate(graph) if data else None
    state = _Rounded(graph, reference, target, statistics)
    if "adaround" in corrections and data:
        steps += state.round_adaptively(data, settings, watch)
    if "gptq" in corrections and data:
        steps += state.round_in_turn(data, settings, watch)
    if "bias" in corrections:
        watch("correcting biases")
        steps += state.correct_biases(data, norms or {})
    return Recovered(state.graph(), statistics, tuple(steps))


def _check(corrections: Collection[str], target: Target, data: Data | None, norms: Mapping[str, Normal] | None) -> None:
    """Raise InputError for what cannot be done."""
    unknown = sorted(set(corrections) - set(ORDER))
    if unknown:
        raise InputError("corrections", f"there is no {unknown[0]!r}", f"choose from {', '.join(ORDER)}")
    if data is None and target.activation_bits is not None:
        raise InputError("corrections", "quantized activations need images", "give a calibration set")
    for name in ("adaround", "gptq"):
        if data is None and name in corrections:
            raise InputError(name, "needs images", "give a calibration set")
    if {"adaround", "gptq"} <= set(corrections):
        raise InputError("corrections", "adaround and gptq both round the weights", "choose one")
    if data is None and norms is None and "bias" in corrections:
        raise InputError("bias", "needs images or BatchNormalization statistics", "give a calibration set")


# ---------------------------------------------------------------- before ranges are known


def _equalized(
    graph: Any, target: Target, data: Data | None, norms: Mapping[str, Normal]
) -> tuple[Any, dict[str, Normal], list[Step]]:
    """The evened graph, the statistics of its channels, and the rows."""
    names = peak_layers(graph)
    peaks = channel_peaks(graph, names, data.batches) if data and names else None
    done = equalize(graph, peaks=peaks, granularity=target.granularity)
    scaled = {
        name: Normal(norm.mean / done.factors[name], norm.deviation / done.factors[name])
        if name in done.factors
        else norm
        for name, norm in norms.items()
    }
    words = "largest channel {:.3g} times the median"
    rows = [
        Step(r.layer, "" if r.reason else words.format(r.before), "" if r.reason else words.format(r.after), r.reason)
        for r in done.rows
    ]
    return done.graph, scaled, rows


def _without_outliers(graph: Any, target: Target) -> tuple[Any, Any, list[Step]]:
    """Channels split where weights share one scale, then weights clipped; and the graph before it was clipped."""
    rows: list[Treated] = []
    if target.granularity == "per_tensor":
        graph, split = split_channels(graph, bits=target.weight_bits, names=target.layers)
        rows += split
    reference = graph
    graph, clipped = clip_weights(graph, bits=target.weight_bits, granularity=target.granularity, names=target.layers)
    return (
        graph,
        reference,
        [
            Step(r.layer, f"weight error {r.before:.3g}", f"{r.after:.3g}, {r.done}" if r.done else "", r.reason)
            for r in (*rows, *clipped)
        ],
    )


# ---------------------------------------------------------------- with ranges


class _Rounded:
    """A graph, what it should compute (reference), its simulation, and the weights that replace its own."""

    def __init__(self, graph: Any, reference: Any, target: Target, statistics: Statistics | None) -> None:
        ranges = {name: (r.low, r.high) for name, r in statistics.ranges.items()} if statistics else {}
        self._graph, self._reference = graph, reference
        self._simulated = simulate(
            graph,
            ranges,
            weight_bits=target.weight_bits,
            activation_bits=target.activation_bits,
            flavour=target.flavour,
            granularity=target.granularity,
            layers=target.layers,
        )
        self._names = [n for n in called_once(graph) if target.layers is None or n in target.layers]
        self._kernels = {name: self._simulated.get_layer(name).get_weights()[0] for name in self._names}
        self._biases: dict[str, Array] = {}

    def round_adaptively(self, data: Data, settings: Settings, watch: Callable[[str], None]) -> list[Step]:
        kernels, rows = adaround(
            self._graph,
            self._simulated,
            data.batches,
            settings,
            names=self._names,
            reference=self._reference,
            watch=watch,
        )
        return self._rounded(kernels, rows)

    def round_in_turn(self, data: Data, settings: Settings, watch: Callable[[str], None]) -> list[Step]:
        found = gptq(self._graph, self._simulated, data.batches, settings, names=self._names, watch=watch)
        return self._rounded(*found)

    def _rounded(self, kernels: Mapping[str, Array], rows: Iterable[Rounding]) -> list[Step]:
        self._kernels.update(kernels)
        return [
            Step(
                r.layer,
                f"output error {r.nearest:.3g}",
                "" if r.reason else f"output error {r.adaptive:.3g}, {r.turned:.1%} of the weights turned",
                r.reason,
            )
            for r in rows
        ]

    def correct_biases(self, data: Data | None, norms: Mapping[str, Normal]) -> list[Step]:
        """Measured on images, else told by BatchNormalization."""
        if data:
            found = correct_measured(self._reference, self._simulated, data.batches, names=self._names)
        else:  # channels that were split since have no statistics
            sizes = {name: int(self._graph.get_layer(name).output.shape[-1]) for name in self._names}
            fitting = {name: norm for name, norm in norms.items() if sizes.get(name) == len(norm.mean)}
            found = correct_analytic(self._reference, self._kernels, expected_inputs(self._graph, fitting))
        self._biases, rows = found
        return [
            Step(r.layer, "" if r.reason else f"mean shift {r.before:.3g}", "" if r.reason else "0", r.reason)
            for r in rows
        ]

    def graph(self) -> Any:
        """The graph with the new weights."""
        weights = {}
        for name in self._names:
            _, *bias = self._graph.get_layer(name).get_weights()
            weights[name] = [self._kernels[name], *([self._biases[name]] if name in self._biases else bias)]
        return rebuild(self._graph, weights)
