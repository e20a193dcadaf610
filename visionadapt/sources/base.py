"""`BaseSource`: what every source has in common. Length, rows by number, and a short `repr`."""

from __future__ import annotations

import dataclasses
import reprlib
from functools import cached_property
from typing import Any

from visionadapt.core.records import Manifest, Record, Source

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


class BaseSource(Source):
    """Base of sources that are frozen dataclasses; subclasses define `classes`, `__iter__` and `read`.

    `len(source)` and `source[i]` read all rows when they are first used, and cache what they found outside of the
    fields: equality, hash, settings text and pickle do not include it. Iteration always reads the source itself.
    """

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Record:
        """Return a row by its number in the order of iteration; negative numbers count from the end."""
        try:
            return self._packed[index]
        except IndexError:
            raise IndexError(f"{self!r} has {len(self._packed):,} rows, and none with the number {index}") from None

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]
        words = []
        for item in fields:
            value = getattr(self, item.name)
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if value != default:
                words.append(f"{item.name}={_short.repr(value)}")
        return f"{type(self).__name__}({', '.join(words)})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_count", "_packed"}}

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def _packed(self) -> Manifest:
        return self._pack()

    def _pack(self) -> Manifest:
        """Read all rows; the classes are `classes`, followed by those that only test rows have."""
        labels = dict.fromkeys(self.classes)
        labels.update((label, None) for record in self for label in record.labels)
        return Manifest(self, self, tuple(labels))

    def _set(self, **values: Any) -> None:
        """Set fields of the frozen dataclass; for `__post_init__`."""
        for name, value in values.items():
            object.__setattr__(self, name, value)
