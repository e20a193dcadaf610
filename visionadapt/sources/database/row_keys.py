"""The values of a key as one line of text, and back again as what the database compares with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

_READ: Mapping[str, Callable[[str], Any]] = {
    "bytes": bytes.fromhex,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "Decimal": Decimal,
    "time": time.fromisoformat,
    "UUID": UUID,
}


def pack(values: Sequence[Any]) -> str:
    """Return the values as JSON; those that JSON does not know stand there with the name of their type."""
    return json.dumps([_plain(value) for value in values], ensure_ascii=False)


def unpack(text: str) -> list[Any]:
    """Return what `pack` was given; raise ValueError for any other text."""
    try:
        return [_READ[value[0]](value[1]) if isinstance(value, list) else value for value in json.loads(text)]
    except (TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(text) from error


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, (date, time)):
        return [type(value).__name__, value.isoformat()]
    return [type(value).__name__, str(value)]
