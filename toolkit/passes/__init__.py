"""Passes: each takes a Model and gives a changed one, its signature kept. One file a pass, one line in the registry."""
