"""Structured pruning: whole channels leave the network, so that it is smaller and faster on every runtime.

Channels that depend on each other go together (DepGraph, Fang et al., CVPR 2023, arXiv:2301.12900), the least important
first, down to a target; in one go or in steps, with training from the original in between and after (`recover`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult, Progress
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import prune_changes, prune_curves, prune_steps
from toolkit.passes.distill import DECIDING, TASKS, Distill
from toolkit.passes.prune_choose import Choice, choose
from toolkit.passes.prune_target import Cut, Target
from toolkit.schema import Component
from toolkit.traits import SHAPE, Trait

if TYPE_CHECKING:
    from toolkit.core import Array, Dataset
    from toolkit.engine.groups import Group
    from toolkit.engine.importance import Renewed
    from toolkit.engine.samples import Samples
    from toolkit.engine.widths import Rounding

_IMAGES = 2048  # for new statistics: 1,000 to 10,000 are enough (Wu and Johnson 2021, arXiv:2105.07576, section 3)
_BATCH = 64  # images; large enough for a batch's own statistics to normalize well (same source)
_SCORED = 512  # images that importance looks at
_REFITTED = 1024  # images that layers are refitted on, at most: as many as the figures of docs/prune.md
NEEDS_IMAGES = ("taylor", "fisher", "activation", "reconstruction")
NEEDS_LOSS = ("taylor", "fisher")
TARGETS = ("sparsity", "macs", "parameters", "size", "size_kib", "latency", "latency_ms")

Share = Annotated[float, Field(gt=0, lt=1)]
Amount = Annotated[float, Field(gt=0)]


class Recover(Distill):
    """Trains what is left of the network, with the original as teacher."""

    called: ClassVar[str] = "prune.recover"


class Prune(Component):
    """Removes the least important channels of a Keras model, down to a target.

    Give exactly one: `sparsity`, `macs`, `parameters`, `size`, `size_kib`, `latency` or `latency_ms`.
    """

    takes: ClassVar[tuple[str, ...]] = ("keras",)
    makes: ClassVar[frozenset[Trait]] = frozenset({"narrow"})

    sparsity: Share | None = None
    """Share of the channels to remove: of each group, or with `ranking = "global"` of all."""
    macs: Share | None = None
    """Share of the model's multiply-accumulates that should remain."""
    parameters: Share | None = None
    """Share of the model's parameters that should remain."""
    size: Share | None = None
    """Share of its size as a float32 file that should remain at most."""
    size_kib: Amount | None = None
    """The most its float32 file may have, in KiB."""
    latency: Share | None = None
    """Share of its latency as a float32 file on `device` that should remain at most."""
    latency_ms: Amount | None = None
    """The longest its float32 file may take on `device`, in milliseconds."""
    device: str = ""
    """Where latency counts: a device profile of `targets`, or a shipped one; timed within reach, else estimated. A
    global ranking to `latency` or `macs` weighs steps by what its kernels compute."""
    importance: Literal["l2", "l1", "bn_gamma", "taylor", "fisher", "activation", "reconstruction", "random"] = "l2"
    """What a channel is worth: by its weights (l2, l1, bn_gamma), by images (taylor, fisher, activation,
    reconstruction), or random."""
    ranking: Literal["local", "global", "sensitivity"] = "local"
    """local: one sparsity for all groups; global: what costs least importance for what it saves, over all of them;
    sensitivity: global, with scores that add up to each group's loss as measured on the selection split."""
    normalization: Literal["auto", "none", "mean", "max", "l2", "lamp"] = "auto"
    """How scores are made comparable between weights and groups; auto: as suits the importance."""
    reconstruct: bool = False
    """Refit the layers behind removed channels by least squares, on images of train (else calibration)."""
    round_to: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 8
    """Kept channels are a multiple of this; a smaller group keeps all. auto: as the devices' kernels have it."""
    min_channels: Annotated[int, Field(ge=1)] = 1
    """No group is left with fewer channels."""
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """No group is left with a smaller share of its channels in one step."""
    protect: tuple[str, ...] = ()
    """Name patterns (`*` and `?`) of layers whose output channels stay whole, with all that is tied to them."""
    reestimate_batchnorm: bool = True
    """Renew BatchNormalization statistics afterwards, on images of the train (else the calibration) split."""
    steps: Annotated[int, Field(ge=1, le=100)] = 1
    """Cuts on the way to the target, each of the same share of what is left; scores are found anew for each."""
    recover: Recover | None = None
    """Training after the last cut, as the `distill` pass: { epochs = 10 }; none by default."""
    step_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Epochs of it after each cut but the last."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(TARGETS[:-1])} and {TARGETS[-1]}")
        if given[0].startswith("latency") and not self.device:
            raise ValueError(f"{given[0]} needs a device")
        used = given[0].startswith("latency") or self.weighs_tiles or self.round_to == "auto"
        if self.device and not used:
            local = ", or set ranking = 'global'" if given[0] == "macs" else ""
            raise ValueError(f"device says nothing to {given[0]} as it stands; leave it out{local}")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        if self.step_epochs > 1 and (self.recover is None or self.steps == 1):
            raise ValueError("step_epochs trains between steps: it needs recover and steps = 2 or more")
        if self.importance == "random" and self.normalization != "auto":
            raise ValueError("normalization says nothing to importance = 'random'; leave it out")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Splits it cannot do without, as it is set."""
        return ("train",) if self.recover is not None else ()

    @property
    def keeps(self) -> frozenset[Trait]:
        """What it leaves as earlier passes made it: single zeros, unless what is left is refitted."""
        return SHAPE if self.reconstruct else SHAPE | {"sparse"}

    def lacking(self, splits: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """(key, what is missing, fix) where it needs one of several splits and has none."""
        images, fix = {"train", "calibration"} & set(splits), "set data.splits.train or data.splits.calibration"
        if self.importance in NEEDS_IMAGES and not images:
            yield "importance", f"{self.importance} needs images", fix
        if self.reconstruct and not images:
            yield "reconstruct", "needs images", fix
        if self.ranking == "sensitivity" and "selection" not in splits:
            yield "ranking", "sensitivity needs the selection split", "set data.splits.selection"

    def run(self, model: Model, context: PassContext) -> PassResult:
        """Cut, renew, recover; as many times as there are steps.

        UnsupportedError: no channel can go, or the target cannot be reached. InputError: a pattern of `protect`
        matches no layer; images or labels are missing; whatever training says.
        """
        if (self.reconstruct and model.sparse) or set(model.sparse.values()) - {"unstructured"}:
            what = "refitting would fill its zeros" if self.reconstruct else "a cut would break its pattern of zeros"
            raise UnsupportedError("prune", f"the model is sparse: {what}", "prune first, then sparsify")
        if model.clustered:
            raise UnsupportedError("prune", "the model's weights are clustered already", "prune first, then cluster")
        context.emit(Progress("finding channel groups"))
        groups, rounding = self._protected(model.graph), self._rounding(context)
        work = _Work(model, model, groups, rounding, context)
        for number in range(1, self.steps + 1):
            work = self._step(work, number)
        left = {group.id: group.size for group in self._protected(work.model.graph)}
        if self.ranking != "local" and self.steps == 1 and (said := prune_changes.narrow(groups, left)):
            context.emit(Progress(said, keep=True))
        asked = f"asked for {self._target().words}" + (f": {work.found}" if work.found else "")
        if (tile := self._tile(context)) > 1:
            asked += f"; steps weighed by what kernels of {self.device} compute, {tile} channels at once"
        changes = (
            prune_changes.totals(model.graph, work.model.graph, asked),
            *prune_changes.layers(groups, left, rounding, even=self.ranking == "local"),
            *prune_changes.frozen(groups),
            *work.notes,
        )
        return PassResult(work.model, changes, work.curves)

    # ------------------------------------------------------------ what may go

    def _protected(self, graph: Any) -> list[Group]:
        """The groups, frozen where a layer that makes or carries their channels matches a pattern."""
        from toolkit.engine.groups import find_groups

        groups = find_groups(graph)
        self._check_patterns(graph, groups)
        return [self._protect(group) for group in groups]

    def _check_patterns(self, graph: Any, groups: Sequence[Group]) -> None:
        """Raise where a pattern of `protect` keeps nothing whole."""
        names = {layer.name for layer in graph.layers}
        own = {slot.layer for group in groups for slot in group.slots if slot.side != "in"}
        own |= {layer.name for layer in graph.layers if layer.weights}  # those that cannot be followed stay anyway
        unmatched, idle = (
            [pattern for pattern in self.protect if not any(fnmatchcase(name, pattern) for name in some)]
            for some in (names, own)
        )
        fix = "see `edgekit inspect` for the names of the model's layers"
        if unmatched:
            raise InputError("prune.protect", f"no layer is named like {', '.join(map(repr, unmatched))}", fix)
        if idle:
            problem = f"{', '.join(map(repr, idle))} names only layers without channels of their own"
            raise InputError("prune.protect", problem, "name the convolution or dense layer in front of them")

    def _protect(self, group: Group) -> Group:
        layers = [slot.layer for slot in group.slots if slot.side != "in"]
        hits = [(name, pattern) for pattern in self.protect for name in layers if fnmatchcase(name, pattern)]
        if not hits or group.frozen:
            return group
        return replace(group, frozen=f"{hits[0][0]!r} is protected by {hits[0][1]!r}")

    def _rounding(self, context: PassContext) -> Rounding:
        from toolkit.engine.widths import Rounding

        multiple = context.multiple if self.round_to == "auto" else self.round_to
        return Rounding(multiple, self.min_channels, self.min_share)

    @property
    def weighs_tiles(self) -> bool:
        """Whether steps are weighed by what the device's kernels compute, which make several channels at once."""
        return bool(self.device) and self.ranking != "local" and self._target().what in ("macs", "latency")

    def _tile(self, context: PassContext) -> int:
        return context.multiple if self.weighs_tiles else 1

    def _target(self) -> Target:
        if self.sparsity is not None:
            return Target("sparsity", 1 - self.sparsity)
        if self.size is not None or self.size_kib is not None:
            return Target("size", self.size, self.size_kib)
        if self.latency is not None or self.latency_ms is not None:
            return Target("latency", self.latency, self.latency_ms, self.device)
        if self.parameters is not None:
            return Target("parameters", self.parameters)
        return Target("macs", self.macs)

    # ------------------------------------------------------------ one step

    def _step(self, work: _Work, number: int) -> _Work:
        """Cut a part, renew what the cut has spoilt, train."""
        said = f"step {number} of {self.steps}: " if self.steps > 1 else ""
        kept = prune_steps.Kept.of(work.context, number)
        cut = kept.read() if kept else None
        work = self._settled(work)
        if cut is None:
            work.context.emit(Progress(f"{said}choosing channels", keep=bool(said)))
            choice, notes = self._choice(work, number)
            cut, work = choose(choice, work.context), work.after(work.model, notes, said)
            if kept:
                kept.write(cut)
        work = replace(work, goal=cut.goal, found=cut.found)
        if cut.removals:
            work.context.emit(Progress(f"{said}removing channels from {len(cut.removals)} groups"))
            graph, notes = self._cut(work, cut)
            work = work.after(replace(work.model, graph=graph), notes, said)
        if self.recover is None:
            return work
        last = number == self.steps
        training = self.recover if last else self.recover.model_copy(update={"epochs": self.step_epochs})
        result = training.run(work.model, prune_steps.training(work.context, number))
        return work.after(result.model, result.changes, said, result.curves)

    def _settled(self, work: _Work) -> _Work:
        """The same network with the statistics of these images: renewing them mends the cut, and nothing else."""
        from toolkit.engine.batchnorm import has_batchnorm, settle

        if not self.reestimate_batchnorm or _split(work.context) is None or not has_batchnorm(work.model.graph):
            return work
        work.context.emit(Progress("settling BatchNormalization statistics"))
        graph = settle(work.model.graph, self._samples(work, _IMAGES, "reestimate_batchnorm"))
        return replace(work, model=replace(work.model, graph=graph))

    def _choice(self, work: _Work, number: int) -> tuple[Choice, tuple[LayerChange, ...]]:
        """What a step chooses from, and what was found out for it."""
        groups = self._protected(work.model.graph)
        scores: Mapping[str, Array] = self._scores(work, groups)
        notes: tuple[LayerChange, ...] = ()
        if self.ranking == "sensitivity":
            scores, notes = prune_curves.measured(work.model, groups, scores, work.context)
        choice = Choice(
            original=work.original,
            current=work.model,
            groups=groups,
            scores=scores,
            whole=work.groups,
            target=self._target(),
            ranking="local" if self.ranking == "local" else "global",
            rounding=work.rounding,
            number=number,
            steps=self.steps,
            goal=work.goal,
            tile=self._tile(work.context),
        )
        return choice, notes

    def _scores(self, work: _Work, groups: Sequence[Group]) -> Mapping[str, Array]:
        """One score a channel of each group that is free."""
        from toolkit.engine.importance import scores

        model, seed = work.model, work.context.seed
        if self.importance in NEEDS_LOSS and model.head not in (*DECIDING, *TASKS):
            problem = f"needs a loss, and no label says what an output that means {model.head} should be"
            fix = "take activation or reconstruction, which look at no label"
            raise UnsupportedError(f"prune.importance {self.importance!r}", problem, fix)
        renewed: Renewed = "biases" if self.reconstruct else "statistics" if self.reestimate_batchnorm else "nothing"
        samples = None
        if self.importance in NEEDS_IMAGES:
            samples = self._samples(work, _SCORED, f"importance = {self.importance!r}")
        return scores(
            model.graph,
            groups,
            self.importance,
            samples=samples,
            head=model.head,
            seed=seed,
            normalization=None if self.normalization == "auto" else self.normalization,
            renewed=renewed,
        )

    def _samples(self, work: _Work, images: int, where: str) -> Samples:
        split = _split(work.context)
        if split is None:
            raise InputError(f"prune: {where}", "needs images", "set data.splits.train or data.splits.calibration")
        return _samples(split, work.model, images)

    def _cut(self, work: _Work, cut: Cut) -> tuple[Any, tuple[LayerChange, ...]]:
        """The network without the channels, what is behind them refitted if asked, its statistics renewed."""
        from toolkit.engine.surgery import remove

        if not self.reconstruct:
            return self._renew(remove(work.model.graph, cut.removals), work)
        from toolkit.engine.reconstruct import reconstruct

        samples = self._samples(work, _REFITTED, "reconstruct")
        work.context.emit(Progress("refitting the layers behind removed channels"))
        found = reconstruct(work.model.graph, cut.removals, samples, seed=work.context.seed)
        graph, notes = self._renew(found.graph, work)
        return graph, (*prune_changes.refitted(found.rows, found.images), *notes)

    def _renew(self, pruned: Any, work: _Work) -> tuple[Any, tuple[LayerChange, ...]]:
        """New BatchNormalization statistics, and the line that says on what, or why not."""
        from toolkit.engine.batchnorm import has_batchnorm, reestimate_batchnorm

        if not has_batchnorm(pruned):
            return pruned, ()
        context, split = work.context, _split(work.context)
        skipped = "reestimate_batchnorm = false" if not self.reestimate_batchnorm else "no train or calibration split"
        old = "statistics of the uncut model"
        if split is None or not self.reestimate_batchnorm:
            return pruned, (LayerChange("BatchNormalization", old, old, f"not re-estimated: {skipped}"),)
        context.emit(Progress("re-estimating BatchNormalization statistics"))
        renewed = reestimate_batchnorm(pruned, _inputs(split, work.model, _IMAGES))
        name = "train" if split is context.train else "calibration"
        used = f"re-estimated on {min(len(split), _IMAGES):,} images of {name}"
        return renewed, (LayerChange("BatchNormalization", old, used),)


