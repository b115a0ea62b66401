"""Carries out [train]: images to a trained model, in one phase from scratch or two of transfer learning.

The two phases are those of Keras' guide (keras.io/guides/transfer_learning): first the new head on a still backbone,
then the backbone's last layers too, at a lower rate, BatchNormalization always by its kept statistics. What stays still
runs once, before the epochs, where no view of an image differs from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import (
    Dataset,
    LayerChange,
    Meaning,
    Model,
    PassContext,
    PassResult,
    Preprocessing,
    Progress,
    Signature,
    TensorSpec,
)
from toolkit.errors import InputError
from toolkit.training.asked import HEADS, checked, columns, precision, target
from toolkit.training.section import SMALL, TrainSection

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.backbone import Network
    from toolkit.engine.hold import Held
    from toolkit.engine.loss import Target
    from toolkit.engine.teaching import Precision, Teaching
    from toolkit.engine.train import Evaluate, TrainResult, Watch
    from toolkit.engine.views import Pixels

INPUT = "image"
OUTPUT = "classes"  # what engine.backbone calls its last layer
BATCH = 64  # images decoded together
MOST_KEPT = 8 * 2**30  # bytes of what a still backbone gives; beyond, it runs in every epoch
KEPT_LINES = 10  # of progress, in a log


@dataclass(frozen=True)
class Work:
    """Where checkpoints are kept, and the training they belong to; None keeps none."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Phase:
    """One fit. learning: names of backbone layers that learn; None: the whole network does."""

    name: str
    epochs: int
    learning_rate: float
    learning: frozenset[str] | None


def make_model(
    section: TrainSection, context: PassContext, *, preprocessing: Preprocessing, head: str = "auto", work: Work | None
) -> PassResult:
    """The trained model, what each phase did, and its curves.

    preprocessing: the contract of the images, `size` and colours included. Raises InputError for data that nothing can
    be learned from or a backbone that does not fit, UnavailableError for weights or a GPU that cannot be had.
    """
    images, meaning = checked(section, context, head)
    network = _network(section, context, _shape(preprocessing), columns(images, meaning), meaning)
    pixels, aim = _pixels(preprocessing), target(section, images)
    maker = _Maker(section, context, images, meaning, pixels, aim, precision(section), work)
    changes: list[LayerChange] = [_made(section, network)]
    curves: dict[str, tuple[float, ...]] = {}
    phases = tuple(_phases(section, network))
    for phase in phases:
        graph, change, found = maker.phase(phase, network)
        network = replace(network, graph=graph)
        changes.append(change)
        curves |= {f"{phase.name}_{name}" if len(phases) > 1 else name: line for name, line in found.items()}
    shape = (None, *_shape(preprocessing))
    inputs = (TensorSpec(INPUT, shape, "float32", "image", "NHWC"),)
    outputs = (TensorSpec(OUTPUT, tuple(network.graph.outputs[0].shape), "float32", meaning),)
    model = Model("keras", network.graph, Signature(inputs, outputs), preprocessing)
    return PassResult(model, tuple(changes), curves)


def images_contract(section: TrainSection, preprocess: Any, where: Callable[..., str]) -> Preprocessing:
    """The images' contract: `preprocess` with the size and the channels of [train]; InputError where they disagree."""
    size = section.input_size or preprocess.size
    if size is None:
        raise InputError(where("train", "input_size"), "is not given", "add input_size = [height, width]")
    if preprocess.size not in (None, size):
        problem = f"is {list(size)}, and data.preprocess.size is {list(preprocess.size)}"
        raise InputError(where("train", "input_size"), problem, "leave one of them out")
    found: Preprocessing = preprocess.resolve((None, *size, 1 if preprocess.color == "gray" else 3))
    return found


