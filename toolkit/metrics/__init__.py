"""Metrics: a value for each example, then a reduction, so that any of them can be paired and resampled."""
