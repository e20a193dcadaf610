"""Attaching, switching and detaching: what changes in the model and what does not."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from visionadapt import adapters
from visionadapt.adapters import SSF, Bottleneck, LoRA, Placement, attach, detach, find_sites, switch, trainable
from visionadapt.backbones import load
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import encoder, pixels, randomise, sites_of, vit


class Classified(nn.Module):
    """A network with a BatchNorm, dropout, and a composite that reads its own mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 8, 1))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def _bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


def test_a_backbone_is_asked_for_its_own_sites() -> None:
    backbone = load("test_resnet", weights="none")
    assert [site.name for site in find_sites(backbone)] == [site.name for site in backbone.sites()]
    done = attach(backbone, LoRA(rank=2, blocks="last:1"))
    assert set(done.sites) == {site.name for site in backbone.sites() if site.block == 3 and site.kind == "conv"}


def test_detaching_restores_the_model() -> None:
    model = vit()
    model.head.weight.requires_grad_(False)
    model.blocks[0].train()
    before, types = _bits(model), [type(module) for module in model.modules()]
    grads, modes = trainable(model), [module.training for module in model.modules()]
    keys = set(before)
    attach(model, LoRA(rank=2), sites=sites_of(model))
    assert keys <= set(model.state_dict())
    assert isinstance(model.blocks[0].attn.qkv, nn.Linear)
    randomise(model)
    detach(model)
    assert _same_bits(before, _bits(model))
    assert [type(module) for module in model.modules()] == types
    assert trainable(model) == grads
    assert [module.training for module in model.modules()] == modes
    assert all("train" not in module.__dict__ and not module._forward_hooks for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_independent(copier: object) -> None:
    model = vit()
    attach(model, Bottleneck(rank=2))
    randomise(model)
    twin = copier(model)
    expected = model(pixels())
    assert torch.equal(twin(pixels()), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(model(pixels()), expected)
    detach(twin)
    assert torch.equal(model(pixels()), expected)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_changed_weights_is_independent(copier: object) -> None:
    model, x = encoder(2), torch.randn(2, 5, 16)
    keys = set(model.state_dict())
    attach(model, LoRA(rank=2))
    randomise(model)
    assert keys <= set(model.state_dict())
    assert isinstance(model.layers[0].self_attn, nn.MultiheadAttention)
    expected, twin = model(x), copier(model)
    detach(model)
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    torch.testing.assert_close(twin(x), expected)
    detach(twin)
    torch.testing.assert_close(twin(x), model(x))


def test_only_the_adapter_is_trainable_and_moves() -> None:
    model = Classified().train()
    attach(model, LoRA(rank=2), where="body.3")
    before = _bits(model)
    optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], 0.1)
    for _ in range(3):
        model.train()
        optimiser.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimiser.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == set(trainable(model)) != set()
    assert all("visionadapt_adapters" in key for key in moved)


@pytest.mark.parametrize("call", ["model", "part", "wrapped"])
def test_frozen_modules_stay_in_eval_whatever_calls_train(call: str) -> None:
    model = Classified()
    attach(model, Bottleneck(rank=2, dropout=0.5), where="body.3")
    {"model": model, "part": model.body, "wrapped": nn.Sequential(model)}[call].train()
    adapter = model.body[3].visionadapt_adapters["default"]
    assert adapter.training and adapter.dropout.training
    assert not any(module.training for module in (model, model.body, *model.body, model.head))
    model.eval()
    assert not adapter.training
    detach(model)
    model.train()
    assert all(module.training for module in model.modules())


