"""One builder for TensorRT 8.5 to 11 and TensorRT-RTX: an ONNX file and a plain specification in, a plan out.

Precision is the graph's own: strongly typed networks take it from there, and from TensorRT 11 on there are no others.
Flags for float16 and int8 are given to weakly typed builders alone, where the specification asks for those. What is
asked and cannot be done is refused; nothing is left out in silence. Differences between versions: the release notes of
each, and the bindings of NVIDIA/TensorRT's branches. None of it but TensorRT-RTX on a CPU ran where this was written.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import trt_layers

Facts = Dict[str, Any]
KEYS = {
    *("workspace_mib", "shapes", "strongly_typed", "fp16", "int8", "dla_core", "sparse"),
    *("optimization_level", "timing_cache"),
}
FLOOR = (8, 5)
WORKSPACE_MIB = 1024  # where the specification says none
UNIFIED_SHARE = 3  # a Jetson's memory is the GPU's too: at most this part of what is free
LEAST_MIB = 64  # of workspace, when tried again with less
MEMORY_WORDS = re.compile(r"out ?of ?memory|insufficient memory|Requested amount of GPU memory", re.IGNORECASE)
# what TensorRT says -> what it means and what to do; the first that fits is told
HINTS = (
    (r"Target GPU SM|Unsupported SM|SM \d+ is not supported", "this GPU is too old or too new for this TensorRT"),
    (r"zero point is not supported", "TensorRT takes symmetric int8 alone: export the int8 file for TensorRT"),
    (r"has type Int32 but must have type", "biases must stay in float: export the int8 file for TensorRT"),
    (r"UNSUPPORTED_NODE|no importer", "TensorRT has no such operator: export the file for TensorRT"),
    (r"uint8", "uint8 is for inputs that a Cast turns into floats, and for nothing else"),
    (r"int64", "make int64 inputs int32 before"),
    (MEMORY_WORDS.pattern, "close other programs, or give a smaller workspace"),
)


class BuildError(Exception):
    """Why there is no plan. lines: all that TensorRT said. kind: "input" or "unavailable"."""

    def __init__(self, problem: str, lines: Iterable[str] = (), kind: str = "input") -> None:
        self.lines = [" ".join(line.split()) for line in lines]
        self.kind = kind
        hints = [hint for words, hint in HINTS if re.search(words, " ".join(self.lines), re.IGNORECASE)]
        text = ": ".join([problem] + ([" | ".join(self.lines)] if self.lines else []))
        super().__init__(text + (" (%s)" % hints[0] if hints else ""))


def version(trt: Any) -> Tuple[int, ...]:
    """Numbers of the TensorRT whose API a module has: TensorRT-RTX counts from 1, and has that of 11."""
    if is_rtx(trt):
        return (11, 0)
    return tuple(int(number) for number in re.findall(r"\d+", trt.__version__)[:3])


def is_rtx(trt: Any) -> bool:
    """Whether a module is NVIDIA's edition for RTX GPUs."""
    return bool(trt.__name__ == "tensorrt_rtx")


def title(trt: Any) -> str:
    """Name and version, for people."""
    return "%s %s" % ("TensorRT-RTX" if is_rtx(trt) else "TensorRT", trt.__version__)


def can_be_strong(trt: Any) -> bool:
    """Whether networks can take their types from the graph."""
    return version(trt) >= (11,) or hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


_LOGGERS: List[Tuple[Any, Any]] = []


def logger(trt: Any) -> Any:
    """The one logger of this module and process: TensorRT keeps the first it is given, for good."""
    for module, made in _LOGGERS:
        if module is trt:
            return made
    _LOGGERS.append((trt, _make_logger(trt)))
    return _LOGGERS[-1][1]


