"""`fit` in Python: what is trained, what is left alone, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import visionadapt as va
from visionadapt import sources
from visionadapt.errors import DivergenceError, MemoryShortageError, UsageError
from visionadapt.model.classifier import trained_tensors
from visionadapt.tasks import Classification
from visionadapt.training.epochs import Best

from ..conftest import SMALL_BACKBONE

pytestmark = pytest.mark.slow

Make = Callable[..., Path]


def small(classes: tuple[str, ...], adapter: str | None = None, seed: int = 0) -> va.Classifier:
    return va.classifier(SMALL_BACKBONE, classes, adapter, weights="none", image_size=64, seed=seed)


def test_a_probe_learns_and_the_backbone_stays_bit_identical(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source, val=0.3)
    model = small(source.classes, "bottleneck(rank=4, blocks=last:2)")
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    trained = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    epochs = list(va.fit(model, train, val, va.preprocessing_for(model), epochs=6, batch_size=4, label_smoothing=0.0))
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert max(epoch.val_accuracy for epoch in epochs) == 1.0
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in trained), name


def test_step_zero_is_the_pretrained_model(tinted_folder: Make) -> None:
    plain, adapted = small(("a", "b")), small(("a", "b"), "lora(rank=2)")
    pixels = torch.randn(2, 3, 64, 64)
    assert torch.equal(plain.backbone(pixels), adapted.backbone(pixels))


@pytest.mark.parametrize(("decay", "kept"), [(0.0, "weights/head/linear.weight"), (0.9, "average/head.linear.weight")])
def test_the_model_ends_with_the_best_epoch(tinted_folder: Make, decay: float, kept: str) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source, val=0.3)
    model = small(source.classes)
    given = {"epochs": 5, "batch_size": 4, "head": "trained", "ema_decay": decay}
    epochs = list(va.fit(model, train, val, va.preprocessing_for(model), **given))
    best = epochs[-1].best_epoch
    weights = epochs[best - 1].state.tensors[kept]
    assert torch.equal(model.head.linear.weight.detach(), weights)


def test_breaking_off_leaves_the_latest_weights(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source, val=0.3)
    model = small(source.classes)
    for epoch in va.fit(model, train, val, va.preprocessing_for(model), epochs=5, head="trained"):  # noqa: B007 - used below
        break
    assert torch.equal(model.head.linear.weight.detach(), epoch.state.tensors["weights/head/linear.weight"])


def test_the_first_step_is_adamw_s(tinted_folder: Make) -> None:
    """One batch, no smoothing: AdamW first moves each weight by the learning rate against its gradient's sign."""
    source = sources.FolderSource(tinted_folder(count=4))
    train, val = va.split(source, val=0.3)
    model = small(source.classes)
    prepare = va.preprocessing_for(model)
    changes = {
        "head": "trained",
        "epochs": 1,
        "batch_size": 64,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "clip": 0.0,
    }
    list(va.fit(model, train, val, prepare, head_learning_rate=0.01, precision="float32", **changes))
    pixels = torch.stack([prepare.host(train.read(index)) for index in range(len(train))])
    labels = torch.tensor([train.label(index) for index in range(len(train))])
    fresh = small(source.classes)
    fresh.head.set_statistics(model.head.feature_mean, model.head.feature_std)
    torch.nn.functional.cross_entropy(fresh(prepare.device(pixels)), labels).backward()
    gradient = fresh.head.linear.weight.grad
    assert gradient is not None
    large = gradient.abs() > 1e-4
    assert large.float().mean() > 0.5
    assert torch.allclose(model.head.linear.weight[large], -0.01 * gradient[large].sign(), atol=2e-5)


