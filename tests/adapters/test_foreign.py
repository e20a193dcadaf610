"""Adapters on models that are not the library's own: plain timm, torchvision and transformers modules."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import timm
import torch
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from transformers.modeling_outputs import BaseModelOutput

from visionadapt.adapters import (
    SSF,
    VPT,
    BitFit,
    Bottleneck,
    Convpass,
    DoRA,
    FullFineTuning,
    LoRA,
    RepAdapter,
    SideNetwork,
    attach,
    detach,
    find_sites,
    load_state,
    merge,
    probe,
    state,
    switch,
)
from visionadapt.core.sites import Site
from visionadapt.errors import AdapterError

from .networks import randomise


def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=3).eval()


def small(name: str, size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    shape = {"img_size": size, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.create_model(name, patch_size=8, **shape).eval()


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_lora_reaches_models_that_read_weights_without_calling_their_layers() -> None:
    for model in (small("beit_base_patch16_224"), small("eva02_tiny_patch14_224"), swin()):
        plain = model(images())
        attach(model, LoRA(rank=2))
        assert probe(model, images()) > 0
        randomise(model)
        changed = model(images())
        changed.square().sum().backward()
        assert all(parameter.grad.any() for parameter in model.parameters() if parameter.requires_grad)
        torch.testing.assert_close(merge(model)(images()), changed, rtol=1e-5, atol=1e-5)
        detach(model)
        assert torch.equal(model(images()), plain)


def test_layers_that_are_read_count_as_not_called() -> None:
    read = {site.name.rpartition(".")[2] for site in find_sites(swin()) if not site.called}
    assert read == {"qkv", "proj"}
    assert all(site.called for site in find_sites(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1))))


def test_output_is_not_scaled_where_a_layer_is_only_read() -> None:
    model = swin()
    done = attach(model, SSF())
    assert set(done.skipped) == {site.name for site in find_sites(swin()) if not site.called}
    assert set(done.sites).isdisjoint(done.skipped)
    assert probe(model, images()) == len(done.sites)


@pytest.mark.slow
def test_probing_looks_behind_layer_scales_of_almost_zero() -> None:
    model = timm.create_model("test_convnext", num_classes=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.zero_()
    bits = {key: value.clone() for key, value in model.state_dict().items()}
    attach(model, LoRA(rank=2))
    probe(model, images(64))
    detach(model)
    assert all(torch.equal(value, bits[key]) for key, value in model.state_dict().items())


def test_weight_standardised_convolutions_learn_their_own_weight() -> None:
    torch.manual_seed(0)
    model = ResNetV2(layers=(1, 1), channels=(128, 128), num_classes=3, stem_chs=32, stem_type="fixed").eval()
    done = attach(model, LoRA(rank=2))
    assert any(name.endswith("downsample.conv") for name in done.sites)
    probe(model, images())
    randomise(model)
    merged = merge(model)
    torch.testing.assert_close(merged(images()), model(images()), rtol=1e-4, atol=1e-5)
    detach(model)
    assert merged.state_dict().keys() == model.state_dict().keys()
    assert not DoRA().refuse(find_sites(nn.Sequential(nn.Linear(2, 2)))[0])
    assert "normalise" in DoRA().refuse(next(site for site in find_sites(model) if site.kind == "conv"))


def test_a_place_that_cannot_take_a_method_is_skipped_unless_it_is_named() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(*(nn.Sequential(Doubled(4, 4), nn.Linear(4, 4)) for _ in range(2)))
    done = attach(model, DoRA(rank=2))
    assert done.sites == ("0.1", "1.1")
    assert set(done.skipped) == {"0.0", "1.0"}
    detach(model)
    with pytest.raises(AdapterError, match=r"0\.0"):
        attach(model, DoRA(rank=2), where="*.0")


class Normed(nn.Module):
    """A linear layer and a BatchNorm1d over [N, C] or [N, C, L]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y) if y.dim() == 2 else self.norm(y.transpose(1, 2))


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4)])
def test_a_norm_over_vectors_scales_its_channels(shape: tuple[int, ...]) -> None:
    model = Normed().eval()
    sites = [*find_sites(model), Site("norm", model.norm, "norm", "NCHW", 6)]
    attach(model, SSF(), sites=sites)
    randomise(model)
    x = torch.randn(shape)
    torch.testing.assert_close(merge(model)(x), model(x), rtol=1e-5, atol=1e-5)


