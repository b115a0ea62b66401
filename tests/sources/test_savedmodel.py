"""The savedmodel source: a folder's operators are judged as data, so that what could reach out is refused unrun."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import savedmodel
from toolkit.sources.savedmodel import SavedModel

SPEC = tf.TensorSpec((None, 6, 6, 3), tf.float32, name="photo")


class Net(tf.Module):  # type: ignore[misc]
    """Mean of each channel times a matrix, after `before`."""

    def __init__(self, before: Callable[[Any], Any] = lambda photo: photo) -> None:
        self.before = before
        self.kernel = tf.Variable(tf.reshape(tf.range(6, dtype=tf.float32), (3, 2)) / 6)

    @tf.function(input_signature=[SPEC])  # type: ignore[untyped-decorator]
    def __call__(self, photo: Any) -> Any:
        return {"scores": tf.nn.softmax(tf.reduce_mean(self.before(photo), [1, 2]) @ self.kernel)}


def saved(path: Path, net: Any = None) -> Path:
    net = net or Net()
    tf.saved_model.save(net, str(path), signatures=net.__call__)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("plain") / "net")


def changed(path: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a SavedModel with its protocol buffer changed."""
    shutil.copytree(path, target)
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    change(proto.meta_graphs[0])
    (target / "saved_model.pb").write_bytes(proto.SerializeToString())
    return target


def test_signature_and_counts_are_the_folders_own(plain: Path) -> None:
    model = SavedModel().load(plain)
    (photo,), (scores,) = model.signature.inputs, model.signature.outputs
    assert (model.kind, model.graph) == ("savedmodel", plain)
    assert (photo.name, photo.shape, photo.layout) == ("photo", (None, 6, 6, 3), "NHWC")
    assert (scores.name, scores.shape, scores.meaning) == ("scores", (None, 2), "softmax")
    assert savedmodel.variables(plain) == 6


def test_keras_export_is_taken_with_its_variables_counted_once(digits_files: dict[str, Path]) -> None:
    model = SavedModel().load(digits_files["savedmodel"])
    assert (model.signature.inputs[0].name, model.head) == ("image", "softmax")
    # conv1 9 x 12, bn 4 x 12, conv2 9 x 12 x 16 + 16, dense 4 x 4 x 16 x 10 + 10
    assert savedmodel.variables(digits_files["savedmodel"]) == 108 + 48 + 1728 + 16 + 2560 + 10


def test_kind_is_told_from_the_names_of_files(tmp_path: Path, plain: Path) -> None:
    assert SavedModel.kind_of(plain) == "savedmodel"
    shutil.copytree(plain, tmp_path / "keras")
    (tmp_path / "keras" / "keras_metadata.pb").write_bytes(b"")
    assert SavedModel.kind_of(tmp_path / "keras") == "keras"


def test_python_function_is_refused_and_never_called(tmp_path: Path) -> None:
    ran: list[bool] = []

    def spy(photo: Any) -> Any:
        ran.append(True)
        return photo

    def before(photo: Any) -> Any:
        return tf.ensure_shape(tf.py_function(spy, [photo], tf.float32), (None, 6, 6, 3))

    path = saved(tmp_path / "net", Net(before))
    with pytest.raises(UnsupportedError, match=r"operator EagerPyFunc .* can reach files, Python"):
        SavedModel().load(path)
    assert not ran


def test_file_operators_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    target = str(tmp_path / "written")

    def write(photo: Any) -> Any:
        tf.io.write_file(target, "gone out")
        return photo

    def read(photo: Any) -> Any:
        return photo + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    def printed(photo: Any) -> Any:
        tf.print("gone out", output_stream=f"file://{target}")
        return photo

    for number, (before, operator) in enumerate(((write, "WriteFile"), (read, "ReadFile"), (printed, "PrintV2"))):
        with pytest.raises(UnsupportedError, match=f"operator {operator} "):
            SavedModel().load(saved(tmp_path / f"net{number}", Net(before)))
    assert not Path(target).exists()


def test_checkpoint_writer_may_not_be_called_from_elsewhere(tmp_path: Path, plain: Path) -> None:
    def call_it(graph: Any) -> None:
        library = {function.signature.name: function for function in graph.graph_def.library.function}
        saver = next(name for name in library if "traced_save" in name)
        other = next(function for name, function in library.items() if "traced" not in name)
        node = other.node_def.add(name="write", op="StatefulPartitionedCall")
        node.attr["f"].func.name = saver

    with pytest.raises(UnsupportedError, match="calls the one that writes files"):
        SavedModel().load(changed(plain, tmp_path / "net", call_it))


def test_unknown_operator_is_refused_by_name(tmp_path: Path, plain: Path) -> None:
    def add(graph: Any) -> None:
        graph.graph_def.node.add(name="own", op="SomebodysOwnOp")

    with pytest.raises(UnsupportedError, match=r"operator SomebodysOwnOp .own. is not TensorFlow's own"):
        SavedModel().load(changed(plain, tmp_path / "net", add))


def test_asset_and_link_that_climb_out_are_refused(tmp_path: Path, plain: Path) -> None:
    def climb(graph: Any) -> None:
        graph.asset_file_def.add().filename = "../../secret"

    with pytest.raises(InputError, match="asset outside its folder"):
        SavedModel().load(changed(plain, tmp_path / "net", climb))
    shutil.copytree(plain, tmp_path / "linked")
    (tmp_path / "linked" / "assets" / "out").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="link that leads out"):
        SavedModel().load(tmp_path / "linked")


def test_form_of_tensorflow_1_is_refused(tmp_path: Path, plain: Path) -> None:
    path = changed(plain, tmp_path / "net", lambda graph: graph.object_graph_def.Clear())
    with pytest.raises(UnsupportedError, match="TensorFlow 1"):
        SavedModel().load(path)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_damaged_graph_is_one_line(tmp_path: Path, plain: Path, keep: int) -> None:
    shutil.copytree(plain, tmp_path / "net")
    file = tmp_path / "net" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        SavedModel().load(tmp_path / "net")
    assert "\n" not in str(caught.value)


def test_variables_that_are_missing_are_one_line(tmp_path: Path, plain: Path) -> None:
    shutil.copytree(plain, tmp_path / "net")
    shutil.rmtree(tmp_path / "net" / "variables")
    with pytest.raises(InputError, match="cannot be run by tensorflow") as caught:
        SavedModel().load(tmp_path / "net")
    assert "\n" not in str(caught.value)


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without a saved_model\.pb"):
        SavedModel().load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        SavedModel().load(tmp_path / "none")
