"""Whether a model does better than one that has not looked: where not, labels or preprocessing are wrong, mostly."""

from __future__ import annotations

from toolkit.core import Dataset, Measurement


def chance_warning(score: Measurement, data: Dataset) -> str:
    """What to warn of where the original's own score is no better than guessing; "" otherwise."""
    guess = _guess(score, data)
    if guess is None:
        return ""
    interval, value = score.interval, score.value
    if score.name == "mae":
        if value < guess:
            return ""
        return (
            f"the original is off by {value:.4g} on average, and always answering the median gives {guess:.4g}: "
            "check the unit and order of the targets and data.preprocess"
        )
    if (interval.low if interval else value) > guess:
        return ""
    count = len(data.classes)
    if score.name == "top1":
        said = f"is right on {value:.1%} of the test images, and guessing among {count} classes gives {guess:.1%}"
    elif score.name == "retrieval_at_1":
        said = f"finds an image of the same class for {value:.1%} of the test images, and chance would for {guess:.1%}"
    else:
        said = f"ranks the labels with a mean average precision of {value:.1%}, and chance gives {guess:.1%}"
    return f"the original {said}: check the order of the classes and data.preprocess"


def _guess(score: Measurement, data: Dataset) -> float | None:
    """The score without looking at an image; None for a score of which that is not known."""
    import numpy as np

    if score.name == "top1":
        return 1 / len(data.classes)
    if score.name == "retrieval_at_1":
        counts = np.bincount(data.labels)
        return float(np.sum(counts * (counts - 1)) / (len(data) * max(1, len(data) - 1)))
    if score.name == "mean_average_precision":
        share = np.asarray(data.labels).mean(axis=0)
        return float(share[share > 0].mean())
    if score.name == "mae":
        targets = np.asarray(data.labels, np.float64)
        return float(np.abs(targets - np.median(targets, axis=0)).mean())
    return None