def _make_logger(trt: Any) -> Any:
    """A logger that keeps errors and warnings, and the layers that a detailed build lists."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.forget()

        def forget(self) -> None:
            self.errors: List[str] = []
            self.warnings: List[str] = []
            self.layers = ""
            self.sparsity: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = int(severity)  # internal error 0, error 1, warning 2, information 3, verbose 4
            if level <= 1:
                self.errors.append(message)
            elif level == 2 and message not in self.warnings:
                self.warnings.append(message)
            elif message.startswith("Layers:"):
                self.layers = message
            elif message.startswith("(Sparsity)"):
                self.sparsity.append(message)

    return Logger()


def build(onnx: str, spec: Dict[str, Any], trt: Any, *, capabilities: Iterable[str] = ()) -> Tuple[bytes, Facts]:
    """A plan of `onnx`, and what is known of it; BuildError for what cannot be done as `spec` says.

    spec: the keys of `toolkit.tensorrt.types.BuildSpec`; shapes as {input: [least, usual, greatest]} or as tables of
    those names. capabilities: compute capabilities to build for ("8.6"), which TensorRT-RTX alone can choose.
    """
    started = time.perf_counter()
    made = _Build(onnx, spec, trt, tuple(capabilities))
    plan = made.plan()
    return plan, {**made.facts(), "seconds": time.perf_counter() - started}


def workspace(asked_mib: Optional[int], free_mib: Optional[int], unified: bool) -> Tuple[int, str]:
    """MiB of workspace, and why it is less than was asked: on unified memory it is taken from the programs'."""
    asked = asked_mib or WORKSPACE_MIB
    if not unified or free_mib is None:
        return asked, ""
    limit = max(LEAST_MIB, min(WORKSPACE_MIB, free_mib // UNIFIED_SHARE))
    if asked <= limit:
        return asked, ""
    words = "workspace of %d MiB instead of %d: the memory is shared with the CPU and %d MiB are free"
    return limit, words % (limit, asked, free_mib)


def memory() -> Tuple[Optional[int], bool]:
    """(MiB free, whether the GPU shares them): Tegra modules have one memory for both."""
    free = None
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            match = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
            free = int(match[1]) // 1024 if match else None
    return free, os.path.exists("/etc/nv_tegra_release") or "tegra" in _compatible()


def _compatible() -> str:
    path = "/proc/device-tree/compatible"
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as file:
        return file.read()


class _Build:
    """One build: each step refuses what it cannot do as it was asked."""

    def __init__(self, onnx: str, spec: Dict[str, Any], trt: Any, capabilities: Tuple[str, ...]) -> None:
        self.onnx, self.spec, self.trt, self.capabilities = onnx, dict(spec), trt, capabilities
        self.version, self.name = version(trt), title(trt)
        self.flags: List[str] = []
        self.warnings: List[str] = []
        self.on_gpu: List[str] = []
        self.inputs: List[Tuple[str, str, List[int]]] = []
        self.log = logger(trt)
        self.log.forget()
        self.alive: List[Any] = []  # what the network's weights and the build lie in: nothing else holds them
        self.strong = bool(self.spec.get("strongly_typed", True))
        self._refuse()
        free, unified = memory()
        self.workspace_mib, words = workspace(self.spec.get("workspace_mib"), free, unified)
        self.warnings += [words] if words else []

    def _refuse(self) -> None:
        """What can be told from the specification and the version alone."""
        unknown = sorted(set(self.spec) - KEYS)
        if unknown:
            raise BuildError("no such key of a build: %s (it has %s)" % (", ".join(unknown), ", ".join(sorted(KEYS))))
        if self.version < FLOOR:
            raise BuildError("%s is below 8.5: build with its own trtexec" % self.name)
        if self.strong and not can_be_strong(self.trt):
            words = "%s has no strong typing: ask for strongly_typed = false, with int8 and fp16 as the file needs"
            raise BuildError(words % self.name)
        if not self.strong and self.version >= (11,):
            raise BuildError("%s builds strongly typed networks alone: precision is the file's own" % self.name)
        if self.spec.get("timing_cache") and is_rtx(self.trt):
            raise BuildError("%s keeps no timing cache" % self.name)
        if self.capabilities and not is_rtx(self.trt):
            raise BuildError("%s builds for the GPU it runs on, not for compute capabilities" % self.name)

    # ---------------------------------------------------------------- the steps

    def plan(self) -> bytes:
        """Build, with less workspace where memory does not suffice."""
        while True:
            self.alive = []
            builder = self._builder()
            network = self._network(builder)
            config = self._config(builder, network)
            done = len(self.log.errors)
            plan = builder.build_serialized_network(network, config)
            if plan is not None:
                self._keep_timings(config)
                return bytes(plan)  # an attempt that failed was told in a warning
            said = self.log.errors[done:]
            if not MEMORY_WORDS.search(" ".join(said)) or self.workspace_mib // 2 < LEAST_MIB:
                raise BuildError("%s builds no engine of the file" % self.name, said)
            half = self.workspace_mib // 2
            self.warnings.append("out of memory with a workspace of %d MiB: tried with %d" % (self.workspace_mib, half))
            self.workspace_mib, self.flags, self.on_gpu = half, [], []

    def _builder(self) -> Any:
        try:
            return self.trt.Builder(self.log)
        except TypeError:  # the bindings' word for a builder that could not be made: no driver, no GPU
            raise BuildError("%s finds no GPU to build on" % self.name, self.log.errors, "unavailable")

    def _network(self, builder: Any) -> Any:
        kinds, bits = self.trt.NetworkDefinitionCreationFlag, 0
        if self.version < (10,):
            bits |= self._bit(kinds, "EXPLICIT_BATCH")
        if self.strong and self.version < (11,):
            bits |= self._bit(kinds, "STRONGLY_TYPED")
        network = builder.create_network(bits)
        parser = self.trt.OnnxParser(network, self.log)
        self.alive += [builder, network, parser]
        if not parser.parse_from_file(self.onnx):
            said = [str(parser.get_error(index)) for index in range(parser.num_errors)] or self.log.errors
            raise BuildError("%s cannot read the file" % self.name, said)
        self.inputs = [self._input(network.get_input(index)) for index in range(network.num_inputs)]
        self._check_precision(builder, _held(network, self.trt))
        return network

    def _bit(self, kinds: Any, name: str) -> int:
        self.flags.append(name)
        return 1 << int(getattr(kinds, name))  # never a literal: STRONGLY_TYPED is bit 1 in 10 and bit 0 in 11

    def _input(self, tensor: Any) -> Tuple[str, str, List[int]]:
        if tensor.is_shape_tensor:
            raise BuildError("input %r is a shape: fix it in the file" % tensor.name)
        return tensor.name, tensor.dtype.name, [int(size) for size in tensor.shape]

    def _check_precision(self, builder: Any, held: Set[str]) -> None:
        """Types that are asked for must be in the graph, or in the hardware where the builder chooses them."""
        for key, name in (("int8", "int8"), ("fp16", "float16")):
            asked = bool(self.spec.get(key))
            weak_half = not self.strong and key == "fp16"
            if asked and name not in held and not weak_half:
                words = "%s was asked for and the file holds none: precision is the file's own, export it so"
                raise BuildError(words % name)
            if asked and not self.strong and not getattr(builder, "platform_has_fast_%s" % key):
                raise BuildError("this GPU has no fast %s: it is too old for that" % name)
        if not self.strong and "int8" in held and not self.spec.get("int8"):
            raise BuildError("the file is quantized (Q/DQ): ask for int8 = true, or build the float file")

    def _config(self, builder: Any, network: Any) -> Any:
        trt, spec = self.trt, self.spec
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self.workspace_mib << 20)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        asked = [] if self.strong else [name for name in ("FP16", "INT8") if spec.get(name.lower())]
        for name in asked + (["SPARSE_WEIGHTS"] if spec.get("sparse") else []):
            self._set(config, name)
        level = spec.get("optimization_level")
        if level is not None:
            if self.version < (8, 6):
                raise BuildError("%s has no optimization levels: 8.6 and later do" % self.name)
            config.builder_optimization_level = level
        self._choose_capabilities(config)
        self._choose_shapes(builder, config)
        self._load_timings(config)
        if spec.get("dla_core") is not None:
            self._use_dla(builder, network, config)
        return config

    def _set(self, config: Any, name: str) -> None:
        config.set_flag(getattr(self.trt.BuilderFlag, name))
        self.flags.append(name)

    def _choose_capabilities(self, config: Any) -> None:
        if not self.capabilities:
            return
        known = self.trt.ComputeCapability
        names = ["SM" + text.replace(".", "") for text in self.capabilities]
        able = sorted(name for name in known.__members__ if name.startswith("SM"))
        missing = [name for name in names if name not in able]
        if missing:
            words = "%s builds for no %s on this computer, it builds for %s"
            raise BuildError(words % (self.name, ", ".join(missing), ", ".join(able)))
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(known, name), index)
            self.flags.append(name)

    def _choose_shapes(self, builder: Any, config: Any) -> None:
        """One optimization profile for all inputs with free dimensions."""
        given = {name: _shape_range(name, value) for name, value in (self.spec.get("shapes") or {}).items()}
        profile = None
        for name, _, shape in self.inputs:
            if -1 not in shape:
                continue
            if name not in given:
                raise BuildError(_missing_range(name, shape))
            least, usual, greatest = given.pop(name)
            _check_range(name, shape, (least, usual, greatest))
            if self.spec.get("dla_core") is not None and not least == usual == greatest:
                raise BuildError("a DLA takes one shape: give input %r the same least, usual and greatest" % name)
            profile = profile or builder.create_optimization_profile()
            profile.set_shape(name, least, usual, greatest)
        if given:
            raise BuildError("no input with free dimensions of that name: %s" % ", ".join(sorted(given)))
        if profile is not None and config.add_optimization_profile(profile) < 0:
            raise BuildError("%s refuses the shapes" % self.name, self.log.errors)

    def _use_dla(self, builder: Any, network: Any, config: Any) -> None:
        core, cores = int(self.spec["dla_core"]), int(builder.num_DLA_cores)
        if core >= cores:
            raise BuildError("%s sees %s here, core %d was asked for" % (self.name, _dlas(cores), core))
        if not self.strong and not (self.spec.get("fp16") or self.spec.get("int8")):
            raise BuildError("a DLA computes in float16 and int8 alone: ask for one of them")
        config.default_device_type = self.trt.DeviceType.DLA
        config.DLA_core = core
        self.flags.append("DLA_core=%d" % core)
        self._set(config, "GPU_FALLBACK")
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        self.on_gpu = [layer.name for layer in layers if not config.can_run_on_DLA(layer)]
        if len(self.on_gpu) == len(layers):
            raise BuildError("the DLA takes no layer of the file")

    def _load_timings(self, config: Any) -> None:
        path = self.spec.get("timing_cache")
        if not path:
            return
        content = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                content = file.read()
        cache = config.create_timing_cache(content)
        if not config.set_timing_cache(cache, False):
            self.warnings.append("the timing cache is of another TensorRT or GPU: begun anew")
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        self.alive.append(cache)

    def _keep_timings(self, config: Any) -> None:
        path = self.spec.get("timing_cache")
        if not path:
            return
        with open(path + ".part", "wb") as file:
            file.write(bytes(config.get_timing_cache().serialize()))
        os.replace(path + ".part", path)

    def _sparsity(self) -> List[str]:
        """What came of sparse kernels, where they were allowed."""
        if not self.spec.get("sparse"):
            return []
        said = trt_layers.sparse_words("\n".join(self.log.sparsity))
        return said or ["2:4: %s does not say which layers use sparse kernels" % self.name]

    def facts(self) -> Facts:
        """What was built and how."""
        return {
            "version": self.trt.__version__,
            "flavour": self.trt.__name__,
            "strongly_typed": self.strong,
            "flags": self.flags,
            "workspace_mib": self.workspace_mib,
            "inputs": [list(item) for item in self.inputs],
            "on_gpu": self.on_gpu,
            "warnings": self.warnings + [" ".join(text.split()) for text in self.log.warnings] + self._sparsity(),
            "layers": [list(layer) for layer in trt_layers.of_log(self.log.layers)],
        }


