"""What int8 loses on real models, and how much corrections and quantization-aware training win back.

Beside TensorFlow's converter on the same 500 (ImageNet: 100) calibration images, all files taking turns for latency:
Edgekit's post-training int8, the same with `corrections`, and `qat`. Nothing is trained or chosen on the images
judged. CIFAR-10: training images calibrate and train, the first 2,000 test images choose the epoch (and the learning
rate, of several `--rates`) by the loss to the float model, the other 8,000 are judged. ImageNet has no images to train
on: of the corrections one is chosen by agreement with the float model on calibration images held out, two halves in
turn, without a label; then the 200 evaluation images say what share of TensorFlow's loss in agreement it wins back.
`--mixed` (ImageNet) leaves the softmax and the first layers in float besides: as many as give the highest SQNR on
held-out calibration images, within 1.25 times the latency and size of TensorFlow's file.

    python benchmarks/recovery.py --data DIR [--models NAME ...] [--train N] [--epochs N] [--rates RATE ...]
                                  [--flavours asymmetric symmetric]
                                  [--batchnorm frozen corrected] [--last] [--among "" bias ...] [--mixed]
                                  [--files DIR] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import peers_int8 as side
from peers import here

from toolkit.core import ExportContext, Model, PassContext
from toolkit.engine.bias_correction import called_once
from toolkit.engine.numeric import decisions, difference
from toolkit.engine.predict import predict_arrays
from toolkit.engine.prepare import prepare
from toolkit.engine.statistics import bootstrap_mean, wilson
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.passes.qat import Qat
from toolkit.sources.keras import Keras

CORRECTIONS = ("", "bias", "equalize,bias", "gptq,bias", "adaround,bias")  # what is chosen among, cheapest first
RATE = float(Qat.model_fields["learning_rate"].default)
RESAMPLES = 10_000
FIRST = (5, 9, 13, 17)  # layers from the start; each ends a block of a depthwise network
BUDGET = 1.25  # of TensorFlow's latency, and of its size
TENSORFLOW, TRAINED = "TensorFlow int8", "Edgekit `qat`"


@dataclass(frozen=True)
class Work:
    """One model and its images; train and selection are none of those judged.

    last: keep the last epoch, and choose nothing.
    """

    model: Model
    judged: side.Data
    train: Any
    selection: Any
    last: bool = False

    @property
    def input(self) -> str:
        return self.model.signature.inputs[0].name

    def context(self) -> PassContext:
        """What training sees: the epoch is chosen by the loss to the float model on the selection images."""
        train, selection = (here.Images(self.input, images) for images in (self.train, self.selection))
        return PassContext(
            original=self.model,
            train=train,
            selection=None if self.last else selection,
            emit=lambda told: print(told.text, file=sys.stderr) if told.keep else None,
        )


@dataclass(frozen=True)
class Taught:
    """A training. loss: on the selection images, of the best epoch."""

    result: Any
    loss: float
    seconds: float  # of processors
    text: str


def work(name: str, data: Path, args: argparse.Namespace) -> Work:
    model = Keras().load(data / "models" / f"{name}.keras")
    if name in side.IMAGENET:
        return Work(model, side.imagenet(data / "data", args.images), *(np.zeros(0),) * 2)
    train, test = (np.load(data / "data" / f"cifar10_jpeg_{part}.npz") for part in ("train50k", "test10k"))
    first = np.arange(side.SELECTION)
    return Work(
        model,
        side.cifar(data / "data", args.images),
        side.decoded(train, np.arange(args.train)),
        side.decoded(test, first),
        args.last,
    )


# ---------------------------------------------------------------- files


def training(given: Work, args: argparse.Namespace, **options: Any) -> Taught:
    """`qat` with the rate that is best on the selection images."""
    rates = (Qat(epochs=args.epochs, learning_rate=rate, **options) for rate in args.rates)
    return min((_trained(given, how) for how in rates), key=lambda one: one.loss)


def _trained(given: Work, how: Qat) -> Taught:
    started = time.process_time()
    result = how.run(given.model, given.context())
    seconds = time.process_time() - started
    told, losses = result.changes[0], result.curves.get("selection_loss", (0.0,))
    text = f"{how.batchnorm} BatchNormalization, {len(given.train):,} x {how.epochs}, rate {how.learning_rate:g}"
    text += ", last epoch" if given.last else ""
    print(
        f"  qat {text}: {told.before} -> {told.after}; epochs {losses}; {told.reason}; {seconds:.0f} s", file=sys.stderr
    )
    return Taught(result, min(losses), seconds, text)


def written(taught: Taught, exporter: Any) -> here.Peer:
    """The trained model's file: nothing is calibrated."""

    def make(given: here.Given, path: Path) -> None:
        exporter.export(taught.result.model, path, ExportContext())

    return here.Peer(f"{TRAINED}, {taught.text}", exporter.suffix, make)