class Fixed(nn.Module):
    """A block with one learned position for each of 9 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(9, 4))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x + self.positions))


class Sized(Fixed):
    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return super().forward(x).view(len(x), height * width, -1)


@pytest.mark.parametrize("kind", [Fixed, Sized])
def test_prompts_are_refused_where_the_number_of_tokens_is_fixed(kind: type[nn.Module]) -> None:
    with pytest.raises(AdapterError, match="tokens"):
        attach(nn.ModuleList([kind(), kind()]), VPT(tokens=2))


def test_a_trial_finds_channels_that_no_layer_tells() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x1, x2 = x.chunk(2, dim=1)
            return torch.cat([self.first(x1), self.second(x2)], dim=1)

    site = next(site for site in find_sites(nn.Sequential(Branches())) if site.kind == "block")
    assert (site.layout, site.dim) == ("NCHW", 8)


class Block(nn.Module):
    """A block whose caller may name its input, and give it second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        changed: Tensor = self.last(torch.relu(self.first(x)))
        return changed if position is None else changed + 0 * position


class Net(nn.Module):
    def __init__(self, named: bool) -> None:
        super().__init__()
        self.named = named
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        position = torch.ones(1, 4, 8)
        for block in self.blocks:
            x = block(position=position, x=x) if self.named else block(x, position=position)
        return x


@pytest.mark.parametrize("method", [Convpass(rank=2, where="blocks.0"), RepAdapter(rank=2, where="blocks.*.first")])
def test_the_input_is_the_first_parameter_in_whatever_order_a_call_names_them(method: Convpass | RepAdapter) -> None:
    torch.manual_seed(0)
    named, plain = Net(True).eval(), Net(False).eval()
    plain.load_state_dict(named.state_dict())
    x = torch.randn(2, 4, 8)
    before = plain(x)
    for net in (named, plain):
        attach(net, method)
        torch.manual_seed(1)
        randomise(net)
    assert torch.equal(named(x), plain(x)) and not torch.allclose(plain(x), before)


@pytest.mark.slow
def test_attention_biases_that_timm_has_cached_are_forgotten_with_the_parameters_they_come_from() -> None:
    torch.manual_seed(0)
    net = timm.create_model("tiny_vit_5m_224", num_classes=5).eval()
    for module in net.modules():
        if hasattr(module, "attention_biases"):
            nn.init.normal_(module.attention_biases)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = net(x)
        attach(net, FullFineTuning())
        load_state(net, {key: own + torch.randn_like(own) * ("biases" in key) for key, own in state(net).items()})
        tuned = net(x)
        net.train()
        net.eval()  # which empties the caches
        assert torch.equal(net(x), tuned) and not torch.allclose(tuned, before, atol=1e-4)
        switch(net)
        assert torch.equal(net(x), before)
        switch(net, "default")
        assert torch.equal(net(x), tuned)
        assert torch.allclose(merge(net)(x), tuned, atol=1e-6)
        detach(net)
        assert torch.equal(net(x), before)


