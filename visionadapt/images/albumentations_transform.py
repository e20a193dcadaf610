"""Image adapters as albumentations transforms; the only file that imports that library, on first use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from visionadapt.errors import UsageError

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform


_PLACED = frozenset({"mask", "masks", "bboxes", "keypoints"})
"""What albumentations takes beside an image and that lies on it."""


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

        def __call__(self, *args: Any, **data: Any) -> Any:
            """Transform the image; refuse what would have to be moved along with it."""
            named = sorted(_PLACED & data.keys()) if hasattr(self.adapter, "placement") else ()
            if named:
                raise UsageError(
                    f"{type(self.adapter).__name__} resizes the image alone, not {' and '.join(named)}; move them "
                    "by its placement(height, width), or use albumentations' own Resize or LongestMaxSize"
                )
            return super().__call__(*args, **data)

        def apply(self, img: Any, **params: Any) -> Any:
            """Return the adapter's result for one image."""
            return self.adapter(img)

        def __reduce__(self) -> tuple[Any, ...]:
            return _as_albumentations, (self.adapter,)

    return AdapterTransform
