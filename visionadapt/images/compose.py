"""`compose`: the steps from an image to a backbone's input as one object, which is saved with a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image
from torch import Tensor

from visionadapt.errors import SpecError, UsageError
from visionadapt.images.decode import DecodeAdapter, Decoded
from visionadapt.images.input_types import to_tensor
from visionadapt.images.normalize import NormalizeAdapter
from visionadapt.images.resize import ResizeAdapter

Step = Callable[[Any], Any]
_Adapter = TypeVar("_Adapter", DecodeAdapter, ResizeAdapter, NormalizeAdapter)
_ADAPTERS: dict[str, type[Any]] = {kind.__name__: kind for kind in (DecodeAdapter, ResizeAdapter, NormalizeAdapter)}


@dataclass(frozen=True)
class Preprocessing:
    """Steps that are applied in order; made by `compose`.

    Attributes:
        steps: a `DecodeAdapter`, then any of the other adapters, or callables that take and return an image.

    Raises:
        SpecError: as in `compose`; or the first step is not a `DecodeAdapter`.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps or not isinstance(self.steps[0], DecodeAdapter):
            raise SpecError("a Preprocessing starts with a DecodeAdapter; make it with visionadapt.images.compose(…)")
        for step in self.steps:
            if not callable(step):
                raise SpecError(f"a step must be an adapter or a callable, got {step!r}")
        for kind in _ADAPTERS.values():
            if sum(isinstance(step, kind) for step in self.steps) > 1:
                raise SpecError(f"a Preprocessing has at most one {kind.__name__}")
        if any(isinstance(step, ResizeAdapter) for step in self._parts[1]):
            raise SpecError("a ResizeAdapter takes uint8 pixels: put it before the NormalizeAdapter")

    def __call__(self, image: Any) -> Any:
        """Run every step on one image.

        Paths, bytes and torch tensors give a tensor [C, H, W], NumPy arrays an array [H, W, C]: float32 after a
        `NormalizeAdapter`, else uint8. PIL images give a float32 tensor [C, H, W] after a `NormalizeAdapter`, else a
        PIL image.

        Raises:
            ImageError: the image cannot be used.
        """
        before, after = self._parts
        image = _run(before[1:], self._first(image))
        if after and isinstance(image, Image.Image):
            image = to_tensor(image)
        return _run(after, image)

    def host(self, image: Any, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Run every step before normalisation, as a loader's worker does.

        Args:
            image: path, bytes, PIL image, array or tensor.
            augment: applied to the decoded image (uint8 [C, H, W], full size), before it is resized.

        Returns:
            uint8 [C, H, W] of `size`.

        Raises:
            ImageError: the image cannot be used.
        """
        pixels = to_tensor(self._first(image))
        return self.after_decode(pixels if augment is None else augment(pixels))

    def decoded(self, data: bytes, file: str = "bytes") -> Decoded:
        """Run the first step on the content of an image file, at the scale that `resize` allows (see `DecodeAdapter`).

        Raises:
            ImageError: the image cannot be used; it is called `file`.
        """
        return self.decode.decode(data, file, 2 * self.resize.scaled_side if self.resize else 0)

    def after_decode(self, pixels: Tensor) -> Tensor:
        """Run the steps of `host` after decoding and augmentation: uint8 [C, H, W] → uint8 [C, H, W] of `size`."""
        return to_tensor(_run(self._parts[0][1:], pixels)).contiguous()

    def device(self, batch: Tensor) -> Tensor:
        """Run normalisation and the steps after it: uint8 [N, C, H, W] → float32 [N, C, H, W] on the same device.

        Raises:
            UsageError: a step after the normalisation returns no tensor.
        """
        result = _run(self._parts[1], batch)
        if not isinstance(result, Tensor):
            raise UsageError(f"the steps after NormalizeAdapter must return tensors, got {type(result).__name__}")
        return result

    @property
    def decode(self) -> DecodeAdapter:
        """The first step."""
        return cast(DecodeAdapter, self.steps[0])

    @property
    def resize(self) -> ResizeAdapter | None:
        """The step that sets the size; None where there is none."""
        return self._find(ResizeAdapter)

    @property
    def normalize(self) -> NormalizeAdapter | None:
        """The step that converts to floats; None where there is none."""
        return self._find(NormalizeAdapter)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the output in pixels; None without a ResizeAdapter."""
        return self.resize.height_width if self.resize else None

    @property
    def serialisable(self) -> bool:
        """Whether every step is an adapter, so that `to_json` can write it."""
        return all(type(step) in _ADAPTERS.values() for step in self.steps)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the steps as JSON data: the adapter's name under `step`, and all of its fields.

        Raises:
            SpecError: a step is not one of the adapters.
        """
        for step in self.steps:
            if type(step) not in _ADAPTERS.values():
                raise SpecError(f"step {step!r} cannot be saved; only {', '.join(_ADAPTERS)} can")
        return [{"step": type(step).__name__, **_plain(asdict(step))} for step in self.steps]  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, steps: Any) -> Preprocessing:
        """Invert `to_json`; every name, field and value is checked, and nothing is imported by name.

        Raises:
            SpecError: something is unknown, missing or out of range.
        """
        if not isinstance(steps, list | tuple):
            raise SpecError(f"saved preprocessing must be a list of steps, got {type(steps).__name__}")
        return cls(tuple(_read_step(step) for step in steps))

    def __repr__(self) -> str:
        return "compose(\n" + "".join(f"    {step!r},\n" for step in self.steps) + ")"

    @property
    def _parts(self) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """The steps before normalisation, and those from it on."""
        at = next((at for at, step in enumerate(self.steps) if isinstance(step, NormalizeAdapter)), len(self.steps))
        return self.steps[:at], self.steps[at:]

    def _first(self, image: Any) -> Any:
        if isinstance(image, str | Path):
            return self.decoded(self.decode.read(image), str(image)).pixels
        if isinstance(image, bytes | bytearray | memoryview):
            return self.decoded(bytes(image)).pixels
        return self.decode(image)

    def _find(self, kind: type[_Adapter]) -> _Adapter | None:
        return next((step for step in self.steps if isinstance(step, kind)), None)


def compose(*steps: Step) -> Preprocessing:
    """Combine steps into one `Preprocessing`; a `DecodeAdapter()` is put first where none is given.

    >>> compose(ResizeAdapter(224), NormalizeAdapter(mean=0.5, std=0.5)).size
    (224, 224)

    Raises:
        SpecError: a step is not callable, given twice, or out of order (decode, resize, normalise).
    """
    decoded = any(isinstance(step, DecodeAdapter) for step in steps)
    return Preprocessing(steps if decoded else (DecodeAdapter(), *steps))


def _run(steps: Sequence[Step], image: Any) -> Any:
    return reduce(lambda value, step: step(value), steps, image)


_LATER: Mapping[str, Any] = {"sample_range": None, "bands": None, "icc": "ignore", "channels": 3}
"""Fields that former versions did not have, and what these did. They are only written where they differ from it, so
that preprocessing of a former run keeps its text, its meaning and its cache."""


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    written = {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in written.items()}


def _read_step(saved: Mapping[str, Any]) -> Step:
    name = saved.get("step") if isinstance(saved, Mapping) else None
    adapter = _ADAPTERS.get(name) if isinstance(name, str) else None
    if adapter is None:
        raise SpecError(f"saved preprocessing holds an unknown step {name!r}; known are {', '.join(_ADAPTERS)}")
    known = {field.name for field in fields(adapter)}
    later = {name: value for name, value in _LATER.items() if name in known}
    values = later | {key: value for key, value in saved.items() if key != "step"}
    if values.keys() != known:
        wrong = ", ".join(sorted(values.keys() ^ known))
        raise SpecError(f"saved {name} has missing or unknown fields: {wrong}")
    step: Step = adapter(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    return step