def post_training(text: str, exporter: Any, **options: Any) -> here.Peer:
    return here.Peer(text, exporter.suffix, here.edgekit(exporter, **options))


def peers(given: Work, args: argparse.Namespace) -> dict[here.Peer, float]:
    """What is compared, and the seconds of its training."""
    found = {here.Peer(TENSORFLOW, ".tflite", here.tensorflow(len(given.judged.calibration))): 0.0}
    for flavour in args.flavours:
        exporter: Any = TFLite() if flavour == "asymmetric" else ONNX(dynamic_batch=True)
        more = {} if flavour == "asymmetric" else {"flavour": flavour}
        label = f"Edgekit int8{'' if flavour == 'asymmetric' else ', symmetric'}"
        found[post_training(label, exporter, **more)] = 0.0
        if len(given.train):
            found[post_training(f'{label}, `corrections = ["bias"]`', exporter, corrections=("bias",), **more)] = 0.0
            for norm in args.batchnorm:
                taught = training(given, args, flavour=flavour, batchnorm=norm)
                found[written(taught, exporter)] = taught.seconds
        else:
            chosen = choice(given, exporter, args.among, more)
            name = f"{label}, `corrections = {list(chosen)}`, chosen".replace("'", '"')
            found[post_training(name, exporter, corrections=chosen, **more)] = 0.0
            if args.mixed:
                layers = mix(given, exporter, {**more, "corrections": chosen})
                found[
                    post_training(f"{name}; {len(layers)} layers in float", exporter, corrections=chosen, layers=layers)
                ] = 0.0
    return found


# ---------------------------------------------------------------- choosing without labels


def choice(given: Work, exporter: Any, among: list[str], more: dict[str, Any]) -> tuple[str, ...]:
    """The corrections whose file agrees most with the float model on calibration images it has not seen.

    Each half of the images is held out once; the first of equals, which is the cheaper.
    """
    agreed = {}
    for names in (tuple(text.split(",")) if text else () for text in among):
        agreed[names] = share, sqnr = _held_out(given, exporter, {**more, "corrections": names})
        print(f"  held out, {list(names)}: agreement {100 * share:.1f}%, {sqnr:.1f} dB", file=sys.stderr)
    return max(agreed, key=lambda one: agreed[one][0])


def _held_out(given: Work, exporter: Any, options: dict[str, Any]) -> tuple[float, float]:
    """Agreement, and SQNR of logits, over both halves."""
    images = given.judged.calibration
    middle, head = len(images) // 2, given.model.head
    outputs = np.concatenate(
        [
            _answers(given, exporter, options, (images[:middle], images[middle:])),
            _answers(given, exporter, options, (images[middle:], images[:middle])),
        ]
    )
    held = np.concatenate([images[middle:], images[:middle]])
    wanted = predict_arrays(given.model.graph, {given.input: held})[0]
    same = decisions(outputs, head) == decisions(wanted, head)
    return float(same.mean()), difference(wanted, outputs, head).logits_sqnr_db


def _answers(given: Work, exporter: Any, options: dict[str, Any], halves: tuple[Any, Any]) -> Any:
    """What a file calibrated on the first half answers on the second."""
    return _calibrated(given, here.edgekit(exporter, **options), *halves, exporter.suffix)


def _calibrated(given: Work, make: Any, calibration: Any, images: Any, suffix: str) -> Any:
    """What a file made with some images answers on others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"held{suffix}"
        make(here.Given(given.model, path, path, calibration), path)
        return side.RUN[suffix](path)(images)


def mix(given: Work, exporter: Any, options: dict[str, Any]) -> dict[str, str]:
    """`layers`: the softmax and the first layers in float, so many as are best by SQNR, held out, within BUDGET."""
    graph = prepare(given.model.graph).graph
    names, last = called_once(graph), graph.output._keras_history.operation.name
    best: tuple[float, dict[str, str]] = (-np.inf, {})
    with tempfile.TemporaryDirectory() as folder:
        start = here.Given(given.model, Path(folder), Path(folder), given.judged.calibration)
        theirs, mine = (Path(folder) / f"{name}.tflite" for name in ("theirs", "mine"))
        here.tensorflow(len(start.images))(start, theirs)
        for count in (0, *FIRST):
            layers = dict.fromkeys((*names[:count], last), "float32")
            here.edgekit(exporter, **options, layers=layers)(replace(start, passed={}), mine)
            slower, larger = _cost(theirs, mine, start.images[:1])
            within = max(slower, larger) <= BUDGET
            share, sqnr = _held_out(given, exporter, {**options, "layers": layers}) if within else (np.nan, -np.inf)
            words = f"{count} first layers in float: {slower:.3f} times the latency, {larger:.3f} times the size"
            print(f"  held out, {words}, agreement {100 * share:.1f}%, {sqnr:.2f} dB", file=sys.stderr)
            if not within:  # more layers cost more
                break
            best = max(best, (sqnr, layers), key=lambda one: one[0])
    return best[1]


def _cost(theirs: Path, mine: Path, image: Any) -> tuple[float, float]:
    """Latency, the files taking turns, and size of one file, of the other's."""
    one, two = side.best_ms([theirs, mine], image)
    return two / one, mine.stat().st_size / theirs.stat().st_size


