"""Converters at low volume: their advice to users of their own interfaces is no news to ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("absl", "tensorflow", "tf2onnx", "onnxruntime")


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors of the converters' loggers, and no Python warnings, while it lasts."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
