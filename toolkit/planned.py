"""A plan in words: what `edgekit plan` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from toolkit.plan import REFERENCE, TRAIN, Check, Plan, Stage


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as data."""
    return {
        "recipe": plan.recipe.resolved(),
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "use": stage.use,
                "from": stage.parent,
                "variant": stage.variant,
                "quant": asdict(stage.quant),
                "parameters": stage.component.model_dump(mode="json"),
            }
            for stage in plan.stages
        ],
        "checks": [
            {
                "artifact": check.artifact,
                "device": check.device.name,
                "runtime": check.runtime,
                "delegate": check.delegate,
                "budget": check.budget.model_dump(exclude_none=True),
                "note": check.note,
            }
            for check in plan.checks
        ],
        "problems": list(plan.problems),
        "missing": list(plan.missing),
        "notes": list(plan.notes),
    }


def lines(plan: Plan) -> Iterator[str]:
    """The plan for a person: stages, files, what is judged where, and what cannot work."""
    yield f"{plan.recipe.name}: {plan.recipe.description}".rstrip(": ")
    yield ""
    yield "stages:"
    width = max(len(stage.name) for stage in plan.stages)
    yield from (_stage(stage, width) for stage in plan.stages)
    yield ""
    yield "checks:"
    yield from (_check(check) for check in plan.checks if plan.stage(check.artifact).variant != REFERENCE)
    for title, texts in (("notes", plan.notes), ("cannot work", plan.problems), ("missing here", plan.missing)):
        if texts:
            yield ""
            yield f"{title}:"
            yield from (f"  {text}" for text in texts)


def _stage(stage: Stage, width: int) -> str:
    given = stage.component.model_dump(mode="json", exclude_none=True, exclude_unset=stage.use == TRAIN)
    parameters = ", ".join(f"{key} {value}" for key, value in _flat(given))
    origin = f"from {stage.parent}" if stage.parent else ""
    if stage.kind == "export":
        parameters = f"{stage.quant.scheme} {stage.component.format} file" + (f", {parameters}" if parameters else "")
    return f"  {stage.name:<{width}}  {origin}  {parameters}".rstrip()


def _flat(given: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of tables inside by their whole names: `finetune.epochs`; no text is nothing said."""
    for key, value in given.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        elif value != "":
            yield above + key, value


def _check(check: Check) -> str:
    limits = check.budget.model_dump(exclude_none=True, exclude={"confidence"})
    judged = ", ".join(f"{gate} {limit:g}" for gate, limit in limits.items()) or "no limits: measured, not judged"
    with_what = f"{check.runtime} ({check.delegate})" if check.runtime else "not measurable from here"
    return f"  {check.artifact} on {check.device.name}, {with_what}: {judged}"
