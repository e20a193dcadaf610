"""The adapters as albumentations transforms; that library is imported here, on the first use, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform


def as_albumentations(adapter: Callable[[Any], Any]) -> ImageOnlyTransform:
    """A deterministic transform that applies `adapter` to the image [H, W, C], always; it can be pickled."""
    return _transform_class()(adapter)


@cache
def _transform_class() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    class AdapterTransform(albumentations.ImageOnlyTransform):  # type: ignore[misc]
        """Applies an image adapter."""

        def __init__(self, adapter: Callable[[Any], Any]) -> None:
            super().__init__(p=1.0)
            self.adapter = adapter

        def apply(self, img: Any, **params: Any) -> Any:
            """The adapter's result for one image."""
            return self.adapter(img)

        def __reduce__(self) -> tuple[Any, ...]:
            return as_albumentations, (self.adapter,)

    return AdapterTransform
