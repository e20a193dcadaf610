"""`DecodeAdapter`: decode any image, from a file or in memory, to upright uint8 RGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from visionadapt.errors import ImageError, SpecError
from visionadapt.images.albumentations_transform import AlbumentationsMixin
from visionadapt.images.channels import Colour, Conversion, ProfileUse, array_to_rgb, in_channels
from visionadapt.images.checks import checked_bands, checked_colour, checked_count, checked_range
from visionadapt.images.depth import GivenRange
from visionadapt.images.extent import Extent, extent_of
from visionadapt.images.image_files import decode_rgb, upright_rgb
from visionadapt.system.storage import read_file

DECODER_REVISION = 3
"""Counts the changes of what the same file and settings decode to; cached features of another one are not used."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 [3, H, W], upright RGB, or the `channels` chosen; channels-last in memory.
        repairs: what a naive reader would get wrong, in words, such as `turned upright (EXIF orientation 6)`.
    """

    pixels: Tensor
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class DecodeAdapter(AlbumentationsMixin):
    """Decode any image to upright uint8 RGB.

    | input | output |
    |---|---|
    | path (`str` or `Path`) or `bytes` | uint8 tensor [3, H, W] |
    | PIL image | PIL image in mode RGB |
    | NumPy array [H, W] or [H, W, C] | uint8 array [H, W, 3] |
    | torch tensor [H, W] or [C, H, W] | uint8 tensor [3, H, W] on the same device |

    With `channels` other than three, all of them have as many; a PIL image becomes a tensor [C, H, W].

    Alpha is composited on `background`. Other depths are scaled by their true range
    (`visionadapt.images.depth.to_uint8`). A file is refused unless every pixel of its
    first image is present, even where `ImageFile.LOAD_TRUNCATED_IMAGES` is set; a baseline JPEG that lacks only its end
    marker, or a PNG that lacks only its last chunk, is read, and so is a file whose damage touches no pixel of its
    first image.

    Attributes:
        background: RGB colour 0–255 behind transparent pixels; a single number is a grey.
        max_pixels: most pixels (width × height) of an image as it is decoded, checked before.
        max_bytes: most bytes of a file.
        scaled: whether to decode a large JPEG at ½, ¼ or ⅛ of its size where a `Preprocessing` resizes it, never below
            twice the target size. It is faster, and changes the resized pixels by 0.2 of 255 on average.
        sample_range: the values (low, high) of samples of more than 8 bits, or of floats, that become 0 and 255, where
            the file does not fix them: one range for all bands and all images. None scales each image by its container,
            such as 0…65535; `declared` refuses files that do not declare their range.
        bands: numbers, from 1, of the bands that are red, green and blue, or of the one that is grey; or of one for
            each of the `channels`. They are taken from every image. None refuses a TIFF with bands besides colours and
            tagged transparency.
        icc: `convert` converts the colours of an image with an ICC profile other than sRGB to sRGB, relative to the
            white point and with black point compensation; a broken profile is ignored. `ignore` takes the numbers as
            they are. Chosen bands and arrays are never converted.

        channels: 3 for RGB, 1 for grey (luma of colours), or the number of `bands`.

    Raises:
        SpecError: a field is out of its range.
        ImageError: on a call, the image cannot be used.
    """

    background: Colour = (255, 255, 255)
    max_pixels: int = 178_956_970
    max_bytes: int = 512 * 2**20
    scaled: bool = False
    sample_range: GivenRange = None
    bands: tuple[int, ...] | None = None
    icc: ProfileUse = "convert"
    channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", checked_colour("DecodeAdapter", "background", self.background))
        checked_count("DecodeAdapter", "max_pixels", self.max_pixels)
        checked_count("DecodeAdapter", "max_bytes", self.max_bytes)
        if not isinstance(self.scaled, bool):
            raise SpecError(f"DecodeAdapter: scaled must be true or false, got {self.scaled!r}")
        object.__setattr__(self, "sample_range", checked_range("DecodeAdapter", "sample_range", self.sample_range))
        object.__setattr__(self, "bands", checked_bands("DecodeAdapter", "bands", self.bands))
        if self.icc not in get_args(ProfileUse):
            raise SpecError(f"DecodeAdapter: icc must be convert or ignore, got {self.icc!r}")
        checked_count("DecodeAdapter", "channels", self.channels)
        fitting = {1, 3} if self.channels == 3 else {self.channels}
        if (len(self.bands) not in fitting) if self.bands else self.channels not in (1, 3):
            raise SpecError(f"DecodeAdapter: channels={self.channels} takes as many bands, got bands={self.bands!r}")

    @overload
    def __call__(self, image: str | Path | bytes) -> Tensor: ...
    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...
    @overload
    def __call__(self, image: Tensor) -> Tensor: ...

    def __call__(self, image: Any) -> Any:
        """Decode an image; see the class for the types.

        Raises:
            ImageError: the image cannot be used; its `reason` explains why.
        """
        if isinstance(image, str | Path):
            return self.decode(self.read(image), str(image)).pixels
        if isinstance(image, bytes | bytearray | memoryview):
            return self.decode(bytes(image)).pixels
        if isinstance(image, Image.Image):
            pixels = in_channels(upright_rgb(image, self._conversion, "image")[0], self._conversion)
            return Image.fromarray(pixels) if self.channels == 3 else _to_tensor(pixels)
        if isinstance(image, np.ndarray):
            pixels = array_to_rgb(image, self._conversion, "array")[0]
            return np.ascontiguousarray(in_channels(pixels, self._conversion))
        if isinstance(image, Tensor):
            return self._tensor(image)
        raise ImageError(type(image).__name__, "is not an image; pass a path, bytes, PIL image, array or tensor")

    def read(self, path: str | Path) -> bytes:
        """Read a regular file of at most `max_bytes`.

        Raises:
            ImageError: the file is missing, unreadable or too large, or it is a folder, pipe or device (never opened).
        """
        return read_file(Path(path), str(path), self.max_bytes)

    def decode(self, data: bytes, file: str = "bytes", least: int = 0) -> Decoded:
        """Decode the content of an image file.

        Args:
            data: the file's bytes.
            file: what errors call it.
            least: with `scaled`, the smallest side in pixels that a JPEG may be decoded at; 0 for its full size.

        Raises:
            ImageError: the image cannot be used; its `reason` explains why.
        """
        self._check_bytes(len(data), file)
        pixels, repairs = decode_rgb(data, self._conversion, file, least if self.scaled else 0)
        return Decoded(_to_tensor(in_channels(pixels, self._conversion)), tuple(repairs))

    def extent(self, data: bytes) -> Extent | None:
        """Measure which values the samples of an image file use; None where it fixes their range, or is unusable."""
        return extent_of(data, self._conversion) if len(data) <= self.max_bytes else None

    @property
    def _conversion(self) -> Conversion:
        return Conversion(self.background, self.max_pixels, self.sample_range, self.bands, self.icc, self.channels)

    def _check_bytes(self, count: int, file: str) -> None:
        if count == 0:
            raise ImageError(file, "is empty (0 bytes)")
        if count > self.max_bytes:
            raise ImageError(file, f"has {count:,} bytes, more than the limit max_bytes={self.max_bytes:,}")

    def _tensor(self, image: Tensor) -> Tensor:
        values = image.detach().as_subclass(Tensor).cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        if values.ndim not in (2, 3):
            raise ImageError("tensor", f"has shape {tuple(values.shape)}; pass one image [C, H, W]")
        array = values.numpy() if values.ndim == 2 else values.permute(1, 2, 0).numpy()
        channels = in_channels(array_to_rgb(array, self._conversion, "tensor")[0], self._conversion)
        pixels = np.require(channels.transpose(2, 0, 1), requirements=["C", "W"])
        result = torch.from_numpy(pixels).to(image.device)
        return tv_tensors.Image(result) if isinstance(image, tv_tensors.Image) else result


def _to_tensor(pixels: np.ndarray[Any, Any]) -> Tensor:
    """Return uint8 [H, W, C] as a tensor [C, H, W] on the same memory where that is writeable."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