def crossed(given: Work) -> str:
    """What the shipped recipe's file wins back of TensorFlow's loss on all images there are, in three parts.

    Each part is judged by files that were calibrated on the next one: as many images as otherwise, and every image
    judged once, so that the interval is narrower than that of the evaluation images alone.
    """
    images = np.concatenate([given.judged.calibration, given.judged.images])
    parts = np.array_split(np.random.default_rng(0).permutation(len(images)), 3)
    wanted = decisions(predict_arrays(given.model.graph, {given.input: images})[0], given.model.head)
    same = {name: np.zeros(len(images), bool) for name in ("theirs", "mine")}
    for part, other in zip(parts, (*parts[1:], parts[0]), strict=True):
        makers = {"theirs": here.tensorflow(len(other)), "mine": here.edgekit(TFLite(), corrections=("bias",))}
        for name, make in makers.items():
            outputs = _calibrated(given, make, images[other], images[part], ".tflite")
            same[name][part] = decisions(outputs, given.model.head) == wanted[part]
    low, high = _share(same["mine"], same["theirs"])
    theirs, mine = (f"{100 * same[name].mean():.1f}%" for name in ("theirs", "mine"))
    won = f"{100 * _ratio(same['mine'], same['theirs']):.0f}% is won back ({100 * low:.0f} to {100 * high:.0f})"
    which = f"All {len(images)} images, each judged by files calibrated on {len(parts[0])} others"
    return f"- {which}: TensorFlow's agree on {theirs}, Edgekit's with corrected biases on {mine}; {won}."


# ---------------------------------------------------------------- tables


def compare(name: str, given: Work, args: argparse.Namespace, folder: Path) -> list[str]:
    """The lines of one model's table."""
    reference = folder / f"{name}_float.tflite"
    TFLite().export(given.model, reference, ExportContext())
    start = here.Given(given.model, reference, reference, given.judged.calibration)
    times = peers(given, args)
    rows = [side.Row(None, "float", ".tflite", reference, 0.0)]
    rows += [_made(peer, start, folder / f"{name}_{_slug(peer)}{peer.suffix}") for peer in times]
    rows = [side.judged(row, given.judged) for row in rows]
    if failed := [row for row in rows if row.failed]:
        raise SystemExit(f"{name}, {failed[0].name}: {failed[0].failed}")
    best = side.best_ms([row.path for row in rows], given.judged.images[:1])
    seconds = [0.0, *times.values()]
    lines = [
        f"### {name}",
        "",
        f"{len(given.judged.calibration)} calibration images, {len(given.judged.labels)} judged.",
    ]
    lines += ["", "| file | top-1 % | lost to float, points | agreement % | logit SQNR dB | time to TensorFlow's "]
    lines[-1] += "| size to TensorFlow's | training, CPU s |"
    lines += ["|---|---|---|---|---|---|---|---|"]
    facts = list(zip(rows, best, seconds, strict=True))
    sizes = [row.path.stat().st_size / rows[1].path.stat().st_size for row in rows]
    lines += [
        _line(row, rows[0], given, (ms / best[1], size, trained))
        for (row, ms, trained), size in zip(facts, sizes, strict=True)
    ]
    more = [] if len(given.train) or args.mixed else [crossed(given)]
    return [*lines, "", *_won_back(rows, given), *more, ""]


def _slug(peer: here.Peer) -> str:
    return "_".join(re.findall("[a-z0-9]+", peer.name.lower()))


def _made(peer: here.Peer, start: here.Given, path: Path) -> side.Row:
    """A file that is there from an earlier run (--files) is taken as it is; what was trained is of this run."""
    if path.exists() and not peer.name.startswith(TRAINED):
        return side.Row(peer, peer.name, peer.suffix, path, 0.0)
    return side.made(peer, start, path)


