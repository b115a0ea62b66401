"""Every shipped recipe, run once on a real model: what its files weigh, lose and take, and what its gates say.

CIFAR-10 for recipes that are given a model: training images train and calibrate, 2,000 of the test images, drawn by the
recipe's seed, choose, others judge. TrashNet for `transfer-then-compress`, which makes its model on a backbone;
CIFAR-10 for `train-small`; scikit-learn's digits for `digits-demo`, whose CNN is trained first. Nothing is reached over
--ssh or --adb: answers and latency are of this machine, and what a device out of reach reads is as the run says it.

Each run has a folder in --files; one that is done is not run again, one that was cut short goes on. Minutes are its
stages' by the clock; a training that was cut short counts from the epoch it was taken up at.

    python benchmarks/recipes.py --data DIR --files DIR [--recipes NAME ...] [--model resnet20_cifar10_jpeg]
                                 [--train N] [--test N] [--epochs N] [--set RECIPE:KEY=VALUE ...] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from toolkit import pipeline, runs
from toolkit.devices import shipped
from toolkit.recipe import Recipe
from toolkit.recipe_reader import load_recipe

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("resnet20_cifar10_jpeg", "resnet8_cifar10_jpeg", "mnv2_cifar10_96")
BACKBONE = "mobilenet_v2_100_224_imagenet_from_int8"
SELECTION = 2000  # test images that choices may be made on
HERE, ORIGINAL = "this-machine", "original"
TRANSFER, DEMO, SMALL = "transfer-then-compress", "digits-demo", "train-small"


# ---------------------------------------------------------------- what to run


def given(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """What a recipe gets beside its name: model, data, changes."""
    models, data = args.data / "models", args.data / "data"
    if name == DEMO:
        return {"model": digits(args.files / "digits.keras")}
    if name == TRANSFER:
        parts = {"train": '"train"', "selection": '"val"', "test": '"test"'}
        parts["calibration"] = '{ from = "train", count = 100 }'
        changes = [f"train.backbone={models / f'{BACKBONE}.keras'}"]
        changes += [f"data.splits.{split}={part}" for split, part in parts.items()]
        return {"data": str(data / "trashnet6_160.npz"), "overrides": changes}
    changes = [f'data.held_out={{ path = "{data / "cifar10_jpeg_test10k.npz"}" }}']
    splits = {"train": args.train, "selection": SELECTION, "calibration": 500, "test": args.test}
    changes += [f"data.splits.{split}={count}" for split, count in splits.items()]
    more = {"data": str(data / "cifar10_jpeg_train50k.npz"), "overrides": changes}
    return more if name == SMALL else {**more, "model": models / f"{args.model}.keras"}


def digits(path: Path) -> Path:
    """The demo's CNN, trained as `make demo` does."""
    if not path.exists():
        command = [sys.executable, str(ROOT / "examples" / "train_digits.py"), "--out", str(path)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return path


def shorter(recipe: Recipe, epochs: int) -> Iterator[str]:
    """Changes that give every training so many epochs."""
    if recipe.train is not None:
        phases = ("features", "finetune") if recipe.train.backbone != "small" else ()
        yield from (f"train.{phase}.epochs={epochs}" for phase in phases)
        if not phases:
            yield f"train.epochs={epochs}"
    places = [("passes", recipe.passes), *((f"variants.{each.name}.passes", each.passes) for each in recipe.variants)]
    for place, steps in places:
        for number, step in enumerate(steps):
            if "epochs" in type(step.component).model_fields:
                yield f"{place}.{number}.epochs={epochs}"


def run(name: str, args: argparse.Namespace) -> Path:
    """The run's folder, done."""
    folder = args.files / name
    options = given(name, args)
    if folder.exists():
        if runs.read(folder).status != "done":
            pipeline.run(resume=folder, emit=told)
        return folder
    overrides = [*options.pop("overrides", []), *(text for key, text in args.set if key == name)]
    if args.epochs:
        overrides += shorter(load_recipe(name, overrides=overrides), args.epochs)
    pipeline.run(name, **options, overrides=overrides, out=folder, emit=told)
    return folder


def told(progress: Any) -> None:
    if progress.keep:
        print(f"{time.strftime('%H:%M:%S')} {progress.text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the table


def section(name: str, folder: Path) -> list[str]:
    found = runs.read(folder)
    original = next((row.name for row in found.artifacts if row.variant == ORIGINAL), "")
    source = Path(str(found.recipe["model"]["source"] or found.recipe["train"]["backbone"])).stem
    minutes = sum(stage.seconds for stage in found.stages) / 60
    counts = ", ".join(f"{record.split} {record.images:,}" for record in found.data)
    lines = [
        f"### {name}",
        "",
        f"{source}; {counts}; {minutes:.1f} minutes by the clock. The run: {found.outcome}.",
        "",
        "| file | KiB | gzip KiB | top-1 % | lost, points | agreement % | p50 here, ms | x faster here | verdicts |",
        "|---" * 9 + "|",
    ]
    rows = (cells(found, row.name, _beside(found, row, original)) for row in found.artifacts)
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _beside(found: runs.Manifest, row: runs.ArtifactRecord, original: str) -> str:
    """The original's file of the same format, else its first."""
    same = (each.name for each in found.artifacts if each.variant == ORIGINAL and each.format == row.format)
    return next(same, original)


def cells(found: runs.Manifest, artifact: str, original: str) -> tuple[str, ...]:
    top1, before = (number(found, name, "top1") for name in (artifact, original))
    here, there = (number(found, name, "latency_p50_ms") for name in (artifact, original))
    agreement, is_original = number(found, artifact, "agreement"), artifact == original
    return (
        artifact,
        shown(number(found, artifact, "size_bytes"), 1 / 1024, 0),
        shown(number(found, artifact, "gzip_bytes"), 1 / 1024, 0),
        shown(top1, 100, 2),
        "" if is_original or None in {top1, before} else f"{100 * (before - top1):.2f}",  # type: ignore[operator]
        "" if is_original else shown(agreement, 100, 1),
        shown(here, 1, 3),
        "" if is_original or not here or not there else f"{there / here:.2f}",
        "; ".join(verdicts(found, artifact)),
    )


def verdicts(found: runs.Manifest, artifact: str) -> Iterator[str]:
    """Each gate's outcome, on which device, and whether its latency was measured."""
    for verdict in found.verdicts:
        if verdict.artifact != artifact:
            continue
        text = f"{verdict.device} {verdict.gate} {verdict.outcome}"
        if verdict.gate.startswith("max_latency") and verdict.outcome == "INCONCLUSIVE":
            text += f" ({latency(found, artifact, verdict.device)})"
        yield text


def latency(found: runs.Manifest, artifact: str, device: str) -> str:
    known = [
        row for row in found.measurements if (row.subject, row.device, row.name) == (artifact, device, "latency_p50_ms")
    ]
    ends = known[0].interval if known else None
    if not known:
        return "not measured"
    ends_ms = [f"{float(f'{end:.2g}'):g}" for end in (ends.low, ends.high)] if ends else []  # 490, not 4.9e+02
    return f"{known[0].source}, not measured" + (f": {' to '.join(ends_ms)} ms" if ends else "")


def number(found: runs.Manifest, artifact: str, name: str) -> float | None:
    """What was measured on this machine, else what belongs to no device, else on whatever imitates one here."""
    rows = [row for row in found.measurements if (row.subject, row.name) == (artifact, name)]
    rows = [row for row in rows if not (name.startswith("latency") and row.source != "measured")]
    rows.sort(key=lambda row: (HERE, "").index(row.device) if row.device in {HERE, ""} else 2)
    return float(rows[0].value) if rows else None


def shown(value: float | None, factor: float, digits_: int) -> str:
    return "" if value is None else f"{factor * value:.{digits_}f}"


# ---------------------------------------------------------------- command line


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path)
    ask.add_argument("--files", type=Path, help="folder of the runs")
    names = sorted(shipped("recipes"))
    ask.add_argument("--recipes", nargs="+", default=names, choices=names)
    ask.add_argument("--model", default=MODELS[0], choices=MODELS)
    ask.add_argument("--train", type=int, default=45_000, help="training images, of CIFAR-10")
    ask.add_argument("--test", type=int, default=8_000, help="images judged, of CIFAR-10")
    ask.add_argument("--epochs", type=int, help="of every training, for a first look; default: the recipe's own")
    ask.add_argument("--set", action="append", default=[], metavar="RECIPE:KEY=VALUE", type=change)
    ask.add_argument("--out", type=Path)
    return ask.parse_args()


def change(text: str) -> tuple[str, str]:
    name, _, rest = text.partition(":")
    if name not in shipped("recipes") or "=" not in rest:
        raise argparse.ArgumentTypeError(f"is not RECIPE:KEY=VALUE: {text!r}")
    return name, rest


def main() -> None:
    args = arguments()
    if args.data is None or args.files is None:
        print("skipped: name the folder of trained models and images (--data) and one for the runs (--files)")
        return
    args.data = args.data.absolute()
    args.files.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for name in args.recipes:
        print(f"== {name}", file=sys.stderr, flush=True)
        lines += section(name, run(name, args))
        if args.out:
            args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
