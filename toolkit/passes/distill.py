"""Knowledge distillation: the original teaches what is left of it (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

By outputs, and by what is inside if asked (`lessons`). On logits where the head decides (softmax, sigmoid, several
sigmoids), on the values of a regression, on the direction of an embedding. Teacher and student see the same view of
each image ("a good teacher is patient and consistent", Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult, Progress, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import images, lessons
from toolkit.schema import Component
from toolkit.traits import SHAPE, ZEROS, Trait

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.core import Dataset
    from toolkit.engine.checkpoint import Checkpoint
    from toolkit.engine.clusters import Sharing
    from toolkit.engine.hints import Beside
    from toolkit.engine.loss import Target
    from toolkit.engine.sparsity import Sparsity
    from toolkit.engine.teacher import Teacher
    from toolkit.engine.teaching import Teaching
    from toolkit.engine.train import TrainResult, Watch
    from toolkit.passes.images import Seen

APART = "with a codebook for each output channel, which were scaled apart"
KEPT_LINES = 10  # of progress, in a log
DECIDING = ("logits", "softmax", "sigmoid")
PROBABILITIES = ("softmax", "sigmoid", "sigmoids")
LOOKED_AT = 64  # images that a quantized teacher is asked about first
OwnTeacher = Literal["original"] | Path
TASKS = {"sigmoids": "labels", "regression": "values"}  # head -> what its labels are; an embedding needs none


class Distill(Component):
    """Trains the model with the original, or another one, as teacher; chooses the best epoch on selection."""

    takes: ClassVar[tuple[str, ...]] = ("keras",)
    needs: ClassVar[tuple[str, ...]] = ("train",)
    makes: ClassVar[frozenset[Trait]] = frozenset({"trained"})
    keeps: ClassVar[frozenset[Trait]] = SHAPE | ZEROS | {"fresh", "clustered"}
    called: ClassVar[str] = "distill"  # by recipes, and in what it says

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Passes over the train split."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images in one step."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Adam's first step size; decays to 0 along a cosine."""
    loss: Literal["kl", "mse"] = "kl"
    """Between the logits of both: kl of softened probabilities, or the mean squared difference. Embeddings: kl stands
    for the angle; regressions: either is the squared error."""
    temperature: Annotated[float, Field(ge=1, le=100)] = 4.0
    """Softens both models' probabilities, so that the teacher's second thoughts count."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Weight of the teacher's part of the loss; the labels have the rest. An embedding has the teacher alone."""
    teacher: OwnTeacher | Annotated[tuple[OwnTeacher, ...], Field(min_length=1, max_length=16)] = "original"
    """Who teaches: the model as it was read, or the path of another trained one, of any kind, for the same images; or
    several of them, ["original", "large.onnx"]."""
    teacher_weights: Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(max_length=16)] = ()
    """The say each of several teachers has; left out, all the same."""
    hints: lessons.Hints | None = None
    """Intermediate features like the teacher's: { } or { layers = { student_layer = "teacher_layer" } }."""
    attention: lessons.Attention | None = None
    """Looking where the teacher looks: { } or { layers = { student_layer = "teacher_layer" } }."""
    relational: lessons.Relational | None = None
    """Images lying to each other as they do for the teacher: { }, { on = "logits" }, { angle = 0 }."""
    augment: Literal["none", "flip", "shift", "flip_shift"] = "none"
    """Random views of the images; flip and flip_shift mirror them, which is wrong for digits and text."""
    unlabelled: bool = True
    """Learn from the teacher on the images of data.unlabelled too, where there are some."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs that are no better on selection before it stops; 0 goes through all."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """What teacher and student compute in (float16: a GPU; bfloat16: processors with instructions for it, too); the
    weights stay float32, and so does the model that comes out."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        usual = Distill.model_fields["temperature"].default
        if self.loss == "mse" and self.temperature != usual:  # a resolved recipe has every field
            raise ValueError("temperature softens probabilities: it says nothing to loss = 'mse'; leave it out")
        self._refuse_unasked()
        if self.teacher_weights and len(self.teacher_weights) != len(self._teachers):
            counts = f"{len(self._teachers)} teachers, {len(self.teacher_weights)} weights"
            raise ValueError(f"teacher_weights has a weight for each of several teachers, got {counts}")
        if self._beside_looks_inside:
            lessons.check_teachers(self._teachers)
        return self

    def _refuse_unasked(self) -> None:
        """Raise ValueError for a teacher, or a way to listen to its outputs, where alpha = 0 gives them no say."""
        fields = type(self).model_fields  # a resolved recipe has every field
        beside = any(getattr(self, key) is not None for key in lessons.KEYS)
        unused = ("loss", "temperature") if beside else ("teacher", "teacher_weights", "loss", "temperature")
        for name in unused if self.alpha == 0 else ():
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is of no use with alpha = 0, which learns from labels alone; leave it out")

    @property
    def _beside_looks_inside(self) -> bool:
        """`Beside.looks_inside`, without the engine."""
        inside = self.relational is not None and self.relational.on == "features"
        return self.hints is not None or self.attention is not None or inside

    @property
    def _teachers(self) -> tuple[OwnTeacher, ...]:
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    def run(self, model: Model, context: PassContext) -> PassResult:
        """A trained copy.

        InputError: no train split, no original, other classes than the teacher's or the data's, patience without a
        selection split, or a loss that is no number. UnsupportedError: not one image in and one decision out, or a
        random view of an input that is no image.
        """
        from toolkit.engine.train import fit

        teachers, train = self._checked(model, context)
        seen = self._images(train, model.signature.inputs[0].name, context)
        how = self._teaching(model, context)
        result = fit(
            model.graph,
            self._taught_by(teachers, model),
            seen.rows,
            seen.labels,
            how=how,
            evaluate=evaluation(model, context),
            watch=self._watch(model, context),
            checkpoint=kept(context),
        )
        kept_so = (*still_zero(model, result.model), *still_shared(model, result.model))
        changes = (self._summary(result, seen), *thawed(model.graph), *kept_so, *lessons.compared(result.matches))
        return PassResult(replace(model, graph=result.model), changes, result.curves)

    def _checked(self, model: Model, context: PassContext) -> tuple[tuple[Model, ...], Dataset]:
        """Teachers and train split, when this model and this recipe can be distilled."""
        train = context.train
        teachers = tuple(self._who_teaches(name, context) for name in self._teachers)
        if train is None:
            raise InputError(self.called, "there is no train split", "set data.splits.train")
        if self.patience and context.evaluate is None:
            raise InputError(
                f"{self.called}.patience", "there is no selection split to judge epochs on", "set one, or 0"
            )
        ends = len(model.graph.inputs), len(model.graph.outputs)
        if ends != (1, 1):
            problem = f"needs one input and one output, got {ends[0]} inputs, {ends[1]} outputs"
            raise UnsupportedError(self.called, problem)
        if self.augment != "none" and len(model.graph.inputs[0].shape) != 4:
            problem = f"needs images, the model's input has shape {model.signature.inputs[0].shape}"
            raise UnsupportedError(f"{self.called}.augment {self.augment!r}", problem, 'set augment = "none"')
        if self._more(context) is not None and self.no_unlabelled:
            key, problem = self.no_unlabelled
            raise UnsupportedError(f"{self.called}.{key}", problem, "set unlabelled = false")
        for teacher in teachers:
            self._check_same_images(model, teacher)
            self._check_outputs(model, teacher, train)
            self._check_rounded(model, teacher, train)
        with lessons.named(self.called):
            lessons.check(model, teachers, self._beside)
        return teachers, train

    @property
    def _beside(self) -> Beside:
        return lessons.beside(self.hints, self.attention, self.relational)

    def _taught_by(self, teachers: tuple[Model, ...], model: Model) -> Teacher:
        """The teachers as one whom the training engine asks."""
        from toolkit.engine.teacher import together
        from toolkit.engine.teaching import policy_of

        found = [as_teacher(teacher, policy_of(self.precision)) for teacher in teachers]
        return found[0] if len(found) == 1 else together(found, self._shares, self._target(model))

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.teacher_weights or (1.0,) * len(self._teachers)

    def _check_same_images(self, student: Model, teacher: Model) -> None:
        """Raise where teacher and student do not take images of one size."""
        ours, theirs = (_sides(model.signature.inputs[0]) for model in (student, teacher))
        pairs = zip(ours, theirs, strict=False)
        if len(ours) != len(theirs) or any(None not in pair and len(set(pair)) > 1 for pair in pairs):
            problem = f"takes inputs of {list(theirs)}, the student of {list(ours)}"
            raise InputError(f"{self.called}.teacher", problem)

    def _check_outputs(self, model: Model, teacher: Model, train: Dataset) -> None:
        """Raise where student, teacher and labels do not speak of the same things."""
        if _kind(model) != _kind(teacher):
            raise InputError(self.called, f"the student's head is {model.head}, the teacher's {teacher.head}")
        what = "classes" if model.head in DECIDING else "outputs"
        ours, theirs, data = _columns(model), _columns(teacher), len(train.classes)
        if ours != theirs:
            raise InputError(self.called, f"the student has {ours} {what}, the teacher {theirs}")
        if model.head == "embedding":
            if "alpha" in self.model_fields_set and self.alpha < 1:
                problem = f"no label says what an embedding should be, got {self.alpha:g}"
                raise InputError(f"{self.called}.alpha", problem, "set alpha = 1, or leave it out")
            return
        wanted = TASKS.get(model.head, "classes")
        if self.alpha < 1 and train.task != wanted:
            problem = f"the head {model.head} learns from {wanted}, the data has {train.task}"
            raise InputError(self.called, problem, "set alpha = 1 to learn from the teacher alone")
        if train.task == wanted and data and data != ours:
            raise InputError(self.called, f"the model has {ours} {what}, the data has {data}")

    def _check_rounded(self, model: Model, teacher: Model, train: Dataset) -> None:
        """Raise where a quantized file gives probabilities of 0: no logit can be found again from them."""
        if teacher.kind == "keras" or teacher.quant.scheme == "float32" or teacher.head not in PROBABILITIES:
            return
        some = next(iter(train.batches(LOOKED_AT))).inputs[model.signature.inputs[0].name]
        answers = as_teacher(teacher).answers(some)
        if (answers == 0).any():
            share = float((answers == 0).mean())
            problem = (
                f"{teacher.graph} is {teacher.quant.scheme}, and {share:.0%} of its probabilities are rounded to 0"
            )
            fix = "name the float model that it was made from, or a file that gives logits"
            raise InputError(f"{self.called}.teacher", problem, fix)

    def _who_teaches(self, name: OwnTeacher, context: PassContext) -> Model:
        """The original, or the other model of that path."""
        if name == "original":
            if context.original is None:
                raise InputError(self.called, "there is no original to teach", "run it from a recipe")
            return context.original
        if context.load is None:
            raise InputError(f"{self.called}.teacher", "nothing here can read a model file", "run it from a recipe")
        teacher = context.load(Path(name))
        if len(teacher.signature.inputs) != 1:
            problem = f"the teacher needs one input, got {len(teacher.signature.inputs)} inputs"
            raise UnsupportedError(str(name), problem)
        return teacher

    def _images(self, train: Dataset, name: str, context: PassContext) -> Seen:
        more = " and the images without labels" if self._more(context) is not None else ""
        context.emit(Progress(f"  {self.called}: reading the train split{more}"))
        return images.read(train, self._more(context), name)

    def _more(self, context: PassContext) -> Dataset | None:
        """The images without labels that it learns from, too."""
        return context.unlabelled if self.unlabelled else None

    def _count(self, context: PassContext) -> int:
        """How many images it learns from."""
        return len(context.train or ()) + len(self._more(context) or ())

    @property
    def no_unlabelled(self) -> tuple[str, str] | None:
        """Why it cannot learn from images without labels (a key, what is wrong with it); None where it can."""
        if getattr(self, "backend", "native") == "tfmot":
            return "backend 'tfmot'", "learns from labelled images alone"
        if self.alpha == 0 and not any(getattr(self, key) for key in lessons.KEYS):
            return "alpha = 0", "learns from labels alone, and data.unlabelled has none"
        return None

    def _target(self, model: Model) -> Target:
        from toolkit.engine.loss import Target

        alpha = 1.0 if model.head == "embedding" else self.alpha
        closeness = "squared" if self.loss == "mse" else "cosine"
        return Target(temperature=self.temperature, alpha=alpha, closeness=closeness, divergence=self.loss)

    def _teaching(self, model: Model, context: PassContext) -> Teaching:
        from toolkit.engine.teaching import Teaching

        own = self.model_dump(include={"epochs", "batch_size", "learning_rate", "augment", "patience", "precision"})
        return Teaching(
            **own,
            head=model.head,
            target=self._target(model),
            beside=self._beside,
            judged_by=self._judged_by(model, context),
            sparsity=kept_zeros(model),
            sharing=kept_codebooks(model),
            seed=context.seed,
        )

    def _judged_by(self, model: Model, context: PassContext) -> Literal["score", "loss"]:
        """What tells epochs apart on selection."""
        return "score"

    def _watch(self, model: Model, context: PassContext) -> Watch:
        from toolkit.engine.pace import Pace
        from toolkit.engine.train import Watch

        every = -(-self.epochs // KEPT_LINES)
        judged = self._teaching(model, context).judgement.removeprefix("selection_")
        pace = Pace(self.epochs, judged=judged)

        def epoch(number: int, loss: float, score: float | None) -> None:
            keep = number % every == 0 or number == self.epochs
            context.emit(
                Progress(f"  {self.called}: {pace.epoch(number, loss, score)}", number / self.epochs, keep=keep)
            )

        def step(number: int, share: float, loss: float) -> None:
            text = f"  {self.called}: {pace.step(number, share, loss)}"
            context.emit(Progress(text, pace.fraction(number, share)))

        return Watch(pace.begin, epoch, step)

    def _summary(self, result: TrainResult, seen: Seen) -> LayerChange:
        """The line about the whole model."""
        epochs = len(result.curves["loss"])
        work = f"{epochs} epochs of {result.steps} steps; {seen.words}{_last(result)}"
        if result.before is None:
            unknown = "accuracy not evaluated (no selection split)"
            return LayerChange("the model", unknown, unknown, f"the last epoch is kept; {work}")
        name = next(name for name in result.curves if name.startswith("selection"))
        scores, share = (result.before, *result.curves[name]), name == "selection_accuracy"
        kept = f"epoch {result.best_epoch} is kept, the best on selection"
        if result.best_epoch == 0:
            kept = "no epoch is as good as the model as it came, whose weights stay"
        shown = (f"{scores[i]:.2%}" if share else f"{scores[i]:.4g}" for i in (0, result.best_epoch))
        before, after = (f"{name.replace('_', ' ')} {text}" for text in shown)
        return LayerChange("the model", before, after, f"{kept}; {work}")


def _last(result: TrainResult) -> str:
    """The parts of the loss in the last epoch, where it has several."""
    parts = {name.removesuffix("_loss"): line[-1] for name, line in result.curves.items() if name.endswith("_loss")}
    parts.pop("selection", None)
    words = " + ".join(f"{name} {value:.3g}" for name, value in parts.items())
    return f"; loss at the end {result.curves['loss'][-1]:.3g} = {words}" if parts else ""


def kept_zeros(model: Model) -> Sparsity | None:
    """What training must leave at zero."""
    from toolkit.engine.sparsity import Sparsity

    return Sparsity(tuple(model.sparse)) if model.sparse else None


def still_zero(model: Model, graph: Any) -> tuple[LayerChange, ...]:
    """The line about the zeros of a model that came with some, counted again."""
    from toolkit.engine.sparsity import zeros

    if not model.sparse:
        return ()
    before, after = (sum(row.zeros for row in zeros(x, tuple(model.sparse))) for x in (model.graph, graph))
    layers = f"{len(model.sparse)} sparse layers"
    return (LayerChange(layers, f"{before:,} zeros", f"{after:,} zeros", "what was zero stays zero"),)


def kept_codebooks(model: Model) -> Sharing | None:
    """Which weights training must leave with one value."""
    from toolkit.engine.clusters import Sharing, kernels

    if not model.clustered:
        return None
    return Sharing(held=dict(model.clustered), zeros=tuple(model.sparse), like=kernels(model.graph, model.clustered))


def still_shared(model: Model, graph: Any) -> tuple[LayerChange, ...]:
    """The line about the codebooks of a model that came with some, counted again."""
    from toolkit.engine.clusters import still

    if not model.clustered:
        return ()
    after = still(graph, model.clustered)
    left = [name for name, codebook in after.items() if codebook == model.clustered[name]]
    apart = [name for name in after if name not in left]
    words = [f"{len(names)} {what}" for names, what in ((left, "as they were"), (apart, APART)) if names]
    reason = "weights that share a value go on sharing it"
    return (LayerChange(f"{len(model.clustered)} clustered layers", "few values", "; ".join(words) or "lost", reason),)


def kept(context: PassContext) -> Checkpoint | None:
    """Where this training keeps its state, to go on from."""
    from toolkit.engine.checkpoint import Checkpoint

    return Checkpoint(context.checkpoint, context.key) if context.checkpoint else None


def evaluation(model: Model, context: PassContext) -> Callable[[Any], float] | None:
    evaluate = context.evaluate
    return None if evaluate is None else lambda graph: evaluate(replace(model, graph=graph))


def _columns(model: Model) -> int:
    """Classes the first output tells apart, 2 for one column; of other heads the columns themselves."""
    columns = _values(model)
    return 2 if columns == 1 and model.head in DECIDING else columns


def _kind(model: Model) -> str:
    """Heads that can be compared are of one kind."""
    return "decision" if model.head in DECIDING else model.head


def _values(model: Model) -> int:
    from math import prod

    return prod(size or 1 for size in model.signature.outputs[0].shape[1:])


def as_teacher(teacher: Model, dtype: str | None = None) -> Teacher:
    """The teacher as the training engine asks it; one that is a Keras graph computes by this policy of Keras."""
    from toolkit.engine import foreign
    from toolkit.engine.teacher import of_graph, of_network

    if teacher.kind == "keras":
        return of_graph(teacher.graph, teacher.head, dtype)
    (image,), outputs = teacher.signature.inputs, teacher.signature.outputs
    port, names = foreign.Port(image.name, image.layout == "NCHW"), tuple(spec.name for spec in outputs)
    network = foreign.Network(teacher.kind, teacher.graph, (port,), names)
    return of_network(network, teacher.head, _values(teacher))


def _sides(spec: TensorSpec) -> tuple[int | None, ...]:
    """The shape of one example, channels last."""
    shape = spec.shape[1:]
    return (*shape[1:], shape[0]) if spec.layout == "NCHW" else shape


def thawed(graph: Any) -> tuple[LayerChange, ...]:
    """The line about layers that the model's file marks as frozen."""
    frozen = [layer.name for layer in graph.layers if layer.weights and not layer.trainable]
    if not frozen:
        return ()
    some = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
    reason = "a network that lost something has to adapt as a whole"
    return (LayerChange(f"{len(frozen)} frozen layers ({some})", "marked as frozen", "trained too", reason),)