def _line(row: side.Row, reference: side.Row, given: Work, numbers: tuple[float, float, float]) -> str:
    ratio, size, trained = numbers
    head, labels = given.model.head, given.judged.labels
    right, float_right = (decisions(one.outputs, head) == labels for one in (row, reference))
    same = decisions(row.outputs, head) == decisions(reference.outputs, head)
    share, agreed = (wilson(int(x.sum()), len(x), side.CONFIDENCE) for x in (right, same))
    is_float = row is reference
    cells = (
        f"{row.name} ({row.suffix})",
        f"{100 * right.mean():.2f} ({100 * float(share.low):.1f} to {100 * float(share.high):.1f})",
        "" if is_float else side.lost(float_right, right),
        ""
        if is_float
        else f"{100 * same.mean():.2f} ({100 * float(agreed.low):.1f} to {100 * float(agreed.high):.1f})",
        "" if is_float else f"{difference(reference.outputs, row.outputs, head).logits_sqnr_db:.1f}",
        f"{ratio:.2f}" if row.suffix == ".tflite" else "",
        f"{size:.2f}",
        f"{trained:.0f}" if trained else "",
    )
    return "| " + " | ".join(cells) + " |"


def _won_back(rows: list[side.Row], given: Work) -> list[str]:
    """For each file, the share of TensorFlow's loss in agreement that it has not, with a bootstrap interval."""
    wanted = decisions(rows[0].outputs, given.model.head)
    theirs = decisions(rows[1].outputs, given.model.head) == wanted
    lines = []
    for row in rows[2:]:
        mine = decisions(row.outputs, given.model.head) == wanted
        more = bootstrap_mean(mine.astype(float) - theirs, side.CONFIDENCE, seed=0)
        low, high = _share(mine, theirs)
        lines += [
            f"- {row.name}: agreement {100 * (mine.mean() - theirs.mean()):+.2f} points beside TensorFlow's "
            f"({100 * more.low:+.2f} to {100 * more.high:+.2f}); of what TensorFlow's loses, "
            f"{100 * _ratio(mine, theirs):.0f}% is won back ({100 * low:.0f} to {100 * high:.0f})."
        ]
    return lines


def _ratio(mine: Any, theirs: Any) -> Any:
    """Share of a loss in agreement that is won back."""
    return (mine.mean(axis=-1) - theirs.mean(axis=-1)) / np.maximum(1 - theirs.mean(axis=-1), 1e-9)


def _share(mine: Any, theirs: Any) -> tuple[float, float]:
    """Percentile interval of `_ratio`, over images drawn with replacement."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(mine), len(mine)) for _ in range(RESAMPLES))
    ratios = [_ratio(mine[rows], theirs[rows]) for rows in draws]
    tail = (1 - side.CONFIDENCE) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with models/ and data/")
    every = [*side.CIFAR, *side.IMAGENET]
    parser.add_argument("--models", nargs="+", default=every, choices=every)
    parser.add_argument("--images", type=int, default=8000, help="images judged on; ImageNet has 200")
    parser.add_argument("--train", type=int, default=10_000, help="training images, of 50,000")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[RATE], help="learning rates to choose among")
    parser.add_argument("--last", action="store_true", help="keep the last epoch, whatever the selection images say")
    norms = ["frozen", "corrected"]
    parser.add_argument("--batchnorm", nargs="+", default=norms, choices=norms, help="each trains once")
    parser.add_argument("--flavours", nargs="+", default=["asymmetric"], choices=["asymmetric", "symmetric"])
    parser.add_argument("--among", nargs="+", default=CORRECTIONS, help="corrections to choose among (ImageNet)")
    parser.add_argument("--mixed", action="store_true", help="a further file with its first layers in float (ImageNet)")
    parser.add_argument("--files", type=Path, help="where the files are kept, and taken from")
    parser.add_argument("--out", type=Path, help="where the tables are written, too")
    args = parser.parse_args()
    if not args.data:
        print("skipped: name the folder of trained models and images (--data)")
        return
    if not (args.data / "models").is_dir():
        raise SystemExit(f"--data {args.data}: there is no folder models in it.")
    if args.mixed and (set(args.models) - set(side.IMAGENET) or args.flavours != ["asymmetric"]):
        raise SystemExit(f"--mixed is for {', '.join(side.IMAGENET)}, asymmetric: name --models, leave --flavours out.")
    if args.last and len(args.rates) > 1:
        raise SystemExit("--last chooses nothing: give one of --rates.")
    if not 64 <= args.train <= 50_000:
        raise SystemExit(f"--train {args.train}: there are 50,000 training images, and a batch takes 64.")
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            print(name, file=sys.stderr)
            lines += compare(name, work(name, args.data, args), args, folder)
            if args.out:
                args.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
