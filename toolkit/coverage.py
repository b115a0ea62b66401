"""The calibration of each quantized stage of a run, checked: at the end of a run, and by `diagnose`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from toolkit import runs
from toolkit.checks.coverage import JUDGED, CalibrationCheck, refusal
from toolkit.core import Progress
from toolkit.documents import Document
from toolkit.errors import InputError, UnsupportedError
from toolkit.executor import Executor
from toolkit.plan import Plan
from toolkit.sources import store

Emit = Callable[[Progress], None]
SHOWN = 8  # tensors in a terminal; --json has all


def checked(plan: Plan, run: runs.Run, executor: Executor, open_data: Callable[[], None]) -> None:
    """At the end of a run whose [diagnosis] asks for it. What cannot be checked is a warning."""
    asked = plan.recipe.diagnosis
    kept: dict[str, CalibrationCheck] = {}
    for stage, model in stages(run.folder, run.manifest) if asked and asked.calibration else ():
        prints = {record.split: record.fingerprint for record in run.manifest.data}
        count = max(asked.images if asked else 0, JUDGED)
        key = runs.content_key("calibration", runs.content_sha256(model), prints, count)
        known = run.manifest.calibrations.get(stage)
        if known is None or known.key != key:
            open_data()
            try:
                known = executor.call("coverage", model=model, stage=stage, judged=count)
            except (InputError, UnsupportedError) as error:
                run.update(warnings=(*run.manifest.warnings, f"the calibration of {stage} was not checked: {error}"))
                continue
        kept[stage] = replace(known, key=key)
    run.update(calibrations=kept)


def check_run(
    folder: Path,
    artifact: str | None = None,
    *,
    images: int = JUDGED,
    allow_code: Sequence[str] = (),
    emit: Emit = lambda progress: None,
) -> list[CalibrationCheck]:
    """Of each calibrated stage of a finished run, or of the one that `artifact` was written from.

    images: that the simulated network answers on, JUDGED at least where there are as many.
    """
    from toolkit.recipe_reader import parse_recipe

    manifest = runs.read(folder)
    wanted = {record.stage for record in manifest.artifacts if artifact in (None, record.name)}
    found = [(stage, model) for stage, model in stages(folder, manifest) if stage in wanted]
    if not found:
        return []
    recipe = parse_recipe(Document("manifest.json", manifest.recipe), folder)
    contract = store.read_contract(found[0][1])
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as scratch,
        Executor(Path(scratch) / "log.txt", emit, allow_code) as executor,
    ):
        executor.call(
            "use_data",
            spec=recipe.data,
            preprocessing=contract.preprocessing,
            seed=recipe.seed,
            input_name=contract.signature.inputs[0].name,
            allow_code=allow_code,
        )
        count = max(images, JUDGED)
        return [executor.call("coverage", model=model, stage=stage, judged=count) for stage, model in found]


def stages(folder: Path, manifest: runs.Manifest) -> Iterator[tuple[str, Path]]:
    """(name, path) of each stage with a calibration of its own that a file was written from."""
    for stage in dict.fromkeys(record.stage for record in manifest.artifacts):
        path = store.path_of(folder / "artifacts", stage, "keras")
        if path.is_file() and refusal(store.read_contract(path)) is None:
            yield stage, path


def lines(found: Sequence[CalibrationCheck]) -> Iterator[str]:
    """What `edgekit diagnose` prints of them."""
    for each in found:
        yield f"calibration of {each.stage}: {each.advice}"
        yield f"  ({each.images} images, {each.others} others ({each.other}); moved: in steps of the integers)"
        rows = [("tensor", "outside", "moved by half", "moved by others", "low", "high")]
        for row in each.tensors[:SHOWN]:
            moved = (f"{row.half_steps:.1f}", f"{row.other_steps:.1f}")
            rows.append((row.layer, f"{100 * row.outside:.2g}%", *moved, f"{row.low:.3g}", f"{row.high:.3g}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for first, *rest in rows:
            cells = "  ".join(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            yield f"  {first.ljust(widths[0])}  {cells}".rstrip()
        if len(each.tensors) > SHOWN:
            yield f"  ... and {len(each.tensors) - SHOWN} more; --json has all"


def as_dict(found: Sequence[CalibrationCheck]) -> dict[str, Any]:
    """What `edgekit diagnose --json` prints of them."""
    return {"calibrations": [asdict(each) for each in found]}
