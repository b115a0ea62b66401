"""Parity of a compressed model with the original on real inputs: the same decisions, and how far the numbers moved.

With few images this says more than accuracy: every image counts, not only those that change sides of their label.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.checks.accuracy import Predictions, as_interval
from toolkit.core import Dataset, Measurement
from toolkit.errors import InputError
from toolkit.metrics.classification import Agreement

if TYPE_CHECKING:
    from toolkit.engine.numeric import Difference

DECIBEL_LIMIT = 200.0  # float32 itself ends near 150 dB; equal outputs, infinitely good, are written as this


def measure_parity(
    predictions: Predictions, original: Predictions, data: Dataset, *, confidence: float = 0.95
) -> tuple[Measurement, ...]:
    """agreement (Wilson interval), max_abs_diff, mean_abs_diff, sqnr_db of logits, output_sqnr_db of raw outputs.

    Agreement is left out for outputs that decide nothing. Numbers are left out where no image has usable outputs;
    `unusable_outputs` appears only where there are some. Raises InputError where the two do not belong together.
    """
    from toolkit.engine import numeric

    _check(predictions, original, data)
    found = []
    if original.head in Agreement.heads:
        found.append(_agreement(predictions, original, data, confidence))
    gap = numeric.difference(original.outputs, predictions.outputs, original.head)
    return (*found, *_numbers(predictions, gap, data))


def beside_host(
    there: Predictions, here: Predictions, data: Dataset, *, confidence: float = 0.95
) -> tuple[Measurement, ...]:
    """host_agreement and host_max_abs_diff: one file on a device and on this machine, whose kernels `how` names.

    Kernels round differently, so that the numbers differ a little between devices where nothing is wrong.
    """
    known = {key: here.how[key] for key in ("runtime", "version", "kernels") if here.how.get(key)}
    host = ", ".join(f"{key} {value}" for key, value in known.items())
    return tuple(
        replace(found, name=f"host_{found.name}", how={**found.how, "host": host})
        for found in measure_parity(there, here, data, confidence=confidence)
        if found.name in ("agreement", "max_abs_diff")
    )


def _check(predictions: Predictions, original: Predictions, data: Dataset) -> None:
    if predictions.head != original.head:
        problem = f"gives {predictions.head}, the original {original.head}"
        raise InputError(predictions.subject, problem, "compare models with the same head")
    if predictions.outputs.shape != original.outputs.shape or len(predictions.outputs) != len(data):
        problem = f"outputs {predictions.outputs.shape}, the original's {original.outputs.shape}, {len(data)} images"
        raise InputError(predictions.subject, problem, "run both on the same images")


def _agreement(predictions: Predictions, original: Predictions, data: Dataset, confidence: float) -> Measurement:
    """Share of images with the same decision; one with a NaN output does not agree."""
    from toolkit.engine import statistics

    values = Agreement().per_example(predictions.outputs, data.labels, original.head, original=original.outputs)
    agree, images = int(values.sum()), len(data)
    how = {"images": images, "split": data.fingerprint, "interval": statistics.WILSON_METHOD, "agree": agree}
    interval = as_interval(statistics.wilson(agree, images, confidence), confidence, statistics.WILSON_METHOD)
    return predictions.measurement("agreement", agree / images, "fraction", interval=interval, how=how)


def _numbers(predictions: Predictions, gap: Difference, data: Dataset) -> list[Measurement]:
    how = {"images": len(data) - gap.unusable, "split": data.fingerprint}
    found = []
    if gap.unusable < len(data):
        for name, value, unit in (
            ("max_abs_diff", gap.largest, ""),
            ("mean_abs_diff", gap.mean, ""),
            ("output_sqnr_db", _decibels(gap.sqnr_db), "dB"),
            ("sqnr_db", _decibels(gap.logits_sqnr_db), "dB"),
        ):
            found.append(predictions.measurement(name, value, unit, how=how))
    if gap.unusable:
        found.append(predictions.measurement("unusable_outputs", gap.unusable, "images", how=how))
    return found


def _decibels(value: float) -> float:
    return max(-DECIBEL_LIMIT, min(DECIBEL_LIMIT, value))