def test_a_trained_classifier_that_is_trained_on_keeps_what_it_knows(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    other, _ = va.split(sources.FolderSource(tinted_folder("others", count=6)), val=0.2, seed=3)
    model = small(source.classes)
    prepare = va.preprocessing_for(model)
    first = list(
        va.fit(model, train, val, prepare, epochs=4, precision="float32", head_learning_rate=0.01, head="trained")
    )
    changes = {"epochs": 1, "precision": "float32", "head_learning_rate": 1e-12, "head": "trained"}
    (again,) = va.fit(model, other, val, prepare, **changes)
    assert again.val_loss == pytest.approx(first[first[-1].best_epoch - 1].val_loss, abs=1e-4)


def test_head_statistics_are_those_of_the_training_features(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small(source.classes)
    prepare = va.preprocessing_for(model)
    list(va.fit(model, train, val, prepare, epochs=1, precision="float32"))
    pixels = torch.stack([prepare.host(train.read(index)) for index in range(len(train))])
    with torch.no_grad():
        features = model.backbone(prepare.device(pixels))
    assert torch.allclose(model.head.feature_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(model.head.feature_std, features.std(0, unbiased=False), atol=1e-4)


def test_accumulated_batches_make_one_step(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    heads = []
    for batch_size, accumulate in ((8, 1), (4, 2), (2, 4)):
        model = small(source.classes)
        changes = {
            "epochs": 2,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "dropout": 0.0,
            "precision": "float32",
            "head": "trained",
        }
        list(va.fit(model, train, val, va.preprocessing_for(model), **changes))
        heads.append(model.head.linear.weight.detach())
    assert torch.allclose(heads[0], heads[1], atol=1e-5)
    assert torch.allclose(heads[0], heads[2], atol=1e-5)


def test_every_picture_and_view_runs_through_the_frozen_part_once(tinted_folder: Make, own_cache: Path) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small(source.classes)
    seen = []
    model.backbone.model.conv_stem.register_forward_hook(
        lambda module, args, output: seen.extend([len(args[0])] if len(args[0]) > 1 else [])
    )
    prepare = va.preprocessing_for(model)
    list(va.fit(model, train, val, prepare, epochs=7, patience=0, augment="light", views=3))
    batches = -(-len(train) * 3 // 32) + -(-len(val) // 32)
    assert len(seen) == batches
    list(va.fit(small(source.classes), train, val, prepare, epochs=3, patience=0))
    list(va.fit(model, train, val, prepare, epochs=7, patience=0, augment="light", views=3))
    assert len(seen) == batches


def test_a_changed_setting_never_finds_another_s_features(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    results = []
    for policy in ("crop", "squash", "letterbox", "crop"):
        model = small(source.classes)
        prepare = va.preprocessing_for(model, policy)
        results.append(list(va.fit(model, train, val, prepare, epochs=2))[-1].val_loss)
    assert results[0] == results[3]
    assert len(set(results)) == 3


def test_weights_that_were_changed_in_memory_never_find_the_old_ones_features(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    results = []
    for factor in (1.0, -1.0, 1.0):
        model = small(source.classes)
        with torch.no_grad():
            next(model.backbone.parameters()).mul_(factor)
        results.append(list(va.fit(model, train, val, va.preprocessing_for(model), epochs=2))[-1].val_loss)
    assert results[0] == results[2] != results[1]


@pytest.mark.parametrize("augment", ["none", "light", "strong"])
def test_two_runs_give_the_same_bits(tinted_folder: Make, augment: str, tmp_path: Path) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    weights = []
    for run in range(2):
        torch.manual_seed(run)
        model = small(source.classes, "bottleneck(rank=4, blocks=last:2, dropout=0.1, drop_path=0.2)")
        changes = {"epochs": 3, "batch_size": 4, "workers": 2 * run, "augment": augment}
        list(va.fit(model, train, val, va.preprocessing_for(model), cache=tmp_path / str(run), **changes))
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_loss_that_is_no_number_names_the_batch(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small(source.classes)
    with torch.no_grad():
        model.head.linear.bias.fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"epoch 1; lower --learning-rate.*blood/"):
        list(va.fit(model, train, val, va.preprocessing_for(model), epochs=1, head="trained"))


def test_an_unknown_setting_gets_a_suggestion(tinted_folder: Make) -> None:
    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    model = small(source.classes)
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        next(va.fit(model, train, val, va.preprocessing_for(model), epoch=3))


def test_weights_are_balanced_on_request(tinted_folder: Make, tmp_path: Path) -> None:
    root = tinted_folder()
    for path in sorted((root / "grass").iterdir())[3:]:
        path.unlink()
    source = sources.FolderSource(root)
    train, val = va.split(source)
    losses = {}
    for class_weights in ("none", "balanced"):
        model = small(source.classes)
        epoch = next(
            va.fit(
                model, train, val, va.preprocessing_for(model), class_weights=class_weights, epochs=2, head="trained"
            )
        )
        losses[class_weights] = epoch.train_loss
    assert losses["none"] == pytest.approx(losses["balanced"], rel=0.2)
    assert losses["none"] != losses["balanced"]


def test_the_chosen_metric_chooses_and_the_sampling_balances(tinted_folder: Make) -> None:
    root = tinted_folder()
    for path in sorted((root / "grass").iterdir())[4:]:
        path.unlink()
    source = sources.FolderSource(root)
    train, val = va.split(source, val=0.3)
    model = small(source.classes)
    changes = {"epochs": 2, "batch_size": 4, "metric": "macro_f1", "loss": "focal", "sampling": "balanced"}
    epochs = list(va.fit(model, train, val, va.preprocessing_for(model), **changes, class_weights={"grass": 2}))
    assert all(epoch.val_score == epoch.figures["val_macro_f1"] for epoch in epochs)
    assert epochs[0].figure == "val_macro_f1"
    with pytest.raises(UsageError, match="no class 'gras'; did you mean 'grass'"):
        next(va.fit(model, train, val, va.preprocessing_for(model), class_weights={"gras": 2}))


def test_a_pipeline_of_one_s_own_is_never_taken_for_an_older_one(tinted_folder: Make) -> None:
    class Shift:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.roll(self.by, dims=-1) // self.by

        def __repr__(self) -> str:
            return "Shift()"

    source = sources.FolderSource(tinted_folder())
    train, val = va.split(source)
    losses = []
    for by in (1, 3, 1):
        model = small(source.classes)
        epochs = list(va.fit(model, train, val, va.preprocessing_for(model), epochs=2, augment=Shift(by), views=1))
        losses.append(epochs[-1].val_loss)
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize(
    ("pictures", "accuracies", "best"),
    [
        (100, [0.5, 0.9, 0.88, 0.86, 0.8], 3),  # one standard error of 0.9 on 100 pictures is 0.03
        (10_000, [0.5, 0.9, 0.898, 0.89], 3),  # on 10,000 it is 0.003
        (100, [0.8, 0.79, 0.85, 0.83, 0.7], 4),  # 0.036 below 0.85
        (50, [1.0, 0.98], 1),  # perfect figures leave no room for chance
        (50, [1.0, 1.0, 0.98], 2),
    ],
)
def test_the_best_epoch_by_hand(pictures: int, accuracies: list[float], best: int) -> None:
    found = Best()
    for epoch, accuracy in enumerate(accuracies, 1):
        if found.accepts(accuracy, Classification().tolerance(found.highest, pictures)):
            found = found.followed_by(accuracy, epoch, {}, (0, 0))
    assert found.epoch == best


def exhausted_above(rows: int, calls: list[int]) -> Callable[[torch.nn.Module, Any, Any], None]:
    """A forward hook that runs out of memory for more rows than these, after it was called."""

    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        calls.append(len(args[0]))
        if len(args[0]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …\nprocess 1 has …")

    return hook


@pytest.mark.parametrize("block", [0, -1])
def test_too_little_memory_for_one_image_is_one_line_that_says_what_to_change(tinted_folder: Make, block: int) -> None:
    source = sources.FolderSource(tinted_folder(count=4))
    train, val = va.split(source)
    model = small(source.classes, "bottleneck(rank=2, blocks=last:1)")
    model.backbone.anatomy.blocks[block].module.register_forward_hook(exhausted_above(0, []))
    with pytest.raises(MemoryShortageError, match=r"^cpu has too little memory: give a smaller --image-size"):
        list(va.fit(model, train, val, va.preprocessing_for(model), epochs=1, batch_size=7))


@pytest.mark.parametrize(("block", "rows"), [(0, 5), (-1, 3), (-1, 1)])
def test_a_batch_too_large_for_the_memory_is_divided_to_the_same_result(
    tinted_folder: Make, tmp_path: Path, block: int, rows: int
) -> None:
    source = sources.FolderSource(tinted_folder(count=10))
    train, val = va.split(source)
    found, losses = [], []
    for number, most in enumerate((10**9, rows)):
        model, calls = small(source.classes, "bottleneck(rank=2, blocks=last:1, dropout=0.3)"), list[int]()
        model.backbone.anatomy.blocks[block].module.register_forward_hook(exhausted_above(most, calls))
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "accumulate": 2, "precision": "float32"}
        cache = tmp_path / str(number)
        losses.append(
            [e.train_loss for e in va.fit(model, train, val, va.preprocessing_for(model), cache=cache, **settings)]
        )
        found.append({name: value.clone() for name, value in trained_tensors(model).items()})
    assert max(calls) > rows and calls.count(max(calls)) == 1, "it is not tried again for every batch"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-5, atol=1e-5), name
