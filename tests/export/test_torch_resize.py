"""The resize that torch.export traces gives the library's own pixels for every size of image."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from visionadapt.export.torch_resize import resized
from visionadapt.images import ResizeAdapter

from .test_onnx_resize import SHAPES


class _Resize(nn.Module):
    def __init__(self, resize: ResizeAdapter) -> None:
        super().__init__()
        self.resize = resize

    def forward(self, image: Tensor) -> Tensor:
        return resized(self.resize, image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "interpolation"),
    list(itertools.product(("crop", "squash", "letterbox"), ("bicubic", "bilinear", "nearest"))),
)
def test_one_program_gives_the_pixels_of_the_adapter_at_every_size(policy: Any, interpolation: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for size, share in ((32, 0.875), ((24, 40), 0.9)) if policy == "crop" else (((24, 40), 0.9),):
        resize = ResizeAdapter(size, policy=policy, interpolation=interpolation, crop_pct=share, fill=(1, 20, 250))
        example = torch.zeros(2, 3, 23, 37, dtype=torch.uint8)
        sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        program = torch.export.export(
            _Resize(resize), (example,), dynamic_shapes=sizes, prefer_deferred_runtime_asserts_over_guards=True
        )
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        scale = torch.export.load(file).module()
        for number, shape in enumerate(SHAPES):
            images = torch.randint(0, 256, (1 + number % 3, 3, *shape), dtype=torch.uint8, generator=generator)
            apart = (scale(images).int() - resize(images).int()).abs().max()  # type: ignore[operator, union-attr]
            # A letterboxed image that becomes one pixel wide is scaled in float32 by the adapter, as torch fails there.
            assert apart <= (1 if 1 in resize.placement(*shape)[2:] else 0), (size, share, shape)
