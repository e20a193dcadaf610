"""Pages of measurements to which several benchmarks write a part each."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(page: Path, text: str) -> None:
    """Write a part of a page in place of the one with its heading, which ends at the next; or add it at the end."""
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = [part.strip() for part in re.split(r"^(?=#)", before, flags=re.MULTILINE) if part.strip()]
    headings = [part.splitlines()[0] for part in parts]
    heading = text.strip().splitlines()[0]
    place = headings.index(heading) if heading in headings else len(parts)
    parts[place : place + 1] = [text.strip()]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