@dataclass(frozen=True)
class _Work:
    """How far pruning is. groups: the original's; goal, found: of the last cut."""

    original: Model
    model: Model
    groups: Sequence[Group]
    rounding: Rounding
    context: PassContext
    goal: float | None = None
    found: str = ""
    notes: tuple[LayerChange, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def after(
        self,
        model: Model,
        notes: Sequence[LayerChange],
        said: str,
        curves: Mapping[str, tuple[float, ...]] = MappingProxyType({}),
    ) -> _Work:
        """With what one more thing did; curves go on where those of earlier steps end."""
        told = tuple(replace(note, layer=f"{said}{note.layer}") for note in notes)
        longer = {name: (*self.curves.get(name, ()), *line) for name, line in curves.items()}
        return replace(self, model=model, notes=(*self.notes, *told), curves={**self.curves, **longer})


def _split(context: PassContext) -> Dataset | None:
    """Where images are taken from."""
    return context.train if context.train is not None else context.calibration


def _inputs(split: Dataset, model: Model, images: int) -> Iterator[list[Array]]:
    """The model's inputs in its own order, for the first batches of a split (its order is drawn)."""
    names = [spec.name for spec in model.signature.inputs]
    for batch in islice(split.batches(_BATCH), -(-images // _BATCH)):
        yield [batch.inputs[name] for name in names]


def _samples(split: Dataset, model: Model, images: int) -> Samples:
    """The same with labels, where they are what the head decides on."""
    from toolkit.engine.samples import Sample

    labels = split.labels if TASKS.get(model.head, "classes") == split.task and model.head != "embedding" else None

    def samples() -> Iterator[Sample]:
        start = 0
        for inputs in _inputs(split, model, images):
            end = start + len(inputs[0])
            yield Sample(tuple(inputs), None if labels is None else labels[start:end])
            start = end

    return samples
