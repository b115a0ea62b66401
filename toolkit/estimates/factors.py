"""Shares of the ceiling that kernels reach, for devices of which nothing else is known.

Fitted by benchmarks/estimates.py to the latencies that the shipped profiles quote: (share, width of its log).
"""

from __future__ import annotations

SHARES: dict[str, tuple[float, float]] = {}
