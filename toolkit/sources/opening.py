"""What every source looks at first: that a file is there, has content of its own kind and a sound size; its layout."""

from __future__ import annotations

from pathlib import Path

from toolkit.core import Layout
from toolkit.errors import InputError

LARGEST = 2**31 - 1  # bytes: what one protobuf message or flatbuffer can hold (protobuf.dev, "Size limits")
TFLITE = b"TFL3"  # file identifier of schema.fbs, after four bytes
IMAGE_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA: what tells channels from heights and widths
# how other kinds of model begin, so that a wrong name is called what it is
BEGINNINGS = {b"PK": "a zip archive (.keras)", b"\x89HDF": "an HDF5 file (.h5)", b"\x80\x02": "a PyTorch pickle"}


def head_of(path: Path, what: str) -> bytes:
    """The first bytes of a file; raises InputError for what is no file, empty or too large. what: "an .onnx file"."""
    if path.is_dir():
        raise InputError(str(path), f"is a folder, not {what}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise InputError(str(path), "no such file", f"name {what}") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error
    if not size:
        raise InputError(str(path), "is empty")
    if size > LARGEST:
        raise InputError(str(path), f"has {size / 2**30:.1f} GiB, and {what} holds at most {LARGEST / 2**30:.0f}")
    return start


def check_kind(path: Path, what: str) -> None:
    """`head_of`, and that the file does not begin like one of another kind. what: "an .onnx file", "a .tflite file"."""
    start = head_of(path, what)
    found = next((kind for begin, kind in BEGINNINGS.items() if start.startswith(begin)), None)
    if start[4:8] == TFLITE:
        found = "a .tflite file"
    elif found is None and what == "a .tflite file":
        found = "damaged"
    if found not in (None, what):
        fix = "export the model again" if found == "damaged" else "give it the name of its own kind"
        raise InputError(
            str(path), f"is {found}, not {what}" if found != "damaged" else f"is damaged or not {what}", fix
        )


def layout_of(shape: tuple[int | None, ...], asked: str, where: str) -> Layout:
    """NHWC or NCHW of a 4-D input, as asked or by where its channels stand; "none" for another number of dimensions.

    Raises InputError where the shape does not tell and nothing is asked, or where a layout is asked of no image.
    """
    if len(shape) != 4:
        if asked != "auto":
            raise InputError(where, f"is no image of four dimensions but {list(shape)}", "leave model.layout out")
        return "none"
    if asked != "auto":
        return "NHWC" if asked == "NHWC" else "NCHW"
    first, last = shape[1] in IMAGE_CHANNELS, shape[3] in IMAGE_CHANNELS
    if first == last:
        fix = 'set model.layout = "NHWC" (channels last) or "NCHW" (channels first)'
        raise InputError(where, f"has shape {list(shape)}, which does not show where its channels stand", fix)
    return "NCHW" if first else "NHWC"


def sized(
    shape: tuple[int | None, ...], layout: Layout, size: tuple[int, int] | None, where: str
) -> tuple[int | None, ...]:
    """The shape with its open height and width filled in; raises InputError where `size` contradicts it or lacks."""
    if len(shape) != 4:
        return shape
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    own = tuple(shape[axis] for axis in axes)
    if size is None:
        if None in own:
            raise InputError(where, f"leaves its height and width open, {list(shape)}", "set model.input_shape")
        return shape
    if any(known not in (None, wanted) for known, wanted in zip(own, size, strict=True)):
        raise InputError(
            where, f"is {own[0]}x{own[1]}, and model.input_shape asks for {size[0]}x{size[1]}", "leave it out"
        )
    filled = dict(zip(axes, size, strict=True))
    return tuple(filled.get(axis, length) for axis, length in enumerate(shape))


def require_batch(shape: tuple[int | None, ...], where: str) -> None:
    """Raise InputError for a batch other than 1 or an open one: files are delivered for one image."""
    if not shape or shape[0] not in (1, None):
        problem = f"has the fixed shape {list(shape)}, and one image is given at a time"
        raise InputError(where, problem, "export it with a batch of 1, or an open one")
