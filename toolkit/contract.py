"""What a delivered file takes and gives, as JSON beside it: `phone.tflite.json` beside `phone.tflite`.

Whoever integrates the file needs nothing else of Edgekit: tensors with their quantization, preprocessing, classes in
order, what the outputs mean, where the file comes from. No dates, so that the same run writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from toolkit.core import Artifact, Layout, Meaning, Preprocessing, TensorSpec
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.errors import InputError

SCHEMA: Literal[1] = 1
TIES = "lowest class index"  # numpy.argmax, and every decision of Edgekit
JPEG = "libjpeg-turbo, its default: integer DCT (islow), fancy upsampling"  # Pillow's JpegDecode.c leaves both alone
LONGEST = 64 * 2**20  # bytes; a million class names are less
CONVERTERS = {"tflite": ("ai-edge-quantizer", "ai-edge-litert"), "onnx": ("tf2onnx", "onnx", "onnxruntime")}


@dataclass(frozen=True)
class Quantization:
    """Of an integer tensor: real value = (integer - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class End:
    """One input or output, as the file has it. quantization: None for floats, and for pixels as decoded."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    meaning: Meaning
    layout: Layout
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Decoder:
    """What decoded the images of calibration and verdict. Others may differ by a few steps of 255 in a JPEG."""

    library: str
    version: str
    jpeg: str


@dataclass(frozen=True)
class Stated:
    """`core.Preprocessing`, which has the meaning of each, and two readings of it.

    mean, std: the same arithmetic as (x - mean) / std of pixels x in 0..255.
    """

    size: tuple[int, int] | None
    resize: str
    antialias: bool
    crop: str
    crop_share: float
    color: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder: Decoder


@dataclass(frozen=True)
class Origin:
    """Where a file comes from. granularity: of the weights' scales, "" where nothing is in 8 bits."""

    sha256: str
    recipe: str
    scheme: str
    granularity: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Contract:
    """Everything a delivered file's user must know."""

    schema: Literal[1]
    file: str
    format: str
    inputs: Annotated[tuple[End, ...], Field(min_length=1)]
    preprocessing: Stated
    outputs: Annotated[tuple[End, ...], Field(min_length=1)]
    classes: tuple[str, ...]
    ties: str
    provenance: Origin

    def preprocess(self) -> PreprocessSpec:
        """The preprocessing as a recipe would state it."""
        stated = asdict(self.preprocessing)
        return PreprocessSpec.model_validate({key: stated[key] for key in stated.keys() - {"mean", "std", "decoder"}})


def contract_path(artifact: Path) -> Path:
    """Where a file's contract lies."""
    return artifact.with_name(f"{artifact.name}.json")


def make_contract(artifact: Artifact, preprocessing: Preprocessing, classes: Sequence[str], origin: Origin) -> Contract:
    """The contract of a file; quantization is read from the file itself."""
    from importlib.metadata import version

    steps = _quantization(artifact)
    mean = tuple(-o / s for s, o in _pairs(preprocessing))
    stated = Stated(
        **asdict(preprocessing),
        mean=tuple(value + 0.0 for value in mean),  # -0.0 is 0.0
        std=tuple(1 / s for s, _ in _pairs(preprocessing)),
        decoder=Decoder("Pillow", version("pillow"), JPEG),
    )
    return Contract(
        schema=SCHEMA,
        file=artifact.path.name,
        format=artifact.format,
        inputs=tuple(_end(spec, {} if artifact.pixels else steps) for spec in artifact.signature.inputs),
        preprocessing=stated,
        outputs=tuple(_end(spec, steps) for spec in artifact.signature.outputs),
        classes=tuple(classes),
        ties=TIES,
        provenance=origin,
    )


def make_origin(artifact: Artifact, recipe: str, granularity: str, versions: Mapping[str, str | None]) -> Origin:
    """versions: of packages by name; those that wrote this format are kept."""
    names = ("edgekit", "tensorflow", "keras", *CONVERTERS.get(artifact.format, ()))
    kept = {name: found for name in names if (found := versions.get(name))}
    in_steps = artifact.scheme in ("int8", "dynamic")
    return Origin(artifact.sha256, recipe, artifact.scheme, granularity if in_steps else "", kept)


def dump(contract: Contract) -> bytes:
    """As JSON."""
    return json.dumps(asdict(contract), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_contract_file(path: Path) -> Contract:
    """A contract as it lies beside a file; InputError in one line if it is none, or states what cannot be."""
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise InputError(str(path), f"is larger than {LONGEST:,} bytes", "name a contract that Edgekit wrote")
        contract = TypeAdapter(Contract).validate_json(content)
        contract.preprocess()
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}", "put the contract beside the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"is not a contract of schema {SCHEMA}: {place} {first['msg']}".replace(":  ", ": ")
        raise InputError(str(path), problem, "write it anew with `edgekit run`") from error
    return contract


def contract_from(stated: Mapping[str, Any]) -> Contract:
    """A contract from its fields, as `dataclasses.asdict` gives them."""
    return TypeAdapter(Contract).validate_python(stated)


def contract_beside(artifact: Path, sha256: str) -> Contract | None:
    """The contract of a file, None where it has none; InputError where it is that of another file."""
    path = contract_path(artifact)
    if not path.is_file():
        return None
    contract = read_contract_file(path)
    if contract.provenance.sha256 != sha256:
        fix = "put the file's own contract beside it, or move this one away"
        raise InputError(str(path), f"is the contract of another file than {artifact.name} (sha256 differs)", fix)
    return contract


def contract_lines(contract: Contract) -> Iterator[str]:
    """What `edgekit inspect` prints of it."""
    stated, origin = contract.preprocessing, contract.provenance
    size = "its own size" if stated.size is None else f"to {stated.size[0]}x{stated.size[1]}"
    share = "" if stated.crop_share == 1 else f", {stated.crop_share:g} of its sides"
    cut = ("whole image" if stated.crop == "none" else "centre, in the input's shape") + share
    filtered = ", antialiased" if stated.antialias else ", not antialiased"
    how = "" if stated.size is None else f" {stated.resize}{'' if stated.resize == 'nearest' else filtered}"
    yield f"contract ({contract_path(Path(contract.file)).name}):"
    yield f"  image      {cut}, {size}{how}, {stated.color}"
    yield f"  numbers    x * {_numbers(stated.scale)} + {_numbers(stated.offset)}, x in 0..255"
    for end, specs in (("input", contract.inputs), ("output", contract.outputs)):
        for spec in specs:
            if spec.quantization:
                step = f"(q - {spec.quantization.zero_point}) * {spec.quantization.scale:.9g}"
                yield f"  {end:<10} {spec.name}: {spec.dtype} q is {step}"
    names = ", ".join(contract.classes[:10]) + (", ..." if len(contract.classes) > 10 else "")
    yield f"  classes    {len(contract.classes)}: {names}; ties: {contract.ties}"
    made = ", ".join(f"{name} {found}" for name, found in origin.versions.items())
    yield f"  made by    recipe {origin.recipe}, {' '.join(filter(None, (origin.scheme, origin.granularity)))}; {made}"
    yield f"  decoded by {stated.decoder.library} {stated.decoder.version} (JPEG: {stated.decoder.jpeg})"


def _end(spec: TensorSpec, steps: Mapping[str, Quantization]) -> End:
    return End(spec.name, spec.shape, spec.dtype, spec.meaning, spec.layout, steps.get(spec.name))


def _quantization(artifact: Artifact) -> dict[str, Quantization]:
    """Of the integer ends of a .tflite file; an .onnx file quantizes inside, behind float ends."""
    if artifact.format != "tflite":
        return {}
    from toolkit.exporters import tflite_file

    file = tflite_file.read(artifact.path)
    return {
        name: Quantization(tensor.scales[0], tensor.zero_points[0])
        for name, tensor in (*file.inputs, *file.outputs)
        if tensor.scales and tensor.zero_points and not tensor.dtype.startswith("float")
    }


def _pairs(preprocessing: Preprocessing) -> list[tuple[float, float]]:
    """(scale, offset) of each channel, or one for all."""
    scale, offset = preprocessing.scale, preprocessing.offset
    count = max(len(scale), len(offset))
    scale, offset = (values * count if len(values) == 1 else values for values in (scale, offset))
    return list(zip(scale, offset, strict=True))


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:.9g}" for value in values]
    return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"
