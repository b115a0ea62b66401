"""Exporters: one file out of one model, exactly as its QuantSpec asks, or an error that names the layer.

Each writes a temporary file beside the target, reads it back (operators, types, scales), runs it once,
and only then gives it its name.
"""
