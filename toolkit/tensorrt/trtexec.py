"""Command lines of trtexec, by TensorRT version: build an engine, time it in four ways, each a run of its own.

Which version has which option: samples/common/sampleOptions.cpp of NVIDIA/TensorRT (8.0, 8.4, 8.6, 10.16) and the help
of 8.5.3 and 10.3. Lists of arguments, no shell. Nothing here runs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.types import BuildSpec, ShapeRange

# deb packages from 10.15 on; JetPack and older packages; whatever PATH has
PLACES = ("/usr/bin/trtexec", "/usr/src/tensorrt/bin/trtexec", "trtexec")
# `--version` is no option of it: 8.x and 10.x call it unknown, 11 asks for a model; all three exit with 1
PROBES = tuple((place, "--help") for place in PLACES)
OLDEST = (8, 0)  # the first whose options were read
BANNER = re.compile(r"TensorRT[.\w]*\s+\[TensorRT v(?P<number>\d+(?:\.\d+)*)\]")

Version = tuple[int, ...]


@dataclass(frozen=True)
class TimingSpec:
    """How an engine is timed. The first three are trtexec's own defaults, but for the least number of inferences.

    shapes: of inputs with free dimensions. cuda_graph, spin_wait: asked for alike on every version, since 11 turned
    both on where 8 to 10 had them off. dla_core: as the engine was built; CUDA graphs do not go with it.
    """

    warmup_ms: int = 200
    seconds: float = 3.0
    iterations: int = 200  # so that two lie beyond the 99th percentile
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cuda_graph: bool = True
    spin_wait: bool = True
    dla_core: int | None = None


def version_from(text: str) -> str | None:
    """ "10.15.2" from the banner `[TensorRT v101502]`, "8.5.2" from v8502; None where no trtexec answered.

    NV_TENSORRT_VERSION has two digits for minor and patch from 10 on, and one for minor before.
    """
    found = BANNER.search(text)
    if found is None:
        return None
    number = found["number"]
    if "." in number:
        return ".".join(number.split(".")[:3])
    value = int(number)
    thousands = 10000 if value >= 10000 else 1000
    return f"{value // thousands}.{value % thousands // 100}.{value % 100}"


def build_command(
    path: str, spec: BuildSpec, *, onnx: str, engine: str, version: str, layer_info: str = ""
) -> list[str]:
    """Build `engine` from `onnx` and do nothing else.

    Args:
        path: trtexec's own.
        layer_info: file for the inspector's JSON, "" for none. Versions before 8.6 may write it in a timed run only.

    Raises:
        UnsupportedError: for what this version cannot do.
    """
    known = _version(version)
    arguments = [path, f"--onnx={onnx}", f"--saveEngine={engine}", *_types(spec, known), *_workspace(spec, known)]
    arguments += [*_profiles(spec.shapes), *_device(spec, known)]
    if spec.timing_cache:
        arguments.append(f"--timingCacheFile={spec.timing_cache}")
    if spec.optimization_level is not None:
        if known < (8, 6):
            raise _refused(version, "has no optimization levels, they came with 8.6", "leave optimization_level out")
        arguments.append(f"--builderOptimizationLevel={spec.optimization_level}")
    return [*arguments, *_inspected(layer_info, known), "--skipInference" if known >= (8, 6) else "--buildOnly"]


def compute_command(path: str, spec: TimingSpec, *, engine: str, version: str, times: str) -> list[str]:
    """Time the computation on the GPU alone: data lie on the device already. `times`: file for every sample."""
    known = _version(version)
    return [*_timed(path, spec, engine, known), *_transfers(known, included=False), f"--exportTimes={times}"]


def transfers_command(path: str, spec: TimingSpec, *, engine: str, version: str, times: str) -> list[str]:
    """Time end to end, copies to the device and back included. On Jetson these are copies in one memory, still paid."""
    known = _version(version)
    return [*_timed(path, spec, engine, known), *_transfers(known, included=True), f"--exportTimes={times}"]


def throughput_command(path: str, spec: TimingSpec, *, engine: str, version: str, streams: int = 2) -> list[str]:
    """Inferences a second with several streams, transfers included. Of its samples no latency may be quoted."""
    known = _version(version)
    if streams < 1:
        raise InputError("streams", f"at least 1, got {streams}", "ask for 1 or more")
    option = "--infStreams" if known >= (8, 6) else "--streams"
    return [*_timed(path, spec, engine, known), *_transfers(known, included=True), f"{option}={streams}"]


def profile_command(
    path: str, spec: TimingSpec, *, engine: str, version: str, profile: str, layer_info: str = ""
) -> list[str]:
    """Time layer by layer. The profiler stands between the layers, so none of its times is a latency.

    Raises:
        UnsupportedError: layer_info is asked of a version before 8.2, which has no inspector.
    """
    known = _version(version)
    plain = TimingSpec(spec.warmup_ms, spec.seconds, spec.iterations, spec.shapes, False, False, spec.dla_core)
    arguments = [*_timed(path, plain, engine, known), *_transfers(known, included=False)]
    return [*arguments, *_inspected(layer_info, known), "--dumpProfile", f"--exportProfile={profile}"]


def _version(version: str) -> Version:
    parts = re.match(r"\d+(?:\.\d+)+", version)
    if parts is None:
        raise InputError("version", f"'{version}' is no version of TensorRT", "give it as 10.3.0")
    known = tuple(map(int, parts[0].split(".")))
    if known < OLDEST:
        raise _refused(version, "is older than any whose options are known", "use TensorRT 8.0 or later")
    return known


def _refused(version: str, problem: str, fix: str) -> UnsupportedError:
    return UnsupportedError(f"trtexec {version}", problem, fix)


def _types(spec: BuildSpec, known: Version) -> Iterator[str]:
    """Precision is the graph's own; 8 to 10 take hints besides, which 11 refuses as unknown options."""
    asked = [name for name, wanted in (("fp16", spec.fp16), ("int8", spec.int8)) if wanted]
    version = ".".join(map(str, known))
    if spec.strongly_typed and asked:
        problem = f"{' and '.join(asked)} asked of a strongly typed build, whose types are those of the graph"
        raise InputError("build", problem, "export the types wanted, or set strongly_typed to false")
    if known[0] >= 11:
        if asked:
            raise _refused(version, f"has no {', '.join('--' + name for name in asked)}", "export a graph of that type")
        return
    if spec.strongly_typed:
        if known[0] < 9:
            problem = "builds no strongly typed network, that came with 9"
            raise _refused(version, problem, "set strongly_typed to false, with fp16 or int8 as the file needs")
        yield "--stronglyTyped"
    yield from (f"--{name}" for name in asked)