def _dlas(cores: int) -> str:
    return "no DLA" if not cores else "%d DLA%s" % (cores, "" if cores == 1 else "s")


def _held(network: Any, trt: Any) -> Set[str]:
    """Which of int8 and float16 the parsed graph holds: Q/DQ layers, and tensors of half precision."""
    held: Set[str] = set()
    quantizing = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
    for layer in _layers(network):
        if layer.type in quantizing:
            held.add("int8")
        if any(layer.get_output(index).dtype == trt.DataType.HALF for index in range(layer.num_outputs)):
            held.add("float16")
    return held


def _layers(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        yield network.get_layer(index)


def _shape_range(name: str, value: Any) -> Tuple[Tuple[int, ...], ...]:
    """Least, usual and greatest shape, given as three lists or as a table of those names."""
    items = [value.get(key) for key in ("least", "usual", "greatest")] if isinstance(value, dict) else value
    shapes = [tuple(int(size) for size in item) for item in items if isinstance(item, (list, tuple))]
    if len(shapes) != 3:
        raise BuildError("shapes of input %r must be a least, a usual and a greatest one" % name)
    return tuple(shapes)


def _check_range(name: str, shape: List[int], ranges: Tuple[Tuple[int, ...], ...]) -> None:
    for given in ranges:
        fits = len(given) == len(shape) and all(own in (-1, size) and size > 0 for own, size in zip(shape, given))
        if not fits:
            raise BuildError("input %r takes %s, not %s" % (name, shape, list(given)))
    least, usual, greatest = ranges
    if any(not low <= mid <= high for low, mid, high in zip(least, usual, greatest)):
        raise BuildError("shapes of input %r must grow: least, usual, greatest" % name)


def _missing_range(name: str, shape: List[int]) -> str:
    example = ",".join("x".join(str(size if size > 0 else free) for size in shape) for free in (1, 1, 8))
    words = "input %r has free dimensions %s and no range of shapes. Fix: --shapes %s=%s (least, usual, greatest)"
    return words % (name, shape, name, example)
