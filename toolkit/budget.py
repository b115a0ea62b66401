"""What a recipe or a device profile asks of files: how their latency is measured, and what must hold of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.schema import Component


class MeasureSpec(Component):
    """How latency is measured. Several fresh processes, since one process's median is worth little on a shared host."""

    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads the runtime may use."""
    processes: Annotated[int, Field(ge=0, le=50)] = 8
    """Fresh processes per artifact, interleaved with those of the other artifacts; 0 measures no latency."""
    seconds: Annotated[float, Field(gt=0, le=120)] = 1.0
    """Timed seconds in each process."""
    warmup_seconds: Annotated[float, Field(ge=0, le=60)] = 0.3
    """Untimed seconds before them."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 1
    """Images in one inference, where the file leaves its batch free or has this one; latency is of all of them."""
    sustained_seconds: Annotated[float, Field(ge=0, le=3600)] = 0
    """Seconds that each file is run for without pause, too: latency once warm, and energy where a sensor tells power;
    0 for none."""
    cores: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = ()
    """Cores to stay on, by number; empty for any."""


class Budget(Component):
    """What must hold of every artifact. A limit that is not given is not judged."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of the head's score (top-1 for classes) against the original, as a fraction (0.01 = one point)."""
    max_class_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of accuracy of any one class, as a fraction."""
    max_error_increase: Annotated[float, Field(ge=0)] | None = None
    """Largest growth of a regression's mean absolute error, relative to the original's (0.05 = 5%)."""
    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest mean cosine similarity of an embedding to the original's."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest share of test images on which artifact and original decide alike."""
    max_size_kib: Annotated[float, Field(gt=0)] | None = None
    """Largest file, in KiB."""
    max_latency_p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Largest median latency of one inference at batch 1 in a typical process, in milliseconds."""
    max_latency_p90_ms: Annotated[float, Field(gt=0)] | None = None
    """Largest 90th percentile of latency in a typical process, in milliseconds."""
    max_macs: Annotated[float, Field(gt=0)] | None = None
    """Most multiply-accumulate operations for one image."""
    max_arena_kib: Annotated[float, Field(gt=0)] | None = None
    """Largest tensor arena, in KiB (TFLite files)."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the whole run's statistical verdicts, before correction for their number."""
