"""`edgekit device list, show, check, capture`, and what the shipped profiles say against the page about them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests import loopback
from tests.android import android
from toolkit.cli import cli
from toolkit.devices import load_device, shipped
from toolkit.profiles import planned, reach
from toolkit.recipe_reader import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
PROFILES = {name: load_device(name) for name in shipped("devices")}
OTHERS = {name: each for name, each in PROFILES.items() if each.family not in ("gpu", "jetson")}


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(cli, ["device", *map(str, words)])


def test_list_filters_by_family_and_by_what_can_be_measured() -> None:
    names = {row["name"] for row in json.loads(invoke("list", "--family", "phone", "--json").output)}
    assert names == {
        *("pixel-6", "pixel-8", "snapdragon-8-gen-2", "snapdragon-8-gen-3", "snapdragon-778g", "iphone-15-pro"),
    }
    able = {row["name"] for row in json.loads(invoke("list", "--measurable", "--json").output)}
    assert able == {name for name, profile in PROFILES.items() if profile.transport}
    assert "iphone-15-pro" not in able
    wrong = invoke("list", "--family", "phones")
    assert wrong.exit_code == 2
    assert "did you mean 'phone'?" in wrong.stderr


def test_show_says_each_fact_with_its_source_and_what_a_plan_says() -> None:
    text = invoke("show", "raspberry-pi-4").output
    assert "4 x Cortex-A72 at 1.5 GHz, MACs a cycle: 4 float32, 8 int8, neon [Raspberry Pi documentation" in text
    assert "mobilenet_v2_1.0_224 int8: 17 ms (XNNPACK) [XNNPACK README (2022)" in text
    assert "measured where --ssh raspberry-pi-4=... says it is" in text
    assert "tflite-runtime 2.14.0 reads FULLY_CONNECTED up to version 10" in text
    data = json.loads(invoke("show", "coral-dev-board", "--json").output)
    assert data["no_runtime"][0]["name"] == "Edge TPU"
    assert any("Edge TPU takes int8 files rewritten" in line for line in data["plan"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("iphone-15-pro", "its Core ML (Neural Engine) runs on Apple's systems alone"),
        ("snapdragon-8-gen-2", "its Hexagon NPU is reached through Qualcomm's QNN"),
        ("coral-dev-board", "its Edge TPU takes int8 files"),
    ],
)
def test_plan_says_what_cannot_be_measured(name: str, words: str) -> None:
    from toolkit.documents import Document
    from toolkit.plan import make_plan

    assert any(line.startswith(words) for line in planned(PROFILES[name]))
    data = {
        "schema": 1,
        "data": {"use": "digits", "splits": {"test": 400}},
        "variants": [{"name": "float", "export": ["tflite"]}],
        "targets": [{"device": name}],
    }
    made = make_plan(parse_recipe(Document("r.toml", data), Path.cwd()))
    assert any(note.startswith(f"{name}: {words}") and note.endswith("not measured") for note in made.notes)


def test_check_names_every_mistake_of_every_file(tmp_path: Path) -> None:
    good = shipped("devices")["raspberry-pi-5"].read_text()
    (tmp_path / "a.toml").write_text(good.replace('delegates = ["xnnpack"]', 'delegates = ["xnpack"]', 1))
    (tmp_path / "b.toml").write_text(good.replace('runtime = "TFLite"', 'processor = "A77"', 1).replace("arch", "ach"))
    (tmp_path / "c.toml").write_text(good)
    result = invoke("check", tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "c.toml")
    assert result.exit_code == 2
    assert "a.toml" in result.stderr
    assert "no such delegate of it, got 'xnpack'. Fix: did you mean 'xnnpack'?" in result.stderr
    assert "b.toml" in result.stderr
    assert "ach: no such key. Fix: did you mean 'arch'?" in result.stderr
    alone = invoke("check", tmp_path / "c.toml")
    assert (alone.exit_code, alone.output) == (0, "raspberry-pi-5: a valid device profile\n")


def test_list_is_in_the_order_of_names() -> None:
    names = [line.split()[0] for line in invoke("list").output.splitlines()]
    assert names == sorted(names)  # that of files has "h100-sxm.toml" before "h100.toml"


def test_names_that_are_not_there_are_told_beside_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(
        'schema = 1\ntransport = "shh"\narch = ""\ncompute_capability = "87"\n'
        '[[runtimes]]\nuse = "litrt"\nformats = ["tflite"]\nschemes = ["int9"]\n'
        '[[runtimes]]\nuse = "litert"\nformats = ["onnx"]\nschemes = []\ndelegates = [3, "xnpack"]\n'
        '[[published]]\nprocessor = "A77"\n'
    )
    told = invoke("check", tmp_path / "bad.toml").stderr
    for line, words in (
        (2, "transport: no such transport, got 'shh'. Fix: did you mean 'ssh'?"),
        (3, "arch: must not be empty"),
        (4, "compute_capability: must be two numbers with a point between them, as \"8.7\", got '87'."),
        (6, "runtimes.0.use: no such runtime, got 'litrt'. Fix: did you mean 'litert'?"),
        (8, "runtimes.0.schemes.0: must be 'float32'"),
        (10, "runtimes.1.use"),
        (11, "runtimes.1.formats.0: litert runs no 'onnx' files. Fix: it runs tflite."),
        (12, "runtimes.1.schemes: needs 1 or more items"),
        (13, "runtimes.1.delegates.0: must be text, got 3"),
        (13, "runtimes.1.delegates.1: no such delegate of it, got 'xnpack'. Fix: did you mean 'xnnpack'?"),
        (15, "published.0.processor: no such processor here, got 'A77'"),
    ):
        assert (f"bad.toml:{line}: {words}" in told) is (words != "runtimes.1.use"), told


def test_published_figure_of_a_processor_that_the_device_has_not(tmp_path: Path) -> None:
    text = shipped("devices")["raspberry-pi-5"].read_text()
    (tmp_path / "b.toml").write_text(text.replace('runtime = "TFLite"', 'processor = "Cortex-A77"', 1))
    result = invoke("check", tmp_path / "b.toml")
    assert "published.0.processor: no such processor here, got 'Cortex-A77'. Fix: did you mean" in result.stderr


def test_all_shipped_profiles_are_checked_without_a_name() -> None:
    assert len(invoke("check").output.splitlines()) == len(PROFILES)


# ---------------------------------------------------------------- capture


def test_capture_writes_a_profile_of_this_machine_that_is_valid(tmp_path: Path) -> None:
    out = tmp_path / "here.toml"
    result = invoke("capture", "--out", out)
    assert result.exit_code == 0, result.output
    assert "next: edgekit device show" in result.output
    profile = load_device(out)
    assert (profile.name, profile.transport) == ("here", "local")
    assert {"litert", "onnxruntime"} <= {each.use for each in profile.runtimes}
    assert all(each.version for each in profile.runtimes)
    assert invoke("check", out).exit_code == 0


def test_capture_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text("keep")
    for words, problem in (
        (("--out", tmp_path / "old.toml"), "is there already"),
        (("--out", tmp_path / "no" / "a.toml"), "its folder does not exist"),
        (("--out", tmp_path / "a.json"), "is no name of a .toml file"),
        (("--out", tmp_path / "a.toml", "--ssh", "a", "--adb", "b"), "--ssh and --adb were both given"),
        (("--out", tmp_path / "a.toml", "--ssh", "-oProxyCommand=true"), "no such host can be"),
    ):
        result = invoke("capture", *words)
        assert result.exit_code == 2, result.output
        assert problem in result.stderr
    assert (tmp_path / "old.toml").read_text() == "keep"
    assert not (tmp_path / "a.toml").exists()


def test_capture_over_ssh_asks_the_other_end_and_names_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sshd").mkdir()
    out = tmp_path / "board.toml"
    with loopback.serve(tmp_path / "sshd") as server:
        monkeypatch.setenv("PATH", f"{server.binaries}:{os.environ['PATH']}")
        result = invoke("capture", "--ssh", loopback.HOST, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["arch"]
    profile = load_device(out)
    assert (profile.transport, profile.python) == ("ssh", "python3")
    assert loopback.HOST not in out.read_text()


def test_capture_over_adb_needs_no_python_and_writes_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client against the stand-in; in the arm64 root file system it is mksh and toybox that answer."""
    (tmp_path / "adb").mkdir()
    out = tmp_path / "phone.toml"
    with android(tmp_path / "adb") as phone:
        monkeypatch.setenv("PATH", f"{phone.binaries}:{os.environ['PATH']}")
        result = invoke("capture", "--adb", phone.serial, "--python", "no-such-python", "--out", out)
    assert result.exit_code == 0, result.output
    assert "no runtime was found there. Fix: put TFLite's benchmark_model into /data/local/tmp" in result.output
    profile = load_device(out)
    assert (profile.transport, profile.python) == ("adb", "")
    assert phone.serial not in out.read_text()
    assert {"system", "kernel", "cores", "memory"} <= {fact.name for fact in profile.facts}


