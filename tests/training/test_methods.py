"""Every adapter method goes through the whole pipeline: cut, training, best weights, saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.core import spec
from visionadapt.errors import RunError, UsageError
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.pipeline import Pipeline
from visionadapt.frozen.planning import make_plan
from visionadapt.runs.saved import restore

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
TOKENS = {"adaptformer", "convpass", "vpt"}


def small(name: str) -> va.Classifier:
    if name in TOKENS:
        return va.classifier("test_vit", ("blood", "grass"), name, weights="none", image_size=64)
    return va.classifier(SMALL_BACKBONE, ("blood", "grass"), name, weights="none", image_size=64)


@pytest.mark.parametrize("name", sorted(spec.NAMES["adapter"]))
def test_a_method_is_trained_saved_and_loaded(name: str, tinted_folder: Make, tmp_path: Path) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small(name)
    prepare = va.preprocessing_for(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    epochs = list(va.fit(model, train, val, prepare, epochs=4, batch_size=8, precision="float32"))
    assert all(torch.isfinite(torch.tensor(epoch.train_loss)) for epoch in epochs)
    assert epochs[-1].train_loss < epochs[0].train_loss
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert any(key.startswith("backbone.") for key in changed), "the adapter layers have learned"

    golden = [(val.key(index), val.read(index)) for index in range(2)]
    run = va.save(tmp_path / "run", model, prepare, weights="none", golden=golden)
    predictor = va.load(run)
    assert predictor.golden_difference() == 0
    files = [train.read(index) for index in range(3)]
    pixels = torch.stack([prepare.host(data) for data in files])
    frozen = FrozenPart(model)
    pipeline = Pipeline(frozen, prepare, make_plan(frozen, va.TrainingSettings(precision="float32")))
    with torch.inference_mode():
        whole = model.features({"x": prepare.device(pixels)}, 0)
        parts = pipeline.suffix(pipeline.prefix(pixels))
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-5)


def test_probe_first_then_fine_tuning(tinted_folder: Make) -> None:
    """LP-FT (Kumar et al., 2022): the backbone moves only when the head has been trained."""
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small("lpft(probe=0.5)")
    states = [
        {key: tensor for key, tensor in epoch.state.tensors.items() if key.startswith("weights/default/")}
        for epoch in va.fit(model, train, val, va.preprocessing_for(model), epochs=4, patience=0)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[1][key], states[3][key]) for key in states[0])


def test_blocks_computed_again_train_alike(tinted_folder: Make) -> None:
    train, val = va.split(sources.FolderSource(tinted_folder()))
    losses = []
    for checkpointing in (False, True):
        model = small("lora(dropout=0.5)")
        prepare = va.preprocessing_for(model)
        settings = va.TrainingSettings(epochs=3, precision="float32", checkpointing=checkpointing)
        losses.append([epoch.train_loss for epoch in va.fit(model, train, val, prepare, settings=settings)])
        assert model.backbone.checkpointing is checkpointing
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    model = small("side")
    with pytest.raises(UsageError, match="side network"):
        list(va.fit(model, train, val, va.preprocessing_for(model), epochs=1, checkpointing=True))


@pytest.mark.parametrize(("backbone", "adapter"), [("test_vit", "lora"), (SMALL_BACKBONE, "repadapter")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_trained_compiles_in_one_graph(backbone: str, adapter: str) -> None:
    model = va.classifier(backbone, ("a", "b"), f"{adapter}(blocks=last:1)", weights="none", image_size=64).train()
    cut = len(model.backbone.segments) - 2
    with torch.no_grad():
        state = model.prefix(torch.randn(2, 3, 64, 64), cut)
    torch._dynamo.reset()
    compiled = torch.compile(lambda state: model.features(state, cut), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(state), model.features(state, cut))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"backbone": "test_resnet"}, "backbone 'test_efficientnet', and this model has 'test_resnet'"),
        ({"seed": 1}, "weights_hash"),
        ({"image_size": 96}, "image_size 64, and this model has 96"),
        ({"adapter": "bottleneck(rank=3)"}, r"adapter 'bottleneck\(rank=2\)', and this model has"),
        ({"classes": ("a", "b", "c")}, r"classes \['a', 'b'\]"),
    ],
)
def test_a_run_is_restored_into_its_like_alone(changes: dict[str, object], difference: str, tmp_path: Path) -> None:
    settings = {"backbone": SMALL_BACKBONE, "classes": ("a", "b"), "adapter": "bottleneck(rank=2)", "image_size": 64}
    model = va.classifier(**settings, weights="none")
    run = va.save(tmp_path / "run", model, va.preprocessing_for(model), weights="none")
    restore(va.classifier(**settings, weights="none"), run)
    with pytest.raises(RunError, match=difference):
        restore(va.classifier(**{**settings, **changes}, weights="none"), run)
