"""Every parser ends in a value or in a line, whatever it reads; `python -m tests.fuzzing` tries more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..fuzzing import counts, fuzz, parsers

INPUTS = 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", parsers())
def test_changed_inputs_end_in_a_value_or_a_line(name: str, tmp_path: Path) -> None:
    assert list(fuzz(name, counts(INPUTS, list(parsers()))[name], 0, tmp_path)) == []
