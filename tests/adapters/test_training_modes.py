"""torch.compile, autocast, gradient checkpointing and DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visionadapt.adapters import IA3, SSF, Bottleneck, RepAdapter, attach, mixed, trainable
from visionadapt.errors import AdapterError

from .contract import METHODS
from .families import run, subject
from .networks import randomise

COMPILED = [(name, "ResNet" if name == "Conv-Adapter" else "ViT") for name in METHODS]
COMPILED += [("LoRA", "BEiT"), ("LoRA", "EfficientNet"), ("DoRA", "NFNet"), ("RepAdapter", "TransformerEncoder")]


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


@pytest.mark.parametrize("family", ["ViT", "BEiT", "ResNet"])
def test_trains_under_autocast(family: str) -> None:
    trained = [method for method in METHODS if _trains_under_autocast(method, family)]
    assert len(trained) >= 10, "the others are refused there, as the contract test says"


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
            assert model[0](torch.randn(5, 4)).dtype == torch.bfloat16


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


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("method", METHODS)
def test_no_parameter_is_unused_in_data_parallel_training(method: str) -> None:
    made = subject("ResNet" if method == "Conv-Adapter" else "ViT")
    attach(made.model, METHODS[method], sites=made.sites)
    parallel = DistributedDataParallel(made.model)
    optimiser = torch.optim.SGD([p for p in parallel.parameters() if p.requires_grad], 1e-3)
    for _ in range(2):
        parallel.train()
        optimiser.zero_grad()
        run(parallel, made.inputs).square().sum().backward()
        optimiser.step()
    assert trainable(made.model)
