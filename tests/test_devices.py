"""Device profiles: what they may say, and what a device is found able to run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.core import MeasureSpec
from toolkit.devices import (
    DeviceProfile,
    DeviceRuntime,
    KernelFact,
    find,
    load_device,
    open_session,
    reached,
    safe_name,
    shipped,
)
from toolkit.errors import InputError, UnavailableError, UnsupportedError

BOARD = """\
schema = 1
title = "A board"
arch = "aarch64"
memory_kib = 1024

[measure]
threads = 2

[[runtimes]]
use = "litert"
formats = ["tflite"]
schemes = ["float32", "int8"]
delegates = ["xnnpack"]

[[facts]]
name = "clock"
value = 1.5
unit = "GHz"
source = "unverified"
"""


def write(folder: Path, text: str, name: str = "board.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(InputError) as error:
        load_device(path)
    return str(error.value).replace(f"{path}", "board.toml").split("\n")


def test_load_device_reads_a_profile(tmp_path: Path) -> None:
    board = load_device(write(tmp_path, BOARD))
    assert (board.name, board.transport, board.measurable) == ("board", "", False)
    assert board.measure == MeasureSpec(threads=2)
    assert board.measure.model_fields_set == {"threads"}
    assert board.facts[0].value == 1.5


def test_runtime_for_gives_the_first_that_can() -> None:
    first = DeviceRuntime(use="a", formats=("tflite",), schemes=("float32",))
    second = DeviceRuntime(use="b", formats=("tflite", "onnx"), schemes=("float32", "int8"))
    board = DeviceProfile(name="board", arch="any", runtimes=(first, second))
    assert board.runtime_for("tflite", "float32") is first
    assert board.runtime_for("tflite", "int8") is second
    assert board.runtime_for("tflite", "float32", "int8") is second
    with pytest.raises(UnsupportedError) as error:
        board.runtime_for("onnx", "float16")
    assert str(error.value) == (
        "board: cannot run float16 onnx files. Fix: it runs tflite as float32; tflite/onnx as float32, int8."
    )


def test_load_device_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    text = BOARD.replace('use = "litert"', 'use = "lite-rt"').replace('"int8"]', '"int9"]')
    text = text.replace("memory_kib = 1024", "memory_kb = 1024").replace('source = "unverified"\n', "")
    assert mistakes(write(tmp_path, text)) == [
        "board.toml:4: memory_kb: no such key. Fix: did you mean 'memory_kib'?",
        "board.toml:10: runtimes.0.use: no such runtime, got 'lite-rt'. "
        "Fix: did you mean 'litert' or 'tflite-runtime' or 'tflite-micro'?",
        "board.toml:12: runtimes.0.schemes.1: must be 'float32', 'float16', 'dynamic', 'int8', 'int16x8', "
        "'weight_int8' or 'weight_int4', got 'int9'. "
        "Fix: did you mean 'int8'?",
        "board.toml:15: facts.0.source: is missing. Fix: add `source`, text.",
    ]


def test_load_device_checks_names_against_the_registry(tmp_path: Path) -> None:
    text = BOARD.replace('arch = "aarch64"', 'arch = "aarch64"\ntransport = "locl"')
    text += '\n[[runtimes]]\nuse = "onnx-runtime"\nformats = ["onnx"]\nschemes = ["int8"]\n'
    assert mistakes(write(tmp_path, text)) == [
        "board.toml:4: transport: no such transport, got 'locl'. Fix: did you mean 'local'?",
        "board.toml:23: runtimes.1.use: no such runtime, got 'onnx-runtime'. "
        "Fix: did you mean 'onnxruntime' or 'tflite-runtime'?",
    ]


def test_load_device_refuses_a_format_its_runtime_does_not_take(tmp_path: Path) -> None:
    text = BOARD.replace('formats = ["tflite"]', 'formats = ["tflite", "onnx"]')
    assert mistakes(write(tmp_path, text)) == [
        "board.toml:11: runtimes.0.formats.1: litert runs no 'onnx' files. Fix: it runs tflite."
    ]


def test_load_device_refuses_a_name_that_no_file_may_have(tmp_path: Path) -> None:
    assert mistakes(write(tmp_path, f'name = "a/b"\n{BOARD}')) == [
        "board.toml:1: name: must be letters, digits, '.', '_' or '-', from a letter or digit on, got 'a/b'."
    ]


def test_load_device_suggests_shipped_names() -> None:
    with pytest.raises(InputError) as error:
        load_device("raspbery-pi-4")
    words = "raspbery-pi-4: no such file, and no shipped device of that name. Fix: did you mean 'raspberry-pi-4' or "
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("name", sorted(shipped("devices")))
def test_shipped_profiles_are_whole(name: str) -> None:
    profile = load_device(name)
    assert profile.name == name
    assert profile.title
    if profile.compute_capability:
        format, uses, schemes = "onnx", {"tensorrt"}, ("float32", "float16")
    elif profile.arch == "cortex-m":
        format, uses, schemes = "tflite", {"tflite-micro"}, ("float32", "int8", "int16x8")
    else:
        format, uses, schemes = "tflite", {"litert", "tflite-runtime", "openvino"}, ("float32", "int8")
    assert {profile.runtime_for(format, scheme).use for scheme in schemes} <= uses


def test_open_session_refuses_a_device_that_nothing_reaches() -> None:
    with pytest.raises(UnavailableError) as error:
        open_session(load_device("raspberry-pi-4").model_copy(update={"transport": ""}))
    assert str(error.value) == (
        "raspberry-pi-4: has no transport, so nothing can be measured on it. "
        "Fix: use `edgekit plan`, or another device."
    )


def test_open_session_asks_for_the_host_of_a_device_over_ssh() -> None:
    profile = load_device("raspberry-pi-4")
    assert not profile.measurable
    with pytest.raises(UnavailableError) as error:
        open_session(profile)
    assert str(error.value) == "raspberry-pi-4: nobody said where it is. Fix: give --ssh raspberry-pi-4=USER@HOST."


def test_device_of_either_way_is_reached_as_it_is_told_and_says_how_to_tell() -> None:
    board, here = load_device("raspberry-pi-4"), load_device("this-machine")
    planned = board.model_copy(update={"name": "planned", "transport": ""})
    phone, same = reached([board, here], [], ["R58M123"])
    assert (phone.transport, phone.host, phone.measurable, same is here) == ("adb", "R58M123", True, True)
    assert (board.transport, board.host) == ("ssh", "")
    both = reached([board, planned], ["planned=h"], ["raspberry-pi-4=R58M123"])
    assert [(p.transport, p.host) for p in both] == [("adb", "R58M123"), ("ssh", "h")]
    assert [p.where for p in (board, phone)] == ["--ssh raspberry-pi-4=USER@HOST", "--adb raspberry-pi-4=SERIAL"]
    with pytest.raises(InputError, match="raspberry-pi-4 is said to be at two places"):
        reached([board], ["h"], ["R58M123"])
    with pytest.raises(InputError, match=r"--adb: 'x' could be any of raspberry-pi-4, planned"):
        reached([board, planned], [], ["x"])


def test_hosts_go_to_the_devices_they_are_of_and_stand_in_no_dump() -> None:
    board, here = load_device("raspberry-pi-4"), load_device("this-machine")
    other = board.model_copy(update={"name": "other"})
    (at, same) = reached([board, here], ["pi@board"])
    assert (at.host, at.measurable, same is here) == ("pi@board", True, True)
    assert "pi@board" not in at.model_dump_json()
    assert [p.host for p in reached([board, other], ["other=b", "raspberry-pi-4=a"])] == ["a", "b"]


@pytest.mark.parametrize(
    ("ssh", "problem"),
    [
        ("pi@board", "'pi@board' could be any of raspberry-pi-4, other. Fix: give raspberry-pi-4=pi@board."),
        ("nothing=h", "'nothing' is no device of this command that is reached so. Fix: name one of"),
        ("x=", "'x' is no device of this command that is reached so."),
        ("this-machine=h", "'this-machine' is no device of this command that is reached so."),
    ],
)
def test_host_that_fits_no_device_is_refused(ssh: str, problem: str) -> None:
    board = load_device("raspberry-pi-4")
    profiles = [board, board.model_copy(update={"name": "other"}), load_device("this-machine")]
    with pytest.raises(InputError, match=re.escape(problem)):
        reached(profiles, [ssh])


def test_host_of_a_command_that_reaches_no_device_is_refused_with_what_to_give() -> None:
    with pytest.raises(InputError, match=r"so nothing is at 'pi@h'. Fix: name it: --device PROFILE"):
        reached([load_device("this-machine")], ["pi@h"])


def test_host_that_ssh_would_read_as_an_option_is_refused() -> None:
    with pytest.raises(InputError, match="no such host can be"):
        open_session(load_device("raspberry-pi-4").at("-oProxyCommand=true"))


def test_find_prefers_a_file_to_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("devices", "this-machine") == shipped("devices")["this-machine"]
    (tmp_path / "this-machine").write_text("")
    assert find("devices", "this-machine") == Path("this-machine")


def test_find_passes_over_a_folder_of_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "this-machine").mkdir()
    assert find("devices", "this-machine") == shipped("devices")["this-machine"]


def test_safe_name_keeps_what_file_names_may_hold() -> None:
    assert [safe_name(text) for text in ("a b.c", "../up", "é", "ok_1-2")] == ["a-b.c", "up", "unnamed", "ok_1-2"]


def test_fact_about_kernels_ends_with_the_version_that_is_free_of_it() -> None:
    known = KernelFact(fact="dense_per_tensor", before="2.10", source="a page")
    runtime = DeviceRuntime(use="a", formats=("tflite",), schemes=("int8",), kernels=(known,))
    versions = {"2.9.1": known, "2.10": None, "10.0": None, "": known}
    for version, expected in versions.items():
        assert runtime.model_copy(update={"version": version}).needs("dense_per_tensor") == expected
    assert runtime.needs("saturating") is None


def test_fact_about_kernels_must_be_known_and_have_a_source(tmp_path: Path) -> None:
    text = BOARD.replace('delegates = ["xnnpack"]', 'kernels = [{ fact = "saturated" }]')
    found = mistakes(write(tmp_path, text))
    assert any(
        "must be 'saturating', 'dense_per_tensor' or 'symmetric_only', got 'saturated'" in line for line in found
    )
    assert any("source: is missing" in line for line in found)