def _workspace(spec: BuildSpec, known: Version) -> Iterator[str]:
    if spec.workspace_mib < 1:
        raise InputError("workspace_mib", f"at least 1, got {spec.workspace_mib}", "256 is little, 1024 usual")
    # a number without a suffix is MiB in every version; --workspace went with 10
    pool = f"--memPoolSize=workspace:{spec.workspace_mib}"
    yield pool if known >= (8, 4) else f"--workspace={spec.workspace_mib}"


def _profiles(shapes: Mapping[str, ShapeRange]) -> Iterator[str]:
    for name, item in shapes.items():
        ranks = {len(item.least), len(item.usual), len(item.greatest)}
        ordered = all(0 < low <= mid <= high for low, mid, high in zip(item.least, item.usual, item.greatest))  # noqa: B905
        if len(ranks) != 1 or not ordered:
            problem = f"least {item.least}, usual {item.usual}, greatest {item.greatest} are no growing range"
            raise InputError(
                f"shapes of {name}", problem, "give three shapes of one rank, each at least the one before"
            )
    if shapes:
        for option, which in (("min", "least"), ("opt", "usual"), ("max", "greatest")):
            yield f"--{option}Shapes={_spelled({name: getattr(item, which) for name, item in shapes.items()})}"


def _spelled(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """in:1x3x224x224,other:1x2. trtexec splits at commas, and at the last colon of each."""
    for name, shape in shapes.items():
        if not name or not shape or set(name) & set(",'"):
            problem = f"input '{name}' of shape {shape} cannot be written in trtexec's options"
            raise UnsupportedError("shapes", problem, "rename the input, without commas and quotes")
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _device(spec: BuildSpec, known: Version) -> Iterator[str]:
    if spec.sparse:
        yield "--sparsity=enable"
    if spec.dla_core is None:
        return
    if spec.dla_core < 0:
        raise InputError("dla_core", f"0 or more, got {spec.dla_core}", "cores count from 0")
    yield f"--useDLACore={spec.dla_core}"
    yield "--allowGPUFallback"


def _inspected(layer_info: str, known: Version) -> Iterator[str]:
    """Details for the inspector, which came with 8.2."""
    if known >= (8, 2):
        yield "--profilingVerbosity=detailed"
        yield from [f"--exportLayerInfo={layer_info}"] if layer_info else []
    elif layer_info:
        version = ".".join(map(str, known))
        raise _refused(version, "writes no layers, that came with 8.2", "leave layer_info out")


def _timed(path: str, spec: TimingSpec, engine: str, known: Version) -> Iterator[str]:
    yield from (path, f"--loadEngine={engine}")
    if spec.shapes:
        yield f"--shapes={_spelled(spec.shapes)}"
    if spec.dla_core is not None:
        yield f"--useDLACore={spec.dla_core}"
    yield from (f"--warmUp={spec.warmup_ms}", f"--duration={spec.seconds:g}", f"--iterations={spec.iterations}")
    graph = spec.cuda_graph and spec.dla_core is None  # 10.16: "not simultaneously supported"
    for wanted, name in ((graph, "CudaGraph"), (spec.spin_wait, "SpinWait")):
        if known[0] >= 11:  # on unless said otherwise
            yield from () if wanted else (f"--no{name}",)
        else:  # off unless said otherwise
            yield from (f"--use{name}",) if wanted else ()


def _transfers(known: Version, *, included: bool) -> Iterator[str]:
    if known[0] >= 11:
        yield from ("--includeDataTransfers",) if included else ()
    else:
        yield from () if included else ("--noDataTransfers",)
