"""`verify` finds and names what was changed in an export, and does nothing that a stranger's export asks for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from visionadapt.errors import RunError
from visionadapt.export.onnx_checks import read_onnx
from visionadapt.export.onnx_model import digests
from visionadapt.export.onnx_nodes import Nodes
from visionadapt.export.onnx_resize import resize_nodes
from visionadapt.export.reading import open_export
from visionadapt.export.verify import verify
from visionadapt.images import ResizeAdapter
from visionadapt.system.storage import file_sha256

pytestmark = pytest.mark.slow

Change = Callable[[onnx.ModelProto], None]


def place(model: onnx.ModelProto, output: str) -> int:
    return next(at for at, node in enumerate(model.graph.node) if node.output[0] == output)


def constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    kept = next(each for each in model.graph.initializer if each.name == name)
    kept.CopyFrom(numpy_helper.from_array(value, name))


def another_mean(model: onnx.ModelProto) -> None:
    divided = model.graph.node[place(model, "prepared")]
    subtracted = model.graph.node[place(model, divided.input[0])]
    constant(model, subtracted.input[1], np.full((3, 1, 1), 0.5, np.float32))


def another_channel_order(model: onnx.ModelProto) -> None:
    last = model.graph.node[place(model, "resized")]
    turned = helper.make_node("Gather", [last.input[0], "order"], ["resized"], axis=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    last.CopyFrom(turned)


def replaced(model: onnx.ModelProto, nodes: Nodes) -> None:
    rest = list(model.graph.node[place(model, "resized") + 1 :])
    del model.graph.node[:]
    model.graph.node.extend([*nodes.nodes, *rest])
    model.graph.initializer.extend(nodes.constants)


def another_policy(model: onnx.ModelProto) -> None:
    nodes = Nodes("other/")
    resize_nodes(nodes, ResizeAdapter(64, policy="crop"), nodes.Transpose("image", perm=[0, 3, 1, 2]), "resized")
    replaced(model, nodes)


def no_antialiasing(model: onnx.ModelProto) -> None:
    nodes = Nodes("other/")
    turned = nodes.Transpose("image", perm=[0, 3, 1, 2])
    sizes = nodes.Concat(nodes.Shape(turned, end=2), np.array([64, 64]), axis=0)
    model.graph.initializer.append(numpy_helper.from_array(np.empty(0, np.float32), "none"))
    scaled = nodes.Resize(nodes.cast(turned, np.float32), "none", "none", sizes, mode="cubic")
    nodes.Clip(nodes.Round(scaled), np.float32(0), np.float32(255), name="clipped")
    nodes.Cast("clipped", to=onnx.TensorProto.UINT8, name="resized")
    replaced(model, nodes)


def permuted_classes(model: onnx.ModelProto) -> None:
    entry = next(each for each in model.metadata_props if each.key == "class_names")
    entry.value = json.dumps(["grass", "blood", "sky"])


def another_weight(model: onnx.ModelProto) -> None:
    kept = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = numpy_helper.to_array(kept).copy()
    array.flat[5] += 1
    kept.CopyFrom(numpy_helper.from_array(array, kept.name))


def no_temperature(model: onnx.ModelProto) -> None:
    kept = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert kept["temperature"] == 1.7
    constant(model, "temperature", np.ones_like(kept["temperature"]))


SABOTAGE: dict[str, tuple[Change, str]] = {
    "mean": (another_mean, "the mean is 0.500, 0.500, 0.500 instead of 0.485, 0.456, 0.406"),
    "channel order": (another_channel_order, "the channel order is reversed"),
    "resize policy": (another_policy, "the resize policy is crop (bicubic) instead of squash (bicubic)"),
    "antialias off": (no_antialiasing, "antialiasing is off"),
    "permuted classes": (permuted_classes, "the class names are permuted: 0 is 'grass' instead of 'blood'"),
    "one changed weight": (another_weight, "a weight of the backbone is another one"),
    "temperature dropped": (no_temperature, "the temperature is 1.000 instead of 1.700"),
}


def sabotaged(exported: Path, out: Path, change: Change) -> Path:
    """A copy with a changed model, whose manifest claims that it is the exported one."""
    shutil.copytree(exported, out)
    model = onnx.load(out / "model.onnx")
    change(model)
    onnx.save(model, out / "model.onnx")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = file_sha256(out / "model.onnx")
    manifest["weights"] = digests(model)
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


def problems(folder: Path, run: Path | None = None) -> dict[str, str]:
    return {check.path: " ".join(check.problems) for check in verify(folder, run) if not check.passed}


def test_a_sound_export_agrees_on_every_path(exported: Path, run: Path) -> None:
    checks = verify(exported, run)
    assert [check.path for check in checks] == [
        "files", "training", "predict", "model.onnx", "prepared.onnx", "example.py",
    ]  # fmt: skip
    assert not any(check.problems for check in checks)
    assert problems(exported) == {}


@pytest.mark.parametrize("name", SABOTAGE)
def test_sabotage_is_found_and_named(name: str, exported: Path, run: Path, tmp_path: Path) -> None:
    change, words = SABOTAGE[name]
    folder = sabotaged(exported, tmp_path / "copy", change)
    assert words in problems(folder, run)["model.onnx"]
    assert words in problems(folder)["model.onnx"]


def test_a_changed_weight_is_named_where_the_manifest_is_the_exported_one(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    model = onnx.load(folder / "model.onnx")
    name = max(model.graph.initializer, key=lambda each: len(each.raw_data)).name
    another_weight(model)
    onnx.save(model, folder / "model.onnx")
    found = problems(folder)
    assert found["files"] == "model.onnx is not the exported one" and name in found["model.onnx"]


def test_no_code_of_a_strangers_export_runs(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "example.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["example.py"] = file_sha256(folder / "example.py")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "example.py" in problems(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "golden/../../secret", "golden/a/b", ".hidden"])
def test_no_file_outside_of_the_folder_is_opened(name: str, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (tmp_path / "secret").write_bytes(b"secret")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    manifest["golden"][0]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="which no export has"):
        open_export(folder)


def test_a_model_or_values_that_do_not_fit_are_one_line(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].name = "picture"
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(RunError, match="cannot be run"):
        verify(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["class_names"] = manifest["class_names"][:1]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="does not fit"):
        verify(folder)


def test_links_and_files_beside_the_model_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "golden" / "more.png").symlink_to(tmp_path)
    with pytest.raises(RunError, match="link"):
        verify(folder)
    (folder / "golden" / "more.png").unlink()
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RunError, match="reads other files"):
        read_onnx(folder / "model.onnx")