@pytest.mark.slow
def test_initial_values_depend_only_on_seed_and_site() -> None:
    def values(seed: int, blocks: str, noise: int) -> torch.Tensor:
        torch.manual_seed(noise)
        model = vit()
        torch.manual_seed(noise)
        attach(model, Bottleneck(rank=2, blocks=blocks), seed=seed)
        return model.blocks[3].visionadapt_adapters["default"].down.weight

    assert torch.equal(values(0, "all", 1), values(0, "last:1", 2))
    assert not torch.equal(values(0, "all", 1), values(1, "all", 1))
    model = vit()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    attach(model, Bottleneck(rank=2))
    assert torch.equal(torch.rand(1), expected)
    first, second = (model.blocks[i].visionadapt_adapters["default"].down.weight for i in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_several_adapters_add_up_and_can_be_switched_and_detached_one_by_one() -> None:
    model, x = vit(), pixels()
    plain = model(x)
    attach(model, LoRA(rank=2), name="first", sites=sites_of(model))
    randomise(model)
    first = model(x)
    attach(model, Bottleneck(rank=2), name="second")
    assert torch.equal(model(x), first)
    assert {key.split("visionadapt_adapters.")[1].split(".")[0] for key in trainable(model)} == {"first", "second"}
    switch(model, "second")
    assert torch.equal(model(x), plain)
    assert all(".second." in key for key in trainable(model))
    randomise(model)
    second = model(x)
    switch(model, "first")
    assert torch.equal(model(x), first)
    switch(model)
    assert torch.equal(model(x), plain)
    assert trainable(model) == []
    switch(model, "second")
    detach(model, "first")
    assert adapters.names(model) == ("second",)
    assert torch.equal(model(x), second)


def test_the_result_describes_what_was_attached() -> None:
    model = vit(depth=2)
    done = attach(model, Bottleneck(rank=2, scale=False), name="a")
    assert done.name == "a"
    assert done.sites == ("blocks.0", "blocks.1")
    assert done.trainable == 2 * (2 * 2 * 24 + 2 + 24)
    assert done.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
def test_errors_are_one_line_and_change_nothing() -> None:
    model = vit()
    before = _bits(model)
    cases = [
        (lambda: detach(model), "attach one"),
        (lambda: attach(model, LoRA(), where="*.norm1"), r"LoRA .*\.norm1: LayerNorm"),
        (lambda: attach(model, LoRA(), where="nowhere"), "nowhere"),
        (lambda: attach(model, LoRA(), name="a/b"), "a/b"),
        (lambda: attach(model, LoRA(), sites=find_sites(vit())), r"blocks\.0\..*sites"),
    ]
    for call, words in cases:
        with pytest.raises(AdapterError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert _same_bits(before, _bits(model))
    attach(model, LoRA(), where="*.qkv")
    with pytest.raises(AdapterError, match=r"'default'.*name="):
        attach(model, LoRA(), where="*.qkv")
    with pytest.raises(AdapterError, match=r"'other'.*default"):
        switch(model, "other")


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (Bottleneck(rank=2), None),
        (Bottleneck(rank=2), "layers.*.self_attn"),
        (Bottleneck(rank=2, placement="houlsby"), None),
        (LoRA(rank=2), None),
        (LoRA(rank=2), "layers.*.linear1"),
        (LoRA(rank=2), "*.self_attn.out_proj"),
    ],
)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_transformer_encoder_in_every_mode(settings: object, where: str | None, padded: bool) -> None:
    model = encoder()
    x = torch.randn(2, 5, 16)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    real = torch.ones(2, 5, dtype=torch.bool) if mask is None else ~mask
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=mask)[real]
    nested = model.use_nested_tensor
    attach(model, settings, where=where)
    torch.testing.assert_close(model(x, src_key_padding_mask=mask)[real], expected)
    reached = adapters.probe(model, {"src": x, "src_key_padding_mask": mask})
    assert reached > 0
    randomise(model)
    with torch.enable_grad():
        wanted = model.train()(x, src_key_padding_mask=mask)[real]
    with torch.inference_mode():
        got = model.eval()(x, src_key_padding_mask=mask)[real]
    torch.testing.assert_close(got, wanted.detach(), rtol=1e-4, atol=1e-5)
    detach(model)
    assert model.use_nested_tensor == nested
    with torch.no_grad():
        assert torch.equal(model(x, src_key_padding_mask=mask)[real], expected)


@pytest.mark.slow
def test_attaching_in_any_order_gives_the_same_model() -> None:
    model, other = vit(), vit()
    sites = sites_of(model)
    attach(model, LoRA(rank=2), sites=sites)
    shuffled = sites_of(other)
    random.Random(0).shuffle(shuffled)
    attach(other, LoRA(rank=2), sites=shuffled)
    assert _same_bits(_bits(model), _bits(other))


@dataclass(frozen=True)
class Shift(Placement):
    """User-defined settings: add a learned number to every output."""

    start: float = 0.0

    def refuse(self, site: Site) -> str:
        return ""

    def own_places(self, sites: Sequence[Site]) -> list[Site]:
        return [site for site in sites if site.kind == "block"]

    def build(self, site: Site) -> nn.Module:
        return Shifting(self.start)


class Shifting(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(start))

    def forward(self, x: torch.Tensor, y: torch.Tensor, host: nn.Module) -> torch.Tensor:
        return y + self.amount


def test_a_user_defined_method() -> None:
    model, plain = vit(depth=1), vit(depth=1)
    assert attach(model, Shift(0.5)).trainable == 1
    x = torch.randn(2, 5, 24)
    assert torch.equal(model.blocks[0](x), plain.blocks[0](x) + 0.5)
    assert adapters.probe(model, pixels()) == 1


