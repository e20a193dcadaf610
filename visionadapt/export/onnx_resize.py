"""`ResizeAdapter` as ONNX nodes: uint8 images of any size to one size, bit for bit as torchvision's uint8 kernel.

Each side is scaled by matrices of filter weights, which the graph computes from the image's size: rows of pixels first,
rounded to uint8, then columns. As in the kernel, weights are float64, normalised, and rounded to 16-bit integers of the
highest precision p that fits: a pixel is (Σ w · x + 2^(p−1)) >> p. The sums are whole numbers that float32 holds
exactly, so that they are the same in any runtime, up to 60 times reduced.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visionadapt.export.onnx_nodes import Nodes
from visionadapt.images import ResizeAdapter

_LARGEST_WEIGHT = 2**15
_MOST_PRECISION = 22
_RADIX = 2**8
"""A weight is divided into a multiple of this and a rest, so that sums over either are exact in float32."""
_ROWS_AT_ONCE = 32
"""Rows of the output that share a matrix: they need few of the image's rows, all others would be multiplied by 0."""
_ONE, _HALF = np.float64(1), np.float64(0.5)
_NONE, _UNIT = np.int64(0), np.int64(1)


class _Side(NamedTuple):
    """One side of the image: names of int64 scalars, and the number of pixels in the output."""

    length: str
    """Pixels of the part that is scaled."""
    scaled: str
    """Pixels after scaling, before cropping or filling."""
    shown: int


def resize_nodes(nodes: Nodes, resize: ResizeAdapter, image: str, name: str, channels: int = 3) -> str:
    """Append nodes from uint8 [N, C, H, W] of any size to `name`, uint8 [N, C, S, T]."""
    height, width = (_length(nodes, image, axis) for axis in (2, 3))
    if resize.policy == "crop":
        image, height, width = _trim(nodes, resize, image, height, width)
    scaled = _scaled(nodes, resize, height, width)
    sides = [
        _Side(length, side, shown)
        for length, side, shown in zip((height, width), scaled, resize.height_width, strict=True)
    ]
    positions = [_positions(nodes, side) for side in sides]
    if resize.interpolation == "nearest":
        for axis, side, position in zip((2, 3), sides, positions, strict=True):
            image = nodes.Gather(image, _nearest(nodes, side, position), axis=axis)
    else:
        across, down = (
            _Weights.of(nodes, side, position, resize.interpolation)
            for side, position in zip(reversed(sides), reversed(positions), strict=True)
        )
        image = down.applied(nodes, across.applied(nodes, image, axis=3), axis=2)
    if resize.policy == "letterbox":
        rows, columns = (_inside(nodes, *each) for each in zip(sides, positions, strict=True))
        inside = nodes.And(nodes.Unsqueeze(rows, np.array([1])), nodes.Unsqueeze(columns, np.array([0])))
        colour = resize.fill if channels == 3 else (resize.fill[0],) * channels
        image = nodes.Where(inside, image, np.array(colour, np.uint8).reshape(channels, 1, 1))
    return nodes.Identity(image, name=name)


def _length(nodes: Nodes, image: str, axis: int) -> str:
    return nodes.Squeeze(nodes.Shape(image, start=axis, end=axis + 1))


def _trim(nodes: Nodes, resize: ResizeAdapter, image: str, height: str, width: str) -> tuple[str, str, str]:
    """Cut an extremely long image to its middle, as `ResizeAdapter` does."""
    longest = nodes.Mul(nodes.Min(height, width), np.int64(resize.longest_ratio))
    kept = []
    for axis, length in ((2, height), (3, width)):
        over = nodes.Sub(length, longest)
        same = nodes.LessOrEqual(over, _NONE)
        shorter = nodes.Where(same, length, nodes.Add(longest, nodes.Mod(nodes.Max(over, _NONE), np.int64(2))))
        start = nodes.Div(nodes.Sub(length, shorter), np.int64(2))
        ends = [nodes.Reshape(end, np.array([1])) for end in (start, nodes.Add(start, shorter))]
        image = nodes.Slice(image, *ends, np.array([axis]))
        kept.append(shorter)
    return image, kept[0], kept[1]


