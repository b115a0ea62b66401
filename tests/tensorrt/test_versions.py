"""Versions as trtexec, pip and dpkg write them, and what each has."""

from __future__ import annotations

import pytest

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.versions import abilities, parse


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("8.5.2.2", (8, 5, 2, 2)),
        ("10.3.0", (10, 3, 0)),
        ("10.16.2.1", (10, 16, 2, 1)),
        ("8.6.2.3-1+cuda12.2", (8, 6, 2, 3)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --onnx=m.onnx", (8, 5, 2)),
        ("[TensorRT v100300]", (10, 3, 0)),
        ("&&&& PASSED TensorRT.trtexec [TensorRT v101502] [b12] # /usr/bin/trtexec", (10, 15, 2)),
        ("v110401", (11, 4, 1)),
    ],
)
def test_version_is_read_from_all_its_spellings(text: str, numbers: tuple[int, ...]) -> None:
    assert parse(text).numbers == numbers


@pytest.mark.parametrize("text", ["", "unknown", "v12", "eight"])
def test_text_without_a_version_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no version can be read"):
        parse(text)


def test_banner_names_the_release_a_full_version_has() -> None:
    """An engine is checked against three numbers; pip's fourth is a build."""
    assert parse("v8502").release == parse("8.5.2.2").release
    assert parse("v101502").release == parse("10.15.2.29").release


@pytest.mark.parametrize(
    ("text", "strong", "weak", "batch", "level", "int64", "dla", "opset"),
    [
        ("8.5.2.2", False, True, True, False, False, True, 17),
        ("8.6.2", False, True, True, True, False, True, 17),
        ("10.3.0", True, True, False, True, True, True, 20),
        ("10.7.0", True, True, False, True, True, True, 20),
        ("10.13.0", True, True, False, True, True, False, 20),
        ("10.16.2", True, True, False, True, True, False, 24),
        ("11.3.0", True, False, False, True, True, False, 25),
        ("11.4.1", True, False, False, True, True, True, 25),
    ],
)
def test_each_version_has_what_its_documents_say(
    text: str, strong: bool, weak: bool, batch: bool, level: bool, int64: bool, dla: bool, opset: int
) -> None:
    found = abilities(parse(text))
    assert (found.strongly_typed, found.weakly_typed, found.explicit_batch) == (strong, weak, batch)
    assert (found.optimization_level, found.int64, found.dla, found.opset) == (level, int64, dla, opset)


def test_rtx_has_the_api_of_11_though_its_version_is_1() -> None:
    found = abilities(parse("1.7.1.116", "tensorrt_rtx"))
    assert (found.strongly_typed, found.weakly_typed, found.dla) == (True, False, False)
    assert str(parse("1.7.1.116", "tensorrt_rtx")) == "TensorRT-RTX 1.7.1.116"


def test_version_below_the_floor_is_sent_to_trtexec() -> None:
    with pytest.raises(UnsupportedError, match=r"TensorRT 8\.2\.1.*below 8\.5.*trtexec"):
        abilities(parse("8.2.1"))


def test_broken_version_is_named() -> None:
    assert "10.2.0" in abilities(parse("10.2.0.19")).note
    assert not abilities(parse("10.3.0")).note
