"""The values of a row's key as one line of text, and that text as values to compare with in the database."""

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


def key_text(values: Sequence[Any]) -> str:
    """Return the values as JSON; types that JSON does not have are written with their name."""
    return json.dumps([_plain(value) for value in values], ensure_ascii=False)


def key_values(text: str) -> list[Any]:
    """Return the values that `key_text` was called with; raise ValueError for any other text."""
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