# ---------------------------------------------------------------- the page


def test_table_in_the_docs_says_what_the_profiles_say() -> None:
    text = (ROOT / "docs" / "devices.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 6}
    assert sorted(table) == sorted(OTHERS)
    for name, row in table.items():
        profile = OTHERS[name]
        processors = "; ".join(
            f"{each.cores} x {each.name.split(' at ')[0]} {each.clock_ghz:g} GHz" for each in profile.processors
        )
        memory = next((f"{fact.value} {fact.unit}" for fact in profile.facts if fact.name == "memory"), "-")
        bandwidth = f"{profile.bandwidth_gb_s:g}" if profile.bandwidth_gb_s else "-"
        runtimes = ", ".join(
            dict.fromkeys(" ".join(filter(None, (each.use, each.version))) for each in profile.runtimes)
        )
        assert row == [processors or "-", memory, bandwidth, runtimes, reach(profile)]


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_bandwidth_of_a_profile_stands_with_its_source(name: str) -> None:
    profile = OTHERS[name]
    facts = {fact.name: fact for fact in profile.facts}
    if profile.bandwidth_gb_s:
        assert facts["memory bandwidth"].value == profile.bandwidth_gb_s
        assert facts["memory bandwidth"].source
    assert profile.family


# the figures of facts that were copied by hand, held against what was written down when their pages were read
QUOTED = {
    ("raspberry-pi-3b-plus", "float32"): [114, 79],
    ("raspberry-pi-3b-plus", "int8"): [46, 30, 380, 272],
    ("raspberry-pi-4", "float32"): [77, 46],
    ("raspberry-pi-4", "int8"): [24, 17, 113, 83],
    ("raspberry-pi-5", "int8"): [23.5, 16.9],
    ("coral-dev-board", "int8"): [179, 150, 2.2, 2.5],
    ("snapdragon-8-gen-2", "int8"): [0.24, 0.81],
    ("snapdragon-8-gen-2", "float16"): [0.97, 2.27],
    ("cortex-m4", "int8"): [165, 89],
    ("cortex-m7", "int8"): [41, 24],
    ("cortex-m33", "int8"): [111, 59],
    ("cortex-m85", "int8"): [8.5, 13.4],
}


def test_published_latencies_are_quoted_exactly() -> None:
    found: dict[tuple[str, str], list[float]] = {}
    for name, profile in PROFILES.items():
        for each in profile.published:
            found.setdefault((name, each.arithmetic), []).append(each.milliseconds)
    assert found == QUOTED