@dataclass(frozen=True)
class _Maker:
    """What the phases share."""

    section: TrainSection
    context: PassContext
    train: Dataset
    meaning: Meaning
    pixels: Pixels
    target: Target
    precision: Precision
    work: Work | None

    def phase(self, phase: Phase, network: Network) -> tuple[Any, LayerChange, dict[str, tuple[float, ...]]]:
        """The network after one phase; the one given stays as it is."""
        from toolkit.engine.checkpoint import Checkpoint
        from toolkit.engine.heads import copy_weights
        from toolkit.engine.surgery import rebuild
        from toolkit.engine.train import fit

        frozen = frozenset() if phase.learning is None else frozenset(network.backbone) - phase.learning
        how = self._teaching(phase, frozen)
        whole = rebuild(network.graph, {})
        part, rows, evaluate, where = self._inputs(whole, how)
        kept = None
        if self.work is not None:
            kept = Checkpoint(self.work.folder / f"{phase.name}.npz", f"{self.work.key}/{phase.name}")
        watch = self._watch(phase)
        found = fit(part, None, rows, self.train.labels, how=how, evaluate=evaluate, watch=watch, checkpoint=kept)
        if part is whole:
            return found.model, self._summary(phase, found, where), dict(found.curves)
        copy_weights(found.model, part)  # whose layers are those of the whole network
        return whole, self._summary(phase, found, where), dict(found.curves)

    def _inputs(self, whole: Any, how: Teaching) -> tuple[Any, Array, Evaluate | None, str]:
        """The part of the network to train, what goes into it, how it is judged, and where its inputs are held."""
        from math import prod

        from toolkit.engine.hold import hold
        from toolkit.engine.prefix import still_part

        parts = still_part(whole, how.frozen) if how.frozen and not how.views.any else None
        if parts is not None and 4 * len(self.train) * prod(parts[0].outputs[0].shape[1:]) > MOST_KEPT:
            parts = None
        if parts is None:
            self._say("reading the train split")
            held = hold((batch.inputs[INPUT] for batch in self.train.batches(BATCH)), len(self.train))
            return whole, held.rows, self._judge_whole(), f"images held {held.where}"
        still, rest = parts
        held = self._run_once(still, self.train)
        return rest, held.rows, self._judge_rest(still), f"outputs of the still layers held {held.where}"

    def _run_once(self, still: Any, split: Dataset) -> Held:
        """What the still layers give for a split."""
        from toolkit.engine.hold import hold
        from toolkit.engine.predict import predict_batches

        def parts() -> Iterator[Array]:
            done = 0
            for batch in split.batches(BATCH):
                self._say(f"running the still layers on {split.name} once, {done / len(split):.0%}")
                yield predict_batches(still, [batch.inputs], BATCH)[0]
                done += len(batch.ids)

        return hold(parts(), len(split))

    def _judge_whole(self) -> Evaluate | None:
        from toolkit.engine.predict import predict_batches

        selection = self.context.selection
        if selection is None:
            return None
        score = self._score(selection)
        return lambda graph: score(predict_batches(graph, (b.inputs for b in selection.batches(BATCH)), BATCH)[0])

    def _judge_rest(self, still: Any) -> Evaluate | None:
        from toolkit.engine.predict import predict_arrays

        selection = self.context.selection
        if selection is None:
            return None
        score, rows = self._score(selection), self._run_once(still, selection).rows
        return lambda graph: score(predict_arrays(graph, {graph.inputs[0].name: rows})[0])

    def _score(self, selection: Dataset) -> Callable[[Array], float]:
        """The head's score on selection, larger is better."""
        from toolkit.metrics import chosen

        metric: Any = chosen.score(self.meaning, selection.task)

        def score(outputs: Array) -> float:
            values = metric.per_example(outputs, selection.labels, self.meaning)
            return float(metric.reduce(values)) * (1 if metric.higher_is_better else -1)

        return score

    def _teaching(self, phase: Phase, frozen: frozenset[str]) -> Teaching:
        from toolkit.engine.schedule import Schedule
        from toolkit.engine.teaching import Teaching
        from toolkit.engine.views import Views

        section = self.section
        return Teaching(
            epochs=phase.epochs,
            batch_size=section.batch_size,
            learning_rate=phase.learning_rate,
            head=self.meaning,
            target=self.target,
            schedule=Schedule(section.schedule, section.warmup_epochs, section.decay),
            views=Views(**section.augment.model_dump(), pixels=self.pixels),
            optimizer=section.optimizer,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            frozen=frozen,
            patience=section.patience if self.context.selection is not None else 0,
            precision=self.precision,
            seed=self.context.seed,
        )

    def _watch(self, phase: Phase) -> Watch:
        from toolkit.engine.pace import Pace
        from toolkit.engine.train import Watch

        every, emit = -(-phase.epochs // KEPT_LINES), self.context.emit
        pace = Pace(phase.epochs, judged="accuracy" if self.meaning in HEADS["classes"] else "score")

        def begin(done: int) -> None:
            pace.begin(done)
            if done:
                self._say(f"{phase.name}: taken up after epoch {done} of {phase.epochs}", keep=True)

        def epoch(number: int, loss: float, score: float | None) -> None:
            keep = number % every == 0 or number == phase.epochs
            text = f"  train: {phase.name}: {pace.epoch(number, loss, score)}"
            emit(Progress(text, pace.fraction(number, 1.0), keep=keep))

        def step(number: int, share: float, loss: float) -> None:
            emit(Progress(f"  train: {phase.name}: {pace.step(number, share, loss)}", pace.fraction(number, share)))

        return Watch(begin, epoch, step)

    def _summary(self, phase: Phase, result: TrainResult, where: str) -> LayerChange:
        """The line about a phase."""
        epochs = len(result.curves["loss"])
        what = "the whole network" if phase.learning is None else f"the head and {len(phase.learning)} backbone layers"
        what = "the head" if phase.learning == frozenset() else what
        work = f"{epochs} epochs of {result.steps} steps; {len(self.train):,} images, {where}"
        name = next((name for name in result.curves if name.startswith("selection")), None)
        if name is None or result.before is None:
            unknown = "not evaluated (no selection split)"
            return LayerChange(f"{phase.name}: {what}", unknown, unknown, f"the last epoch is kept; {work}")
        scores, share = (result.before, *result.curves[name]), name == "selection_accuracy"
        before, after = (f"{scores[i]:.2%}" if share else f"{scores[i]:.4g}" for i in (0, result.best_epoch))
        kept = f"epoch {result.best_epoch} is kept, the best on selection"
        if result.best_epoch == 0:
            kept = "no epoch is as good as the network before it, whose weights stay"
        said = name.replace("_", " ")
        return LayerChange(f"{phase.name}: {what}", f"{said} {before}", f"{said} {after}", f"{kept}; {work}")

    def _say(self, text: str, keep: bool = False) -> None:
        self.context.emit(Progress(f"  train: {text}", keep=keep))


# ---------------------------------------------------------------- the network


def _network(
    section: TrainSection, context: PassContext, shape: tuple[int, int, int], outputs: int, meaning: Meaning
) -> Network:
    """The network before any training, seeded."""
    import keras

    from toolkit.engine import backbone

    keras.utils.set_random_seed(context.seed)
    head = backbone.Head(outputs, meaning, section.head_dropout, section.head_l2)
    if section.backbone == SMALL:
        return backbone.small(shape, head, width=section.width, depth=section.depth)
    if section.weights == "none":
        network = backbone.transferred(backbone.untrained(str(section.application), shape, section.backbone), head)
        return replace(network, backbone=())
    model = _pretrained(section, context)
    return backbone.transferred(backbone.features(model.graph, shape, section.backbone), head)


def _pretrained(section: TrainSection, context: PassContext) -> Model:
    """The trained model whose head is to be cut off."""
    from toolkit.sources.applications import Applications

    if section.application:
        return Applications(weights=str(section.weights)).load(section.application)
    path = Path(section.backbone)
    if context.load is None:
        raise InputError("train.backbone", "nothing here can read a model file", "run it from a recipe")
    if not path.exists():
        raise InputError("train.backbone", f"no such file, got {section.backbone!r}", "name a trained model's file")
    model = context.load(path)
    if model.kind != "keras":
        raise InputError("train.backbone", f"needs a Keras graph, {path.name} holds {model.kind}", "give a .keras file")
    return model


def _phases(section: TrainSection, network: Network) -> Iterator[Phase]:
    from toolkit.engine.backbone import last_layers

    if not section.pretrained:
        yield Phase("scratch", section.epochs, section.learning_rate, None)
        return
    yield Phase("features", section.features.epochs, section.features.learning_rate, frozenset())
    tuned = section.finetune
    if tuned.epochs:
        yield Phase("finetune", tuned.epochs, tuned.learning_rate, last_layers(network, tuned.layers))


def _made(section: TrainSection, network: Network) -> LayerChange:
    """The line about where the network comes from."""
    count = f"{network.graph.count_params():,} parameters"
    if not section.pretrained:
        return LayerChange("the network", "nothing", count, f"{section.backbone}, random weights")
    name = section.backbone if section.application else Path(section.backbone).name
    return LayerChange("the network", name, count, "its head replaced, everything up to its last feature map kept")


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    if preprocessing.size is None:
        raise InputError("train.input_size", "is not given", "add input_size = [height, width]")
    return (*preprocessing.size, 1 if preprocessing.color == "gray" else 3)


def _pixels(preprocessing: Preprocessing) -> Pixels:
    from toolkit.engine.views import Pixels

    return Pixels(preprocessing.scale, preprocessing.offset, preprocessing.color)
