"""What the linter says: findings, the fate of each Q/DQ pair, counts, and a summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# refused: the parser or the builder ends with an error. slow: it runs, not as fast or not as asked. note: worth
# knowing.
Severity = Literal["refused", "slow", "note"]
# fused: a layer reads the integers. weights: stored as integers in the engine. island: conversions there and back
# around nothing that computes in int8. float: what reads it computes in floating point after all.
Fate = Literal["fused", "weights", "island", "float"]


@dataclass(frozen=True)
class Finding:
    """One rule that a file meets. where: node or tensor in words; what: what TensorRT would do; fix: what to do."""

    rule: str
    severity: Severity
    where: str
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Pair:
    """What becomes of one quantized tensor. reformats: conversion kernels at run time that it costs."""

    tensor: str
    fate: Fate
    words: str
    reformats: int = 0


@dataclass(frozen=True)
class FloatLayer:
    """A layer that computes in floating point in a file with Q/DQ, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Counts:
    """convolutions: with transposed ones. products: Gemm and MatMul. reformats: at borders of int8 and floating point.

    islands: pairs around nothing, and single convolutions in int8 amid floating point.
    """

    convolutions: int = 0
    int8_convolutions: int = 0
    products: int = 0
    int8_products: int = 0
    reformats: int = 0
    islands: int = 0


@dataclass(frozen=True)
class Report:
    """All of it. floats: "float32" or "float16", what the file computes in where it is not int8; "mixed" for both."""

    findings: tuple[Finding, ...] = ()
    pairs: tuple[Pair, ...] = ()
    counts: Counts = Counts()
    left: tuple[FloatLayer, ...] = ()
    floats: str = "float32"
    summary: tuple[str, ...] = ()

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)
