"""Render HTML pages that need neither network nor scripts; every value is escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from visionadapt.system.text import terminal_safe
from visionadapt.version import __version__


def render(package: str, template: str, **values: Any) -> str:
    """Render a template from a package's `templates/` folder; it extends `base.html` from this one.

    A name that the template misspells is an error. Filters: `percent`, `decimal`, `interval`, `thousands`, `middle`,
    and `one_line`, which escapes characters that do not print.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal, "interval": interval, "thousands": "{:,}".format}
    environment.filters["middle"] = middle
    environment.filters["one_line"] = partial(terminal_safe, one_line=True)
    return environment.get_template(template).render(version=__version__, **values)


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share: 0.8065 → `80.7 %`; a dash for None."""
    return "–" if value is None else f"{value:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def middle(name: str, most: int = 56) -> str:
    """Shorten a long name in its middle, so that its beginning and its end can be read.

    >>> middle("photos/" + "x" * 90 + "/cat-0042.jpg", 30)
    'photos/xxxxxx…x/cat-0042.jpg'
    """
    if len(name) <= most:
        return name
    tail = most // 2
    return f"{name[: most - tail - 1]}…{name[-tail:]}"


def decimal(value: float | None) -> str:
    """Format with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def interval(limits: Sequence[float] | None, formatted: Callable[[float], str] = percent) -> str:
    """Format the limits of an interval, such as `70.0 % to 80.0 %`; empty for None."""
    return "" if limits is None else f"{formatted(limits[0])} to {formatted(limits[1])}"