def test_a_failing_weight_adapter_is_not_mistaken_for_a_missing_attribute() -> None:
    class Failing(nn.Module):
        points = ("weight",)

        def change_weight(self, weight: torch.Tensor) -> torch.Tensor:
            return weight.no_such_thing

    class Fails(Shift):
        def build(self, site: Site) -> nn.Module:
            return Failing()

    model = nn.Sequential(nn.Linear(2, 2))
    attach(model, Fails(), where="0")
    with pytest.raises(RuntimeError, match="no_such_thing"):
        model(torch.zeros(1, 2))


def test_a_custom_train_method_cannot_wake_frozen_modules() -> None:
    class Eager(nn.Sequential):
        def train(self, mode: bool = True) -> Eager:
            for module in self.modules():
                module.training = mode
            return self

    model = Eager(nn.Linear(4, 4), nn.BatchNorm1d(4))
    attach(model, LoRA(rank=2), where="0")
    nn.ModuleList([model]).train()
    assert not model[1].training
    assert model[0].visionadapt_adapters["default"].training


def test_sites_of_a_foreign_module() -> None:
    found = {site.name: site for site in find_sites(encoder(2))}
    assert (found["layers.1"].kind, found["layers.1"].dim, found["layers.1"].block) == ("block", 16, 1)
    assert not found["layers.0.self_attn.out_proj"].called
    assert found["layers.0.self_attn"].rows["v"] == slice(32, 48)
    assert (found["layers.1.linear1"].dim, found["layers.1.linear1"].block) == (32, 1)
    body = [site for site in find_sites(Classified()) if site.name.startswith("body")]
    assert [(site.kind, site.layout, site.block) for site in body] == [
        ("conv", "NCHW", None),
        ("norm", "NCHW", None),
        ("conv", "NCHW", None),
    ]


class ByName(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for _, module in self.items():
            x = module(x)
        return x


@pytest.mark.parametrize("kind", ["Sequential", "ModuleDict"])
def test_a_container_does_not_call_its_adapters_as_members(kind: str) -> None:
    layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)]
    container = nn.Sequential(*layers) if kind == "Sequential" else ByName({f"l{i}": m for i, m in enumerate(layers)})
    model, x = nn.Sequential(container), torch.randn(2, 3, 4)
    expected = model(x)
    site = Site("0", container, "block", "NLC", 4, 0, 0)
    adapters.attach(model, Bottleneck(rank=2), sites=[site])
    assert torch.allclose(model(x), expected)
    assert len(container) == 3
    again = pickle.loads(pickle.dumps(model))
    for parameter in (*model.parameters(), *again.parameters()):
        parameter.data.add_(0.1)
    changed = model(x)
    assert not torch.allclose(changed, expected)
    assert torch.equal(again(x), changed)
    adapters.detach(model)
    assert type(container) in {nn.Sequential, ByName}


def test_a_class_that_others_derived_from_a_hosts_stays() -> None:
    model, x = encoder(2), torch.randn(2, 5, 16)
    plain = model(x)
    attach(model, SSF(), where="layers.*.linear1")
    parametrizations.weight_norm(model.layers[1].linear1)
    for change in (lambda: detach(model), lambda: attach(model, SSF(), where="*.linear1", name="other")):
        with pytest.raises(AdapterError, match=r"layers\.1\.linear1"):
            change()
    parametrize.remove_parametrizations(model.layers[1].linear1, "weight")
    detach(model)
    torch.testing.assert_close(model(x), plain)


def test_blocks_are_found_beside_those_with_an_adapter() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3)))
    before = [(site.name, site.kind, site.block) for site in find_sites(model)]
    attach(model, Bottleneck(rank=2, blocks="last:1"))
    assert [(site.name, site.kind, site.block) for site in find_sites(model)] == before


def _halves() -> tuple[nn.Module, nn.Module]:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3))).train()
    return model, model[0]


@pytest.mark.parametrize("name", [None, "part"])
def test_a_part_stays_frozen_while_the_whole_has_an_adapter(name: str | None) -> None:
    model, part = _halves()
    own = trainable(model)
    attach(model, Bottleneck(rank=2, blocks="last:1"), name="whole")
    frozen = trainable(model)
    attach(part, LoRA(rank=2), where="*", name="part")
    detach(part, name)
    assert trainable(model) == frozen and not part.training
    detach(model)
    assert trainable(model) == own and all(module.training for module in model.modules())


def test_the_whole_is_free_while_only_a_part_has_an_adapter() -> None:
    model, part = _halves()
    outside = [name for name in trainable(model) if not name.startswith("0.")]
    attach(part, LoRA(rank=2), where="*", name="part")
    attach(model, Bottleneck(rank=2, blocks="last:1"), name="whole")
    detach(model, "whole")
    switch(model, "part")
    assert [name for name in trainable(model) if "adapters" not in name] == outside
    assert model[1].training and not part[0].training
    detach(part)
    assert trainable(part) == ["0.weight", "0.bias", "2.weight", "2.bias"]
