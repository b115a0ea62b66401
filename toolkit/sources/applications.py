"""Networks of keras.applications by name, built and filled by Keras' own code: keras.io/api/applications."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Model
from toolkit.errors import InputError, UnavailableError
from toolkit.registry import suggest
from toolkit.schema import Component
from toolkit.sources import hdf5
from toolkit.sources.checked import check_complete
from toolkit.sources.keras import Side, flattened

PREFIX = "keras.applications."
DOWNLOAD_SECONDS = 30  # without a byte, after which a host counts as out of reach
# beginning of a name -> the preset of [data] preprocess that its weights were trained with; the first that fits.
# Source: `preprocess_input` of each module of keras.applications
PRESETS = MappingProxyType(
    {
        "EfficientNet": "raw",
        "MobileNetV3": "raw",
        "ConvNeXt": "raw",
        "MobileNet": "signed",
        "Inception": "signed",
        "Xception": "signed",
        "NASNet": "signed",
        **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), "signed"),
        "DenseNet": "imagenet",
        "ResNet": "caffe",
        "VGG": "caffe",
    }
)


class Applications(Component):
    """A network of keras.applications by name, as in `source = "keras.applications.MobileNetV2"`, with its weights."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "keras"

    weights: Annotated[str, Field(min_length=1)]
    """`imagenet` (downloaded once by Keras), or the path of a local `.weights.h5` or `.h5` file."""
    classes: Annotated[int, Field(ge=1)] | None = None
    """Classes the local weights were trained for; 1,000 by default."""
    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last activation."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels; the network's own by default."""
    alpha: Annotated[float, Field(gt=0, le=2)] | None = None
    """Width multiplier of a MobileNet; 1 by default."""

    def load(self, name: str) -> Model:
        """The network called `name` ("MobileNetV2") with its weights, flat. Raises InputError or UnavailableError."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        where = f"{PREFIX}{name}"
        build = _function(name)
        loaded = self._downloaded(where, build) if self.weights == "imagenet" else self._from_file(where, build)
        model = flattened(where, loaded, self.head, None)
        preset = preset_of(name)
        trained = f"{where} with weights {self.weights!r}"
        return replace(model, notes=(f"{trained}; made for preprocess = {preset!r}", *model.notes))

    def _arguments(self) -> dict[str, Any]:
        shape = {"input_shape": (*self.input_shape, 3)} if self.input_shape else {}
        alpha = {"alpha": self.alpha} if self.alpha is not None else {}
        return {**shape, **({"classes": self.classes} if self.classes else {}), **alpha}

    def _downloaded(self, where: str, build: Any) -> Any:
        try:
            with _patience():
                return build(weights="imagenet", **self._arguments())
        except ValueError as error:
            if "corrupted" not in str(error):  # of the file that came
                raise InputError(where, _line(error), "give other `classes` or `input_shape`, or none") from error
            raise _out_of_reach(where, error) from error
        except Exception as error:  # Keras' downloader raises bare Exception where a host is out of reach
            raise _out_of_reach(where, error) from error

    def _from_file(self, where: str, build: Any) -> Any:
        path = Path(self.weights).expanduser()
        if not path.is_file():
            problem = f"weights: no such file, got {self.weights!r}"
            raise InputError(where, problem, "give 'imagenet' or the path of a .weights.h5 or .h5 file")
        if path.suffix.lower() not in (".h5", ".hdf5"):
            problem = f"weights: must be a .weights.h5 or .h5 file, got {path.name!r}"
            raise InputError(where, problem, "save them with model.save_weights('name.weights.h5')")
        values = hdf5.check_weights(str(path), path)
        try:
            model = build(weights=str(path), **self._arguments())
        except Exception as error:  # whatever Keras makes of weights of another network
            problem = f"weights {path.name!r} do not fit: {_line(error)}"
            raise InputError(where, problem, "give the file of this network, and its `classes`") from error
        if path.name.endswith(".weights.h5"):
            check_complete(f"{where}: weights {path.name!r}", values, model)
        return model


def preset_of(name: str) -> str:
    """The preset of [data] preprocess that the ImageNet weights of a network were trained with."""
    return next((preset for start, preset in PRESETS.items() if name.startswith(start)), "raw")


def _function(name: str) -> Any:
    """The function of keras.applications that builds the network."""
    import keras

    known = [key for key, value in vars(keras.applications).items() if key[:1].isupper() and callable(value)]
    if name not in known:
        raise InputError(f"{PREFIX}{name}", "no such network", suggest(name, known))
    return getattr(keras.applications, name)


def _out_of_reach(where: str, error: Exception) -> UnavailableError:
    text = str(error)
    url = next((word.rstrip(":") for word in text.split() if word.startswith("http")), "")
    what = f" {url}" if url else ""
    problem = f"its ImageNet weights{what} cannot be downloaded ({_line(error)[-120:]})"
    return UnavailableError(where, problem, "fetch the file where there is a network and give weights = 'PATH'")


@contextmanager
def _patience() -> Iterator[None]:
    """Bound how long a connection may stay silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
