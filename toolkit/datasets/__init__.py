"""Datasets: how labelled images are found (npz, folder, CSV, digits), split, preprocessed and read in batches.

A dataset is a Component whose `load()` gives `core.Records`, nothing decoded yet; `splits.make_splits` turns records
into the four splits a run works on.
"""