def _scaled(nodes: Nodes, resize: ResizeAdapter, height: str, width: str) -> tuple[str, str]:
    """Height and width after scaling, in the float64 arithmetic of `ResizeAdapter`."""
    target = resize.scaled_height_width
    if resize.policy == "squash":
        return nodes.Identity(np.int64(target[0])), nodes.Identity(np.int64(target[1]))
    if resize.policy == "crop" and target[0] == target[1]:
        longer = nodes.cast(nodes.Mul(nodes.Max(height, width), np.int64(target[0])), np.float64)
        longer = nodes.cast(nodes.Div(longer, nodes.cast(nodes.Min(height, width), np.float64)), np.int64)
        upright = nodes.Less(width, height)
        short = np.int64(target[0])
        return nodes.Where(upright, longer, short), nodes.Where(upright, short, longer)
    sides = [nodes.cast(side, np.float64) for side in (height, width)]
    ratios = [nodes.Div(side, np.float64(goal)) for side, goal in zip(sides, target, strict=True)]
    ratio = (nodes.Min if resize.policy == "crop" else nodes.Max)(*ratios)
    rounded = [nodes.cast(nodes.Round(nodes.Div(side, ratio)), np.int64) for side in sides]
    return nodes.Max(rounded[0], _UNIT), nodes.Max(rounded[1], _UNIT)


def _positions(nodes: Nodes, side: _Side) -> str:
    """The row (or column) of the scaled image that each one of the output shows, int64 [S]; some are outside."""
    over = nodes.Sub(side.scaled, np.int64(side.shown))
    cropped = nodes.cast(nodes.Round(nodes.Mul(nodes.cast(over, np.float64), _HALF)), np.int64)
    filled = nodes.Neg(nodes.Div(nodes.Neg(over), np.int64(2)))
    first = nodes.Where(nodes.Greater(over, _NONE), cropped, filled)
    return nodes.Add(np.arange(side.shown), first)


def _inside(nodes: Nodes, side: _Side, positions: str) -> str:
    """Whether each position is inside of the scaled image, bool [S]."""
    return nodes.And(nodes.GreaterOrEqual(positions, _NONE), nodes.Less(positions, side.scaled))


def _clipped(nodes: Nodes, side: _Side, positions: str) -> str:
    return nodes.Min(nodes.Max(positions, _NONE), nodes.Sub(side.scaled, _UNIT))


def _nearest(nodes: Nodes, side: _Side, positions: str) -> str:
    """The nearest row of the image to each position, int64 [S], computed in float32 as in torch."""
    length, scaled = (nodes.cast(value, np.float32) for value in (side.length, side.scaled))
    centres = nodes.Add(nodes.cast(_clipped(nodes, side, positions), np.float32), np.float32(0.5))
    found = nodes.cast(nodes.Floor(nodes.Mul(centres, nodes.Div(length, scaled))), np.int64)
    return nodes.Min(found, nodes.Sub(side.length, _UNIT))


class _Block(NamedTuple):
    """The filter weights of a few adjacent rows of the output.

    `start` and `end` are the rows of the image that they need, int64 [1]; `high` and `low` are matrices
    [end − start, S] of the weights' two parts, float32.
    """

    start: str
    end: str
    high: str
    low: str


class _Weights(NamedTuple):
    """The filter weights of one side, and 2^p, int32, by which they are multiplied."""

    blocks: tuple[_Block, ...]
    unit: str

    @classmethod
    def of(cls, nodes: Nodes, side: _Side, positions: str, interpolation: str) -> _Weights:
        """Append the nodes that compute them: for each scaled row, few taps, which are then put into matrices."""
        scale = nodes.Div(nodes.cast(side.length, np.float64), nodes.cast(side.scaled, np.float64))
        wider = nodes.Max(scale, _ONE)
        support = nodes.Mul(wider, np.float64(2 if interpolation == "bicubic" else 1))
        rows = nodes.Range(_NONE, side.scaled, _UNIT)
        centre = nodes.Mul(scale, nodes.Add(nodes.cast(rows, np.float64), _HALF))
        low = nodes.Max(nodes.cast(nodes.Add(nodes.Sub(centre, support), _HALF), np.int64), _NONE)
        high = nodes.Min(nodes.cast(nodes.Add(nodes.Add(centre, support), _HALF), np.int64), side.length)
        number = nodes.Add(nodes.Mul(nodes.cast(nodes.Ceil(support), np.int64), np.int64(2)), _UNIT)
        first, last, centre = (nodes.Unsqueeze(each, np.array([1])) for each in (low, high, centre))
        taps = nodes.Add(first, nodes.Range(_NONE, number, _UNIT))
        offset = nodes.Add(nodes.Sub(nodes.cast(taps, np.float64), centre), _HALF)
        weights = _filter(nodes, nodes.Abs(nodes.Mul(offset, nodes.Reciprocal(wider))), interpolation)
        weights = nodes.Where(nodes.Less(taps, last), weights, np.float64(0))
        weights = nodes.Div(weights, nodes.ReduceSum(weights, np.array([1]), keepdims=1))
        unit = _unit(nodes, nodes.ReduceMax(weights, keepdims=0))
        weights = nodes.Mul(weights, nodes.cast(unit, np.float64))
        whole = nodes.Floor(nodes.Add(nodes.Abs(weights), _HALF))
        whole = nodes.Mul(whole, nodes.Sign(weights))
        blocks = []
        for start in range(0, side.shown, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, side.shown)
            shown = _clipped(nodes, side, nodes.Slice(positions, np.array([start]), np.array([stop])))
            own = [nodes.Gather(each, shown, axis=0) for each in (low, high, taps, whole)]
            blocks.append(_block(nodes, stop - start, number, *own))
        return cls(tuple(blocks), unit)

    def applied(self, nodes: Nodes, image: str, *, axis: int) -> str:
        """uint8 [N, C, H, W] → the same with the axis scaled: 3 for its columns, 2 for its rows."""
        parts = []
        for block in self.blocks:
            part = nodes.cast(nodes.Slice(image, block.start, block.end, np.array([axis])), np.float32)
            sums = []
            for matrix in (block.high, block.low):
                turned = nodes.Transpose(matrix, perm=[1, 0]) if axis == 2 else matrix
                product = nodes.MatMul(turned, part) if axis == 2 else nodes.MatMul(part, turned)
                sums.append(nodes.cast(product, np.int32))
            parts.append(nodes.Add(nodes.Mul(sums[0], np.int32(_RADIX)), sums[1]))
        total = nodes.Concat(*parts, axis=axis)
        total = nodes.Max(nodes.Add(total, nodes.Div(self.unit, np.int32(2))), np.int32(0))
        return nodes.cast(nodes.Min(nodes.Div(total, self.unit), np.int32(255)), np.uint8)