def encoder(batch_first: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


@pytest.mark.parametrize("second", [SSF(), BitFit(), RepAdapter(rank=2)])
def test_a_second_adapter_leaves_the_layers_of_the_first_alone(second: SSF | BitFit | RepAdapter) -> None:
    net, other = encoder(), encoder()
    attach(net, Bottleneck(rank=4), name="news")
    attach(net, second, name="mail")
    attach(other, Bottleneck(rank=4), name="news")
    randomise(net)
    load_state(other, state(net, "news"))
    switch(net, "news")
    x = torch.randn(3, 5, 32)
    assert torch.equal(net(x), other(x))
    switch(net, "mail")
    alone = encoder()
    attach(alone, second, name="mail")
    load_state(alone, state(net, "mail"))
    assert torch.equal(net(x), alone(x))


def test_a_ladder_runs_in_several_threads() -> None:
    net = encoder()
    attach(net, SideNetwork())
    randomise(net)
    inputs = [torch.randn(3, length, 32) for length in (5, 9)]
    with torch.no_grad():
        expected = [net(x) for x in inputs]
        with ThreadPoolExecutor(2) as pool:
            for _ in range(20):
                for found, wanted in zip(pool.map(lambda x: net(x), inputs * 4), expected * 4, strict=True):
                    assert torch.equal(found, wanted)
    assert torch.equal(pickle.loads(pickle.dumps(net))(inputs[0]), net(inputs[0]))


def test_prompts_need_samples_before_tokens() -> None:
    with pytest.raises(AdapterError, match="batch_first"):
        attach(encoder(batch_first=False), VPT(tokens=2))


class Reduced(nn.Module):
    """A block of tokens that is told the size of their map, as in PVT, SegFormer and XCiT."""

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.down, self.mlp = nn.Conv2d(4, 4, stride, stride), nn.Linear(4, 4)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        fewer = self.down(x.transpose(1, 2).reshape(len(x), -1, height, width))
        return x + self.mlp(x) + fewer.mean((2, 3))[:, None]


class Told(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(), block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, 8, 8)
        return x


def test_blocks_that_are_told_a_size_are_tried_with_one() -> None:
    sites = [site for site in find_sites(Told(Reduced)) if site.kind == "block"]
    assert [(site.layout, site.dim) for site in sites] == [("NLC", 4)] * 2


def test_a_map_that_was_guessed_is_refused_where_the_block_returns_tokens() -> None:
    class Unclear(Reduced):
        def forward(self, x: Tensor, size: dict[str, int]) -> Tensor:
            return super().forward(x, size["height"], size["width"])

    class Asked(Told):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x, {"height": 8, "width": 8})
            return x

    net, x = Asked(Unclear).eval(), torch.randn(4, 64, 4)  # as many samples as channels
    attach(net, Bottleneck(rank=2))
    with pytest.raises(AdapterError, match=r"blocks\.0 returns the shape \[4, 64, 4\]"):
        net(x)
    detach(net)
    attach(net, Bottleneck(rank=2), sites=[replace(site, layout="NLC") for site in find_sites(net)])
    assert probe(net, x) == 2


class Merged(nn.Module):
    """A block that keeps every fourth token."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::4] + self.last(self.first(x[:, ::4]).relu())


def test_a_ladder_climbs_a_pyramid_of_tokens_that_form_no_map() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(Merged(), Merged()).eval(), torch.randn(2, 72, 8)
    plain = net(x)
    attach(net, SideNetwork(reduction=2))
    assert torch.equal(net(x), plain)
    assert probe(net, x) == 2


def test_a_ladder_pools_tokens_as_the_map_that_they_form() -> None:
    rungs = SideNetwork(reduction=1).build_together([Site(str(i), nn.Identity(), "block", "NLC", 3) for i in range(2)])
    below = torch.randn(2, 16, 3)
    quarters = below.view(2, 2, 2, 2, 2, 3).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(rungs[1]._carried(below, torch.zeros(2, 4, 3)), quarters)


class Pair(NamedTuple):
    hidden: Tensor
    further: int


@dataclass
class Record:
    hidden: Tensor
    further: int = 3


KINDS: list[Callable[[Tensor], object]] = [
    lambda y: [y, 3],
    lambda y: (y, 3),
    lambda y: Pair(y, 3),
    Record,
    lambda y: {"hidden": y, "further": 3},
    lambda y: BaseModelOutput(last_hidden_state=y),
]


class Wrapped(nn.Module):
    """A block that returns its output in another object."""

    def __init__(self, kind: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.kind = nn.Linear(4, 4), nn.Linear(4, 4), kind

    def forward(self, x: Tensor) -> object:
        return self.kind(self.last(self.first(x)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_returns_the_type_that_it_returned_without_an_adapter(kind: Callable[[Tensor], object]) -> None:
    plain, wrapped, x = nn.Sequential(Wrapped(lambda y: y)), nn.Sequential(Wrapped(kind)), torch.randn(2, 5, 4)
    for net in (plain, wrapped):
        attach(net, Bottleneck(rank=2))
        randomise(net)
    assert probe(wrapped, x) == 1
    output, expected = wrapped(x), kind(plain(x))
    assert type(output) is type(expected)
    assert str(output) == str(expected)


def test_a_block_that_returns_no_tensor_is_refused() -> None:
    net = nn.Sequential(Wrapped(str))
    attach(net, Bottleneck(rank=2))
    with pytest.raises(AdapterError, match="0 returns str"):
        net(torch.randn(2, 5, 4))
