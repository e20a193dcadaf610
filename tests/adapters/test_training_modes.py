"""torch.compile, autocast, gradient checkpointing and DistributedDataParallel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from visionadapt.adapters import IA3, SSF, Bottleneck, RepAdapter, attach, mixed, trainable
from visionadapt.backbones import Backbone
from visionadapt.errors import AdapterError

from .contract import METHODS
from .families import Subject, run, subject
from .memory import saved_bytes
from .networks import randomise

COMPILED = [(name, "ResNet" if name == "Conv-Adapter" else "ViT") for name in METHODS]
COMPILED += [("LoRA", "BEiT"), ("LoRA", "EfficientNet"), ("DoRA", "NFNet"), ("RepAdapter", "TransformerEncoder")]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "family"), COMPILED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_in_one_graph(method: str, family: str) -> None:
    made = subject(family)
    attach(made.model, METHODS[method], sites=made.sites)
    randomise(made.model)
    model = getattr(made.model, "model", made.model).train()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, made.inputs), run(model, made.inputs))
    run(compiled, made.inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ViT", "BEiT", "ResNet"])
def test_trains_under_autocast(family: str) -> None:
    trained = [method for method in METHODS if _trains_under_autocast(method, family)]
    assert len(trained) >= 10, "the others are refused, see the contract test"


def _trains_under_autocast(method: str, family: str) -> bool:
    made = subject(family)
    try:
        attach(made.model, METHODS[method], sites=made.sites)
    except AdapterError:
        return False
    exact = made.output().detach()
    made.model.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = made.output()
    output.float().square().sum().backward()
    torch.testing.assert_close(output.float(), exact, rtol=0.1, atol=0.1)
    gradients = [parameter.grad for parameter in made.model.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients), method
    return True


def test_a_hosts_output_keeps_its_type_under_autocast() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for name, settings in {"a": SSF(), "b": IA3(), "c": RepAdapter(rank=2), "d": Bottleneck(rank=2)}.items():
        attach(model, settings, where="0", name=name)
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0](torch.randn(2, 4)).dtype == torch.bfloat16
        with mixed(model, ["a", "b", None, "c", "d"]):
            assert model(torch.randn(5, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("Side network", "Conv-Adapter")])
def test_checkpointing_gives_the_same_gradients(method: str) -> None:
    made = subject("ViT")
    attach(made.model, METHODS[method], sites=made.sites)
    randomise(made.model)
    model = made.model.model

    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        model.zero_grad()
        model.set_grad_checkpointing(checkpointed)
        made.output().square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(again, plain)


@pytest.mark.parametrize("method", ["LoRA", "Bottleneck (post)", "Full fine-tuning"])
@pytest.mark.parametrize("family", ["ViT", "EVA-02", "Swin", "ResNet"])
def test_blocks_that_are_computed_again_give_the_same_gradients(family: str, method: str) -> None:
    made = _attached(family, method)
    assert isinstance(made.model, Backbone)

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        made.model.zero_grad()
        made.model.checkpointing = checkpointing
        made.output().square().mean().backward()
        return [parameter.grad.clone() for parameter in made.model.parameters() if parameter.requires_grad]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(again, plain)


def test_blocks_that_are_computed_again_keep_less() -> None:
    made = _attached("ViT", "LoRA")
    kept = saved_bytes(made.model, made.inputs)
    made.model.checkpointing = True
    assert saved_bytes(made.model, made.inputs) < kept / 2


def _attached(family: str, method: str) -> Subject:
    made = subject(family)
    attach(made.model, METHODS[method], sites=made.sites)
    randomise(made.model)
    return made


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    arguments = (f"file://{tmp_path}/store",)
    start_processes(_train_on_half, arguments, nprocs=2, start_method="forkserver")  # which has imported torch


def _train_on_half(rank: int, store: str) -> None:
    """Train every method on one of two samples; no parameter may be unused, and the mean gradient is the whole's."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    for method, settings in METHODS.items():
        family = "ResNet" if method == "Conv-Adapter" else "ViT"
        alone, shared = subject(family), subject(family)
        for made in (alone, shared):
            attach(made.model, settings, sites=made.sites)
        parallel = DistributedDataParallel(shared.model)
        for _ in range(2):  # the second step reports parameters that the first did not use
            _step(alone.model, alone.inputs, share=2)
            _step(parallel, shared.inputs[rank : rank + 1], share=1)
        weights = dict(alone.model.named_parameters())
        for name in trainable(shared.model):
            moved = shared.model.get_parameter(name)
            torch.testing.assert_close(moved, weights[name], rtol=1e-4, atol=1e-6, msg=f"{method}: {name}")
    torch.distributed.destroy_process_group()


def _step(model: nn.Module, inputs: torch.Tensor, share: int) -> None:
    model.train()
    model.zero_grad()
    (model(inputs).square().sum() / share).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                parameter -= 1e-3 * parameter.grad
