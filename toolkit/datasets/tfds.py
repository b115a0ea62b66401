"""Datasets of the TensorFlow Datasets catalogue, by name.

Preparing one is that package's work (it downloads, and imports TensorFlow, the first time); the files it leaves are
TFRecord, and are read here.
"""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pydantic import field_validator

from toolkit.core import Records
from toolkit.datasets.tfrecord import TFRecord, read_records
from toolkit.errors import InputError, UnavailableError
from toolkit.schema import Component

_NAME = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_.+-]+)?(:\d+\.\d+\.\d+)?")  # dataset[/config][:version]; no namespaces


class Tfds(Component):
    """A dataset of the TensorFlow Datasets catalogue; its splits become subsets."""

    name: str
    """Name in the catalogue, with configuration and version where wanted: cifar10, cats_vs_dogs:4.0.1."""
    data_dir: Path | None = None
    """Folder the package keeps its datasets in; by default ~/tensorflow_datasets."""
    download: bool = True
    """Whether it may be downloaded where it is not on this machine."""
    image: str = "image"
    """Feature that holds the image."""
    label: str = "label"
    """Feature that holds the class."""

    @field_validator("name")
    @classmethod
    def _of_the_catalogue(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("must be a name of the catalogue, such as cifar10 or cats_vs_dogs:4.0.1")
        return name

    def load(self) -> Records:
        """The records of every split; UnavailableError where the dataset is not here and cannot be had."""
        builder = self._prepared()
        for feature, kind in ((self.image, "Image"), (self.label, "ClassLabel")):
            known = dict(builder.info.features.items())
            if type(known.get(feature)).__name__ != kind:
                some = ", ".join(f"{name} ({type(value).__name__})" for name, value in known.items())
                raise InputError(f"tfds {self.name}", f"has no {kind} feature {feature!r}", f"its features: {some}")
        files = [
            (Path(str(file)), split)
            for split, info in sorted(builder.info.splits.items())
            for file in (info.filepaths if info.num_examples else ())
        ]
        spec = TFRecord(path=Path(str(builder.data_dir)), image=self.image, label=self.label)
        return read_records(spec, files, builder.info.features[self.label].names)

    def _prepared(self) -> Any:
        where = f"tfds {self.name}"
        try:
            import tensorflow_datasets as tfds
        except ImportError as error:
            fix = 'pip install "edgekit[tfds]"'
            raise UnavailableError("datasets.tfds", "tensorflow-datasets is not installed", fix) from error
        folder = {"data_dir": str(self.data_dir)} if self.data_dir else {}
        try:
            builder = tfds.builder(self.name, file_format="tfrecord", **folder)
        except tfds.core.DatasetNotFoundError as error:
            raise InputError(where, "no such dataset in the catalogue", "see `tfds.list_builders()`") from error
        except ModuleNotFoundError as error:
            raise UnavailableError(where, str(error), 'pip install "edgekit[tfds]"') from error
        except ValueError as error:
            raise InputError(where, str(error).split("\n")[0]) from error
        if builder.info.splits:
            return builder
        if not self.download:
            raise UnavailableError(where, f"is not in {builder.data_dir}", "prepare it there, or set download = true")
        try:
            with redirect_stdout(sys.stderr):  # its progress is no result
                builder.download_and_prepare()
        except Exception as error:  # whatever a network, a server or one of 1,000 scripts may raise
            reason = str(error).split("\n")[0] or type(error).__name__
            fix = "prepare it where there is a network, and set data_dir"
            raise UnavailableError(where, f"cannot be downloaded or prepared: {reason}", fix) from error
        return builder
