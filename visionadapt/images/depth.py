"""Sample depth: scale brightness values of any dtype to uint8 by their true range, never saturated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from visionadapt.errors import ImageError
from visionadapt.images.strips import over, strips

SampleRange = tuple[float, float]
"""The sample values that become 0 and 255."""

GivenRange = SampleRange | Literal["declared"] | None
"""The range of samples whose file does not fix it; `declared` refuses them; None takes the container's."""

_STANDARD_MAXIMA = (255, 65535, 2**31 - 1)
_FEW = 0.01


class Declared(NamedTuple):
    """What a file says about the range of its samples.

    Attributes:
        low, high: the values of black and white.
        firm: whether the format defines the range by it (bits per sample, maxval), so that nothing overrules it; a
            TIFF's MinSampleValue and MaxSampleValue may also be statistics of a single image.
    """

    low: float
    high: float
    firm: bool = True


def to_uint8(
    values: npt.NDArray[Any], file: str = "array", declared: Declared | None = None, given: GivenRange = None
) -> tuple[npt.NDArray[np.uint8], str | None]:
    """Scale brightness values of any dtype and shape to uint8, and say how; None for uint8, which is returned as it is.

    bool: False → 0, True → 255. Other dtypes are scaled by the first of these ranges that there is:

    1. the one that the file's format declares, such as 0…4095 for 12 bits per sample;
    2. `given`;
    3. the one in the file's tags;
    4. the container's: uint16 by 0…65535, or 0…255 where no value is larger; int8 by −128…127; other integers by the
       smallest depth of 8, 16 and 32 bits (255, 65535, 2³¹ − 1) that holds all values; floats in [0, 1] by 0…1. Other
       floats and integers below 0 by the minimum and maximum of this image.

    Values outside of the range become 0 or 255.

    Raises:
        ImageError: a float is NaN or infinite, the dtype holds no brightness (complex, object, text), or `given` is
            `declared` and the file declares no range.
    """
    if values.dtype == np.uint8 and declared is None:
        return values, None
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), "scaled 1-bit to 8-bit"
    if values.dtype.kind not in "iuf":
        raise ImageError(file, f"holds {values.dtype} values, not brightness; pass integers, floats or booleans")
    if values.dtype.kind == "f" and _count(values, lambda part: ~np.isfinite(part)):
        raise ImageError(file, "holds NaN or infinite values; replace them before use")
    if declared is not None and (declared.firm or not isinstance(given, tuple)):
        given = (declared.low, declared.high)
    if given == "declared":
        problem = f"has {_name(values.dtype)} samples, and nothing in it declares their range"
        raise ImageError(file, f"{problem}; give it: sample_range=(LOW, HIGH)")
    return _by_container(values) if given is None else _by_range(values, *given)


def set_range(low: float, high: float, floats: bool = False) -> SampleRange:
    """Return the range for a set of images whose samples lie in low…high.

    It begins at 0 unless the samples are negative or all in the upper half of 0…high. Floats of at most 1 use 0…1, and
    whatever is an 8-bit value in a larger container 0…255.

    >>> set_range(3, 4095), set_range(7000, 9000), set_range(-1024, 3071), set_range(0, 180)
    ((0, 4095), (7000, 9000), (-1024, 3071), (0, 255))
    """
    if low < 0:
        return low, high
    if floats and high <= 1:
        return 0, 1
    if high <= 255 and (not floats or high > 127):
        return 0, 255
    return (low if 2 * low > high else 0), high


def _by_range(values: npt.NDArray[Any], low: float, high: float) -> tuple[npt.NDArray[np.uint8], str]:
    note = f"scaled {_name(values.dtype)} from {_text(low)}…{_text(high)} to 8-bit"
    ends = np.float64(low), np.float64(high)  # an integer may be out of the dtype's bounds
    clipped = _count(values, lambda part: (part < ends[0]) | (part > ends[1]))
    if clipped > _FEW * values.size:
        note += "; more than 1 % of the samples are outside of that range"
    elif values.max() - ends[0] < _FEW * (high - low):
        note += "; the samples use less than 1 % of that range"
    return _stretch(values, low, high), note


def _by_container(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], str]:
    low, high = values.min().item(), values.max().item()
    floats = values.dtype.kind == "f"
    if floats and low >= 0 and high <= 1:
        return _stretch(values, 0, 1), "scaled floats from 0…1 to 8-bit"
    if values.dtype == np.int8 and low < 0:
        return _stretch(values, -128, 127), "scaled signed 8-bit from -128…127 to 8-bit"
    if floats or low < 0 or high > _STANDARD_MAXIMA[-1]:
        kind = "floats" if floats else "integers"
        own = f"scaled {kind} from {_text(low)}…{_text(high)} to 8-bit"
        return _stretch(values, low, high), f"{own}, this image's own range; sample_range gives all images the same"
    maximum = next(maximum for maximum in _STANDARD_MAXIMA if high <= maximum)
    if maximum == 255:
        return values.astype(np.uint8), f"{_name(values.dtype)} samples hold 8-bit values"
    depth = {65535: "16-bit", 2**31 - 1: "32-bit"}[maximum]
    note = f"scaled {depth} to 8-bit"
    if high <= maximum // 2:
        used, option = f"{_text(low)}…{_text(high)}", f"--sample-range 0,{_text(high)}"
        note += f"; {depth} samples use only {used}: sample_range=(0, {_text(high)}) or {option} makes them lighter"
    return _stretch(values, 0, maximum), note


def _stretch(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """round(255·(v − low) / (high − low)) in float64; 0 everywhere where low equals high."""
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    if values.dtype in (np.uint16, np.int16) and values.size > 2**16:
        every = _stretch(np.arange(2**16, dtype=np.uint16).view(values.dtype), low, high)
        return over(values, lambda part: every[part.view(np.uint16)])

    def scaled(part: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        share = (part.astype(np.float64) / 2 - low / 2) / (high / 2 - low / 2)
        return np.floor(share * 255 + 0.5).clip(0, 255).astype(np.uint8)

    return over(values, scaled)


def _count(values: npt.NDArray[Any], condition: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]) -> int:
    """Count the values that meet a condition, in strips."""
    parts = strips(len(values), values[0].size) if values.ndim and values.size else (...,)
    return sum(int(np.count_nonzero(condition(values[part]))) for part in parts)


def _name(dtype: np.dtype[Any]) -> str:
    sign = {"i": "signed ", "u": "", "f": "float "}[dtype.kind]
    return f"{sign}{8 * dtype.itemsize}-bit"


def _text(value: float) -> str:
    return f"{value:.6g}"