def _block(nodes: Nodes, rows: int, number: str, low: str, high: str, taps: str, weights: str) -> _Block:
    """Put taps [S, K] with whole weights, the ends of their rows and K into matrices."""
    start = nodes.ReduceMin(low, keepdims=0)
    length = nodes.Sub(nodes.ReduceMax(high, keepdims=0), start)
    columns = nodes.Transpose(nodes.Sub(taps, start), perm=[1, 0])
    upper = nodes.Floor(nodes.Div(weights, np.float64(_RADIX)))
    lower = nodes.Sub(weights, nodes.Mul(upper, np.float64(_RADIX)))
    height, end = (nodes.Reshape(each, np.array([1])) for each in (nodes.Add(length, number), length))
    empty = nodes.Expand(np.float32(0), nodes.Concat(height, np.array([rows]), axis=0))
    made = []
    for part in (upper, lower):
        values = nodes.Transpose(nodes.cast(part, np.float32), perm=[1, 0])
        made.append(
            nodes.Slice(nodes.ScatterElements(empty, columns, values, axis=0), np.array([0]), end, np.array([0]))
        )
    begin = nodes.Reshape(start, np.array([1]))
    return _Block(begin, nodes.Add(begin, end), made[0], made[1])


def _filter(nodes: Nodes, distance: str, interpolation: str) -> str:
    """The kernel at a distance ≥ 0: Keys, "Cubic Convolution Interpolation", 1981, with a = −0.5; or linear."""
    x = distance
    if interpolation == "bilinear":
        return nodes.Max(nodes.Sub(_ONE, x), np.float64(0))
    near = nodes.Sub(nodes.Mul(x, np.float64(1.5)), np.float64(2.5))
    near = nodes.Add(nodes.Mul(nodes.Mul(near, x), x), _ONE)
    far = nodes.Mul(nodes.Sub(x, np.float64(5)), x)
    far = nodes.Mul(nodes.Sub(nodes.Mul(nodes.Add(far, np.float64(8)), x), np.float64(4)), np.float64(-0.5))
    far = nodes.Where(nodes.Less(x, np.float64(2)), far, np.float64(0))
    return nodes.Where(nodes.Less(x, _ONE), near, far)


def _unit(nodes: Nodes, largest: str) -> str:
    """2^p, int32: the highest precision p ≤ 22 in which the largest weight still fits into 16 bits."""
    powers = np.array([2.0**power for power in range(1, _MOST_PRECISION + 1)])
    steps = nodes.Floor(nodes.Add(nodes.Mul(largest, powers), _HALF))
    fits = nodes.cast(nodes.Less(steps, np.float64(_LARGEST_WEIGHT)), np.float64)
    precision = nodes.ReduceSum(fits, keepdims=0)
    return nodes.cast(nodes.Pow(np.float64(2), precision), np.int32)
