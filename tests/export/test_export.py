"""An exported file gives the answers of `predict`, in a runtime that knows nothing of this library."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import visionadapt as va
from visionadapt.export.examples import examples
from visionadapt.export.export import export
from visionadapt.export.golden import decoded
from visionadapt.export.served import not_traced
from visionadapt.export.verify import verify

from ..conftest import SMALL_BACKBONE, tinted
from .conftest import CLASSES, saved_run

pytestmark = pytest.mark.slow

SIZES = ((90, 50), (40, 130), (64, 64), (300, 200))


def session(folder: Path, name: str = "model.onnx") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])


def test_images_of_any_size_get_the_answers_of_predict(run: Path, exported: Path) -> None:
    predictor, model = va.load(run), session(exported)
    for number, size in enumerate(SIZES):
        image = np.asarray(tinted(size, number, number))
        names = [output.name for output in model.get_outputs()]
        found = dict(zip(names, model.run(None, {"image": image[None]}), strict=True))
        own = predictor.predict(image)
        assert np.abs(found["probabilities"][0] - np.array(own.probabilities)).max() < 1e-5
        assert CLASSES[int(found["class_index"][0])] == own.label
        assert bool(found["abstain"][0]) == own.abstain
        assert abs(float(found["distance"][0]) - own.distance) < 1e-4 * own.distance
        assert np.allclose(found["features"], predictor.features(image), atol=1e-5)


def test_a_batch_and_prepared_floats_get_the_same(run: Path, exported: Path) -> None:
    predictor = va.load(run)
    images = np.stack([np.asarray(tinted((70, 50), number, number)) for number in range(3)])
    (batch,) = session(exported).run(["probabilities"], {"image": images})
    assert np.abs(batch - predictor.predict_proba(images)).max() < 1e-5
    pixels = torch.stack([predictor.prepare.host(image) for image in images])
    floats = predictor.prepare.device(pixels).numpy()
    (prepared,) = session(exported, "prepared.onnx").run(["probabilities"], {"prepared": floats})
    assert np.array_equal(prepared, batch)


def test_the_metadata_says_what_a_program_needs(exported: Path) -> None:
    facts = session(exported).get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == list(CLASSES)
    assert json.loads(facts["temperature"]) == 1.7 and json.loads(facts["threshold"]) == 0.4
    assert [step["step"] for step in json.loads(facts["preprocessing"])][1:] == ["ResizeAdapter", "NormalizeAdapter"]
    assert json.loads((exported / "manifest.json").read_text())["adapter_merged"] is True


def test_the_example_is_short_and_needs_three_packages(exported: Path, tmp_path: Path) -> None:
    text = (exported / "example.py").read_text()
    assert len(text.splitlines()) <= 20
    tinted((90, 50), 0, 0).save(tmp_path / "a.png")
    Image.fromarray(np.full((50, 90), 40_000, np.uint16)).save(tmp_path / "deep.png")
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'timm', 'visionadapt'])); import runpy; "
    code = f"{blocked}runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    files = [str(tmp_path / name) for name in ("a.png", "deep.png")]
    command = [sys.executable, "-c", code, str(exported / "example.py"), *files]
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    answer, deep = map(json.loads, answers)
    assert answer["label"] in CLASSES and 0 < answer["probability"] <= 1
    assert (answer["cut_to_8_bits"], deep["cut_to_8_bits"]) == (False, True)


def test_several_labels_per_image_have_an_output_more(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "multilabel", "bottleneck(rank=2, blocks=last:1)")
    folder = export(run, tmp_path / "exported")
    predictor, model = va.load(run), session(folder)
    for number, size in enumerate(SIZES):
        image = np.asarray(tinted(size, number, number))
        probabilities, has_class = model.run(["probabilities", "has_class"], {"image": image[None]})
        own = predictor.predict(image)
        assert np.abs(probabilities[0] - np.array(own.probabilities)).max() < 1e-5
        assert tuple(np.array(CLASSES)[has_class[0]]) == own.labels
    assert all(check.passed for check in verify(folder, run))


def test_the_command_exports_and_verifies(
    visionadapt: Callable[..., tuple[int, str]], run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    code, text = visionadapt("export", run, "--out", out, "--json")
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert code == 0 and events[-1] == {"event": "export", "out": str(out), "verified": True}
    assert {event["path"] for event in events[:-1]} == {"files", "training", "predict", "model.onnx", "example.py"}
    assert visionadapt("export", run, "--out", out)[0] == 2
    assert visionadapt("verify", run)[0] == 0
    (out / "example.py").write_text("raise SystemExit")
    assert visionadapt("verify", out, "--run", run)[0] == 1
    shutil.rmtree(out)
    out.mkdir()
    (out / "mine").write_text("")
    assert visionadapt("export", run, "--out", out, "--overwrite")[0] == 2 and (out / "mine").exists()


def test_the_javascript_example_is_sound(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js")
    package = tmp_path / "node_modules" / "onnxruntime-web"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text("export const InferenceSession = { create: async () => ({}) };")
    (tmp_path / "example.mjs").write_text(examples("onnx", 3)["example.mjs"])
    code = """
        globalThis.fetch = async () => ({ json: async () => ({ class_names: ["a"] }) });
        const { rgb } = await import("./example.mjs");
        console.log(JSON.stringify([...rgb(Uint8ClampedArray.from([1, 2, 3, 255, 4, 5, 6, 255]))]));
    """
    command = [node, "--input-type=module", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [1, 2, 3, 4, 5, 6]


def test_grey_images_and_other_bands_are_exported_as_they_are_trained(tmp_path: Path) -> None:
    for channels, bands in ((1, None), (2, "1,3")):
        model = va.classifier(SMALL_BACKBONE, CLASSES, None, "none", 32, channels=channels)
        torch.nn.init.normal_(model.head.linear.weight)
        run = va.save(tmp_path / f"run{channels}", model, va.preprocessing_for(model, policy="letterbox", bands=bands))
        folder = export(run, tmp_path / f"exported{channels}")
        assert all(check.passed for check in verify(folder, run))
        image = np.asarray(tinted((40, 70), 1, 1))
        own = va.load(run).predict_proba(image)
        pixels = decoded(va.load(run).prepare, png(image))
        (found,) = session(folder).run(["probabilities"], {"image": pixels[None]})
        assert pixels.shape[2] == channels and np.abs(found - own).max() < 1e-5
        assert (folder / "example.py").exists() == (channels == 1)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_a_refusal_tells_the_cause_behind_the_exporters_own_words() -> None:
    outer = RuntimeError("\x1b[96mThis is step 2/3\x1b[0m of exporting. Next steps:\n...")
    outer.__cause__ = NotImplementedError("\n  aten::odd has no translation\nmore")
    reason = str(not_traced("in ONNX", outer))
    assert reason.endswith("cannot be expressed in ONNX (NotImplementedError: aten::odd has no translation)")
