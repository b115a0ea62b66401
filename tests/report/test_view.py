"""Which number, against which baseline, and the arithmetic of the waterfall."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import pytest

from toolkit.core import Measurement
from toolkit.report.view import View
from toolkit.runs import Manifest


@pytest.fixture(scope="module")
def view(sample: Manifest) -> View:
    return View(sample)


def _artifact(view: View, name: str):  # type: ignore[no-untyped-def]
    return next(item for item in view.manifest.artifacts if item.name == name)


def test_waterfall_shares_add_up_to_the_whole_change(view: View) -> None:
    steps = {step.subject: step for step in view.steps()}
    for name in ("top1", "size_bytes", "macs"):
        total = sum(steps[stage].shares[name].change or 0.0 for stage in ("01-prune", "02-distill", "phone.tflite"))
        whole = steps["phone.tflite"].shares[name].value - steps["original"].shares[name].value  # type: ignore[operator]
        assert total == pytest.approx(whole)


def test_waterfall_measures_each_stage_against_its_own_parent(view: View) -> None:
    steps = {step.subject: step for step in view.steps()}
    prune, distill = steps["01-prune"].shares["top1"], steps["02-distill"].shares["top1"]
    assert prune.change == pytest.approx((331 - 356) / 360)
    assert distill.change == pytest.approx((355 - 331) / 360)
    assert steps["tiny.03-prune"].shares["size_bytes"].change == 34_100 - 118_900
    assert steps["tiny.03-prune"].shares["size_bytes"].since == "02-distill"


def test_waterfall_names_the_stages_it_passes_over(view: View) -> None:
    share = {step.subject: step for step in view.steps()}["phone.tflite"].shares["top1"]
    assert (share.since, share.skipped) == ("02-distill", ("phone.03-quantize",))


def test_waterfall_sets_latency_against_the_originals_file_of_that_format(view: View) -> None:
    share = {step.subject: step for step in view.steps()}["server.onnx"].shares["latency_p50_ms"]
    assert share.since == "original.onnx"
    assert share.change == pytest.approx(0.0146 - 0.0291)


def test_stage_whose_time_may_be_its_parents_has_no_clear_change(sample: Manifest) -> None:
    known = {m.name: m for m in sample.measurements if m.subject == "original.tflite"}
    time = known["latency_p50_ms"]
    how = {**time.how, "format": "tflite"}
    same = [replace(time, subject=name, how=how, value=time.value * 1.0001) for name in ("01-prune", "02-distill")]
    steps = {step.subject: step for step in View(replace(sample, measurements=(*sample.measurements, *same))).steps()}
    share = steps["01-prune"].shares["latency_p50_ms"]
    assert (share.since, share.clear) == ("original", False)
    assert steps["02-distill"].shares["latency_p50_ms"].change == 0.0
    assert steps["02-distill"].shares["latency_p50_ms"].clear
    assert steps["phone.tflite"].shares["latency_p50_ms"].since == "02-distill"
    assert steps["server.onnx"].shares["latency_p50_ms"].since == "original.onnx"


def test_waterfall_has_no_number_where_none_was_measured(view: View) -> None:
    steps = {step.subject: step for step in view.steps()}
    share = steps["02-distill"].shares["latency_p50_ms"]
    assert (share.value, share.change) == (None, None)


def test_waterfall_goes_trunk_first_then_files_after_their_stages(view: View) -> None:
    names = [step.subject for step in view.steps()]
    assert names[:3] == ["original", "01-prune", "02-distill"]
    assert names[3:5] == ["original.tflite", "original.onnx"]
    assert names.index("tiny.tflite") > names.index("tiny.04-quantize")


def test_waterfall_has_variants_in_the_order_of_their_files(sample: Manifest) -> None:
    plain = tuple(item if item.variant != "phone" else replace(item, stage="02-distill") for item in sample.artifacts)
    stages = tuple(stage for stage in sample.stages if stage.name != "phone.03-quantize")
    groups = dict.fromkeys(step.group for step in View(replace(sample, artifacts=plain, stages=stages)).steps())
    assert list(groups) == ["", "original", "phone", "server", "tiny"]


def test_waterfall_has_each_variants_passes_with_its_files(view: View) -> None:
    groups = {step.subject: step.group for step in view.steps()}
    assert [name for name, group in groups.items() if not group] == ["original", "01-prune", "02-distill"]
    assert {name for name, group in groups.items() if group == "tiny"} == {
        "tiny.03-prune",
        "tiny.04-quantize",
        "tiny.tflite",
    }


def test_variant_whose_name_begins_as_anothers_keeps_its_passes(sample: Manifest) -> None:
    stages = (*sample.stages, replace(sample.stages[1], name="tiny.er.03-prune"))
    variants = [{"name": "tiny.er"}, "no table"]
    steps = View(replace(sample, stages=stages, recipe={"variants": variants})).steps()
    assert {step.subject: step.group for step in steps}["tiny.er.03-prune"] == "tiny.er"


def test_counts_stand_through_a_stage_that_kept_the_graph(view: View) -> None:
    found = view.number(_artifact(view, "tiny.tflite"), "macs")
    assert found is not None
    assert (found.subject, found.value) == ("tiny.03-prune", 61_200)


def test_counts_are_not_guessed_through_a_stage_that_changed_the_graph(sample: Manifest) -> None:
    stages = tuple(replace(stage, same_graph=False) for stage in sample.stages)
    view = View(replace(sample, stages=stages))
    assert view.number(_artifact(view, "tiny.tflite"), "macs") is None


def test_gain_is_not_clear_when_intervals_overlap(sample: Manifest) -> None:
    slow = [
        replace(m, interval=replace(m.interval, high=0.05))
        if m.subject == "server.onnx" and m.interval and m.name == "latency_p50_ms"
        else m
        for m in sample.measurements
    ]
    clear, unclear = View(sample), View(replace(sample, measurements=tuple(slow)))
    for view, expected in ((clear, True), (unclear, False)):
        gain = view.gain(_artifact(view, "server.onnx"), "latency_p50_ms", "this-machine")
        assert gain is not None
        assert gain.clear is expected


def test_find_skips_nan_and_other_devices(samples: ModuleType) -> None:
    nan = Measurement("a", "top1", math.nan, "", "measured", "pi")
    here = Measurement("a", "top1", 0.5, "", "measured", "this-machine")
    view = View(replace(samples.bare(), measurements=(nan, here)))
    assert view.find("a", "top1", "pi") is None
    assert view.find("a", "top1") is here


def test_outcome_is_the_worst_of_an_artifacts_verdicts(view: View) -> None:
    assert [view.outcome(name) for name in ("phone.tflite", "server.onnx", "tiny.tflite", "original.onnx")] == [
        "INCONCLUSIVE",
        "PASS",
        "FAIL",
        None,
    ]


def test_headline_is_the_smallest_that_passes(view: View) -> None:
    headline = view.headline()
    assert headline is not None
    assert headline.name == "server.onnx"  # tiny.tflite is smaller and fails


def test_a_parent_that_is_its_own_ancestor_ends(sample: Manifest) -> None:
    stages = tuple(replace(s, parent="02-distill") if s.name == "01-prune" else s for s in sample.stages)
    assert len(View(replace(sample, stages=stages)).steps()) == len(View(sample).steps())


def test_every_step_has_every_quantity(view: View) -> None:
    assert view.waterfall == ("top1", "size_bytes", "macs", "latency_p50_ms")
    assert all(tuple(step.shares) == view.waterfall for step in view.steps())
