"""What runs in the executor's child process: each function is one stage, from files to files.

Models stay in memory between stages under the path they were saved to, so a pass that follows another
reads nothing back. `toolkit.executor` starts it, never a person.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.candidates import Candidates
from toolkit.core import (
    Artifact,
    ExportContext,
    LayerChange,
    Model,
    PassContext,
    Preprocessing,
    Progress,
    QuantSpec,
    Scheme,
    Signature,
    TensorSpec,
)
from toolkit.errors import EdgekitError, InputError, UnavailableError

if TYPE_CHECKING:
    from toolkit.checks.between import Between
    from toolkit.checks.coverage import CalibrationCheck
    from toolkit.checks.diagnosis import Diagnosis
    from toolkit.checks.inputs import InputsCheck
    from toolkit.core import Array
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import Splits
    from toolkit.pruning import Needs
    from toolkit.recipe import DataSpec
    from toolkit.training.make import Work
    from toolkit.training.section import TrainSection


@dataclass(frozen=True)
class ModelFacts:
    """What a saved model is: counts are for one image, None where they cannot be read from it.

    same_graph: a pass that only set a specification.
    """

    signature: Signature
    preprocessing: Preprocessing
    parameters: int | None
    macs: int | None
    changes: tuple[LayerChange, ...] = ()
    curves: Mapping[str, tuple[float, ...]] | None = None
    same_graph: bool = False
    notes: tuple[str, ...] = ()


class Stages:
    """The stages an executor can call, and what they keep between calls."""

    def __init__(self, emit: Callable[[Progress], None], allow_code: tuple[str, ...] = ()) -> None:
        self._emit, self._allow_code = emit, allow_code
        self._models: dict[Path, Model] = {}
        self._splits: Splits | None = None
        self._memory: dict[str, Any] = {}  # what passes of one run hand on to each other

    def load_source(self, *, source: Any, path: Path, preprocess: PreprocessSpec, save_as: Path) -> ModelFacts:
        """Read a trained model, give it its preprocessing contract (size and channels are the model's own), save it."""
        model: Model = source.load(path)
        contract = preprocess.resolve(_channels_last(model.signature.inputs[0]))
        facts = self._save(replace(model, preprocessing=contract), save_as)
        return replace(facts, notes=model.notes)

    def use_data(self, *, spec: DataSpec, preprocessing: Preprocessing, **options: Any) -> None:
        """Open the splits that later stages read; options as `load_splits` takes them."""
        from toolkit.data import load_splits

        self._splits = load_splits(spec, preprocessing, **options)

    def run_pass(
        self,
        *,
        component: Any,
        parent: Path,
        original: Path,
        save_as: Path,
        seed: int,
        checkpoint: Path | None = None,
        key: str = "",
        needs: Needs | None = None,
    ) -> ModelFacts:
        """Run one pass on the model saved at `parent`; a training goes on from its checkpoint, if there is one."""
        splits, model = self._opened(), self._model(parent)
        context = PassContext(
            seed=seed,
            original=self._model(original),
            train=splits.train,
            unlabelled=splits.unlabelled,
            selection=splits.selection,
            calibration=splits.calibration,
            evaluate=self._score(self._model(original)) if splits.selection else None,
            load=partial(_load_any, allow_code=self._allow_code),
            application=_application,
            memory=self._memory,
            checkpoint=checkpoint,
            key=key,
            deliver=Candidates(needs, self._emit) if needs else None,
            multiple=needs.multiple if needs else PassContext.multiple,
            cache=_cache(),
            emit=self._emit,
        )
        result = component.run(model, context)
        same = result.model.graph is model.graph
        facts = self._save(result.model, save_as, graph_of=parent if same else None)
        return replace(facts, changes=result.changes, curves=dict(result.curves), same_graph=same)

    def train(
        self,
        *,
        section: TrainSection,
        preprocessing: Preprocessing,
        head: str,
        seed: int,
        work: Work,
        save_as: Path,
        allow_code: tuple[str, ...] = (),
    ) -> ModelFacts:
        """Make a trained model from the train split."""
        from toolkit.training.make import make_model

        splits, load = self._opened(), partial(_load_any, allow_code=allow_code)
        context = PassContext(seed=seed, train=splits.train, selection=splits.selection, load=load, emit=self._emit)
        result = make_model(section, context, preprocessing=preprocessing, head=head, work=work)
        facts = self._save(result.model, save_as)
        return replace(facts, changes=result.changes, curves=dict(result.curves))

    def export(
        self, *, exporter: Any, parent: Path, path: Path, provenance: Mapping[str, str], asked: QuantSpec
    ) -> Artifact:
        """Write the model saved at `parent` to one file. provenance: where it comes from, for the file's metadata.

        asked: what the plan asks of it; what the devices' kernels need stands there alone.
        """
        splits = self._opened()
        context = ExportContext(splits.calibration, self._emit, splits.test.classes, provenance)
        artifact: Artifact = exporter.export(_for_kernels(self._model(parent), asked), path, context)
        return artifact

    def predict(self, *, model: Path, inputs: Mapping[str, Path], folder: Path) -> dict[str, Path]:
        """Outputs of a saved model on prepared inputs (.npy), as .npy files in `folder`, by output name."""
        import numpy as np

        arrays = {name: np.load(path, mmap_mode="r") for name, path in inputs.items()}
        found = self._model(model)

        def watch(done: int, total: int) -> None:
            self._emit(Progress(f"{model.stem}: answering {total} images", done / total))

        outputs = answers(found, arrays, watch)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for number, (spec, values) in enumerate(zip(found.signature.outputs, outputs, strict=True)):
            paths[spec.name] = folder / f"output-{number}.npy"
            np.save(paths[spec.name], values)
        return paths

    def diagnose(
        self, *, artifact: Path, model: Path, images: Mapping[str, Path], sensitivity: bool, scheme: Scheme
    ) -> Diagnosis:
        """Which layer of a file is at fault, on prepared images (.npy), against the model it was written from."""
        import numpy as np

        from toolkit.checks.diagnosis import diagnose

        arrays = {name: np.load(path) for name, path in images.items()}
        known = self._model(model)
        asked = replace(known, quant=replace(known.quant, scheme=scheme))  # a bare file's model says nothing of it
        return diagnose(artifact, asked, arrays, sensitivity=sensitivity, emit=self._emit)

    def between(
        self, *, artifacts: tuple[Path, Path], schemes: tuple[Scheme, Scheme], model: Path, images: Mapping[str, Path]
    ) -> Between | None:
        """Where two files of one model first differ, on prepared images (.npy)."""
        import numpy as np

        from toolkit.checks.between import between

        arrays = {name: np.load(path) for name, path in images.items()}
        return between(artifacts, schemes, self._model(model).graph, arrays)

    def coverage(self, *, model: Path, stage: str, judged: int) -> CalibrationCheck:
        """Whether the calibration of a saved model was enough, against the selection split, else train."""
        from toolkit.checks.coverage import check

        splits = self._opened()
        others = splits.selection or splits.train
        if splits.calibration is None or others is None:
            problem = "needs a calibration split, and a selection or train split beside it"
            raise InputError("calibration", problem, "set data.splits.selection")
        return check(self._model(model), splits.calibration, others, stage=stage, judged=judged, emit=self._emit)

    def examine(
        self, *, model: Path | Model, preprocessing: Preprocessing, images: Path, labels: Path, key: str
    ) -> InputsCheck:
        """Whether images (.npy, as decoded) reach a model as it was trained on. model: a saved one, or of a file."""
        import numpy as np

        from toolkit.checks.inputs import examine
        from toolkit.checks.presented import given
        from toolkit.engine.moments import Observed

        known = self._model(model) if isinstance(model, Path) else model
        name = known.signature.inputs[0].name

        def outputs(arrays: Array) -> Observed:
            return Observed(answers(known, {name: arrays})[0])

        observe: Callable[[Array], Observed] = outputs
        if known.kind == "keras":
            from toolkit.engine.inputs import Witnesses

            observe = Witnesses(known.graph).observe
        return examine(given(np.load(images), preprocessing), np.load(labels), known.head, observe, key=key)

    def inspect(self, *, path: Path, allow_code: tuple[str, ...] = ()) -> dict[str, Any]:
        """What a trained model is, for `edgekit inspect`."""
        from toolkit.inspection import inspect_trained

        return inspect_trained(path, allow_code)

    def _opened(self) -> Splits:
        if self._splits is None:
            raise RuntimeError("a stage that reads data was called before use_data")
        return self._splits

    def _model(self, path: Path) -> Model:
        from toolkit.sources import store

        if path not in self._models:
            self._models[path] = store.restore(path, self._allow_code)
        return self._models[path]

    def _save(self, model: Model, path: Path, graph_of: Path | None = None) -> ModelFacts:
        from toolkit.sources import store

        if graph_of and model.kind == "keras":
            shutil.copyfile(graph_of, path)
            store.save_contract(model, path)
            self._models[path] = model
        else:
            self._models[path] = store.save(model, path)
        parameters, macs = _counts(self._models[path])
        return ModelFacts(model.signature, model.preprocessing, parameters, macs)

    def _score(self, original: Model) -> Callable[[Model], float]:
        """A model's score on the selection split, larger is better: its head's, or minus its error.

        An embedding without class labels is scored by its likeness to the original's.
        """
        from toolkit.engine.predict import predict_batches
        from toolkit.metrics import chosen
        from toolkit.metrics.vectors import Cosine

        selection = self._opened().selection
        if selection is None:
            raise RuntimeError("there is no selection split to evaluate on")

        def answers(model: Model) -> Any:
            return predict_batches(model.graph, (batch.inputs for batch in selection.batches(64)))[0]

        metric: Any = chosen.score(original.head, selection.task) or Cosine()
        reference = cache(lambda: answers(original) if metric.against else None)  # when a pass asks, and once

        def score(model: Model) -> float:
            values = metric.per_example(answers(model), selection.labels, model.head, original=reference())
            return float(metric.reduce(values)) * (1 if metric.higher_is_better else -1)

        return score


def _for_kernels(model: Model, asked: QuantSpec) -> Model:
    """The model, asking also for what the kernels of its devices need."""
    quant = replace(model.quant, reduce_range=asked.reduce_range, dense_per_tensor=asked.dense_per_tensor)
    return replace(model, quant=quant) if quant != model.quant else model


def _cache() -> Path:
    """Where what several runs may use is kept, as the XDG standard says."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "edgekit"


def _load_any(path: Path, allow_code: tuple[str, ...] = ()) -> Model:
    """A trained model by the source that reads its kind of file."""
    from toolkit import registry
    from toolkit.plan import source_of

    name = source_of(path)
    if name is None:
        raise InputError(str(path), "is no kind of model that a source reads", "name a .keras, .onnx or .tflite file")
    source = registry.load("sources", name)
    options = {"allow_code": allow_code} if "allow_code" in source.model_fields else {}
    model: Model = source(**options).load(path)
    return model


def _application(name: str, weights: str, alpha: float | None) -> Model:
    """A trained network of keras.applications under the contract that its ImageNet weights were trained with."""
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.sources.applications import Applications, preset_of

    model = Applications(weights=weights, alpha=alpha).load(name)
    contract = PreprocessSpec.model_validate(preset_of(name)).resolve(model.signature.inputs[0].shape)
    return replace(model, preprocessing=contract)


def answers(
    model: Model, arrays: Mapping[str, Array], watch: Callable[[int, int], None] = lambda done, total: None
) -> list[Array]:
    """Outputs of a model of any kind on whole arrays. watch: is told how many images of how many are done."""
    if model.kind == "keras":
        from toolkit.engine.predict import predict_arrays

        return predict_arrays(model.graph, arrays, watch=watch)
    from toolkit.engine import foreign

    signature = model.signature
    ports = tuple(foreign.Port(spec.name, spec.layout == "NCHW") for spec in signature.inputs)
    names = tuple(spec.name for spec in signature.outputs)
    return foreign.answers(foreign.Network(model.kind, model.graph, ports, names), arrays, watch=watch)


def _counts(model: Model) -> tuple[int | None, int | None]:
    """(parameters, MACs) for one image, None where they cannot be read."""
    from toolkit.exporters import file_cost
    from toolkit.sources import savedmodel

    if model.kind == "savedmodel":
        return savedmodel.variables(model.graph), None
    return file_cost.count(model)


def _channels_last(spec: TensorSpec) -> tuple[int | None, ...]:
    """The shape of an input as images are held here, whatever the file's own layout."""
    if spec.layout != "NCHW":
        return spec.shape
    n, channels, height, width = spec.shape
    return (n, height, width, channels)


def serve(descriptor: int, allow_code: tuple[str, ...] = ()) -> None:
    """Answer calls on a connection until it closes, then leave without the teardown that takes TensorFlow seconds."""
    pipe = Connection(descriptor)

    def emit(progress: Progress) -> None:
        try:
            pipe.send(("progress", progress))
        except BrokenPipeError:
            os._exit(1)  # whoever asked is gone, killed perhaps: hours of training for nobody

    stages = Stages(emit, allow_code)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, arguments = pipe.recv()
            pipe.send(_answer(getattr(stages, function), arguments))
    sys.stdout.flush()
    os._exit(0)


def _answer(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[str, Any]:
    try:
        return "result", function(**arguments)
    except EdgekitError as error:
        traceback.print_exc()  # into the log: what crosses over has no traceback
        return "error", error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            return "error", UnavailableError(str(error.filename or function.__name__), f"{error.strerror}")
        return "error", traceback.format_exc()
    except Exception:
        return "error", traceback.format_exc()
