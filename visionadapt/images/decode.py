"""`DecodeAdapter`: any picture, from a file or already in memory, → upright uint8 RGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from visionadapt.errors import ImageError, SpecError
from visionadapt.images.channels import array_to_rgb
from visionadapt.images.checks import checked_colour, checked_count
from visionadapt.images.image_files import decode_rgb, upright_rgb
from visionadapt.system.storage import read_file

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform


class Decoded(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: uint8 [3, H, W], upright RGB; in memory the channels lie last.
        repairs: in words, what a naive reader would have got wrong, such as `turned upright (EXIF orientation 6)`.
    """

    pixels: Tensor
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class DecodeAdapter:
    """Read any picture as upright uint8 RGB.

    Called with a path (`str` or `Path`) or `bytes` it returns a uint8 tensor [3, H, W]; a PIL image gives a PIL RGB
    image, a NumPy array [H, W] or [H, W, C] a uint8 array [H, W, 3], a torch tensor [H, W] or [C, H, W] a uint8 tensor
    [3, H, W] on its device. Alpha is laid on `background`; other depths are scaled by their true range
    (`visionadapt.images.depth.to_uint8`); 16-bit colour PNGs come from Pillow cut to their upper byte, at most one
    level off. Colour profiles are not applied. A file is refused unless every pixel of its first picture is there; a
    baseline JPEG that lacks only its end marker, or a PNG that lacks only its last chunk, is read.

    Attributes:
        background: RGB colour 0–255 that transparent parts are laid on; a single number is a grey.
        max_pixels: most pixels (width × height) of a picture, checked before decoding. Pillow's own limit,
            `2 * PIL.Image.MAX_IMAGE_PIXELS` (178,956,970), holds as well.
        max_bytes: most bytes of a file.
        scaled: whether a large JPEG is read at ½, ¼ or ⅛ of its size where a `Preprocessing` resizes it: never below
            twice the size that it is resized to. It is quicker, and shifts the resized pixels by 0.2 of 255 on average.

    Raises:
        SpecError: a field is out of its range.
        ImageError: on a call, whatever is wrong with the picture.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = 178_956_970
    max_bytes: int = 512 * 2**20
    scaled: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", checked_colour("DecodeAdapter", "background", self.background))
        checked_count("DecodeAdapter", "max_pixels", self.max_pixels)
        checked_count("DecodeAdapter", "max_bytes", self.max_bytes)
        if not isinstance(self.scaled, bool):
            raise SpecError(f"DecodeAdapter: scaled must be true or false, got {self.scaled!r}")

    @overload
    def __call__(self, picture: str | Path | bytes) -> Tensor: ...
    @overload
    def __call__(self, picture: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, picture: Tensor) -> Tensor: ...

    def __call__(self, picture: Any) -> Any:
        """Upright uint8 RGB of any picture; see the class for what comes out.

        Raises:
            ImageError: the picture cannot be used; its `reason` says why.
        """
        if isinstance(picture, str | Path):
            return self.decode(self.read(picture), str(picture)).pixels
        if isinstance(picture, bytes | bytearray | memoryview):
            return self.decode(bytes(picture)).pixels
        if isinstance(picture, Image.Image):
            return Image.fromarray(upright_rgb(picture, self.background, self.max_pixels, "image")[0])
        if isinstance(picture, np.ndarray):
            return np.ascontiguousarray(array_to_rgb(picture, self.background, "array")[0])
        if isinstance(picture, Tensor):
            return self._tensor(picture)
        raise ImageError(type(picture).__name__, "is no picture; give a path, bytes, PIL image, array or tensor")

    def read(self, path: str | Path) -> bytes:
        """The bytes of a regular file of at most `max_bytes`.

        Raises:
            ImageError: there is none, it cannot be read, or it is a folder, pipe or device (never opened).
        """
        return read_file(Path(path), str(path), self.max_bytes)

    def decode(self, data: bytes, file: str = "bytes", least: int = 0) -> Decoded:
        """Decode a picture file's content.

        Args:
            data: the file's bytes.
            file: what errors call it.
            least: with `scaled`, what neither side of a JPEG may become shorter than, in pixels; 0 for its own size.

        Raises:
            ImageError: the picture cannot be used; its `reason` says why.
        """
        self._check_bytes(len(data), file)
        pixels, repairs = decode_rgb(data, self.background, self.max_pixels, file, least if self.scaled else 0)
        return Decoded(torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1), tuple(repairs))

    def albumentations(self) -> ImageOnlyTransform:
        """This adapter as a transform for `albumentations.Compose`."""
        from visionadapt.images.albumentations_transform import as_albumentations

        return as_albumentations(self)

    def _check_bytes(self, count: int, file: str) -> None:
        if count == 0:
            raise ImageError(file, "is empty (0 bytes)")
        if count > self.max_bytes:
            raise ImageError(file, f"has {count:,} bytes, more than the limit max_bytes={self.max_bytes:,}")

    def _tensor(self, picture: Tensor) -> Tensor:
        values = picture.detach().as_subclass(Tensor).cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        if values.ndim not in (2, 3):
            raise ImageError("tensor", f"has shape {tuple(values.shape)}; give one picture [C, H, W]")
        array = values.numpy() if values.ndim == 2 else values.permute(1, 2, 0).numpy()
        pixels = np.ascontiguousarray(array_to_rgb(array, self.background, "tensor")[0].transpose(2, 0, 1))
        result = torch.from_numpy(pixels).to(picture.device)
        return tv_tensors.Image(result) if isinstance(picture, tv_tensors.Image) else result
