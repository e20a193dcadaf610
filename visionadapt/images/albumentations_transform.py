"""Image adapters as albumentations transforms; the only file that imports that library, on first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform


class AlbumentationsMixin:
    """Gives an image adapter its `albumentations` method."""

    def albumentations(self) -> ImageOnlyTransform:
        """Return this adapter as a transform for `albumentations.Compose`, always applied, which can be pickled."""
        return _as_albumentations(self)


def _as_albumentations(adapter: Any) -> ImageOnlyTransform:
    return _transform_class()(adapter)


@cache
def _transform_class() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    class AdapterTransform(albumentations.ImageOnlyTransform):  # type: ignore[misc]
        """Applies an image adapter to the image [H, W, C]."""

        def __init__(self, adapter: Callable[[Any], Any]) -> None:
            super().__init__(p=1.0)
            self.adapter = adapter

        def apply(self, img: Any, **params: Any) -> Any:
            """Return the adapter's result for one image."""
            return self.adapter(img)

        def __reduce__(self) -> tuple[Any, ...]:
            return _as_albumentations, (self.adapter,)

    return AdapterTransform
