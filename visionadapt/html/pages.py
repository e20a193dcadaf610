"""Render HTML pages that need neither network nor scripts; every value is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from visionadapt.system import text
from visionadapt.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST_WORD = 16
"""Letters of a word that a column of a table always has room for, on a phone as well."""
_BREAKS = re.compile(
    r"(?<=[-_./\\(=:,])(?=[^-_./\\(=:,\s\d])|(?<=[_/\\(=])(?=\d)"
    rf"|(?<=[0-9A-Za-z]{{{LONGEST_WORD}}})(?=[0-9A-Za-z])"
)

_COMMANDS = re.compile(
    r"((?<![\w-])(?:visionadapt [a-z]+(?: [A-Z]+\b| --[a-z]+)*|--[a-z-]*[a-z](?: (?:none|letterbox|\d+)\b)?))"
)


def render(package: str, template: str, **values: Any) -> str:
    """Render a template from a package's `templates/` folder; it extends `base.html` from this one.

    A name that the template misspells is an error. Filters: `percent`, `decimal`, `interval`, `thousands`, `middle`,
    `breakable`, and `one_line`, which escapes characters that do not print.
    """
    return str(_environment(package).get_template(template).render(version=__version__, **values))


@cache
def _environment(package: str) -> Environment:
    """Return what renders the templates of a package; it compiles each of them once."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal, "interval": interval, "thousands": "{:,}".format}
    environment.filters |= {"middle": middle, "breakable": breakable, "with_commands": with_commands}
    environment.filters["one_line"] = partial(text.terminal_safe, one_line=True)
    return environment


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share: 0.8065 → `80.7 %`; a dash for None."""
    return text.percent(value, digits).replace(" ", "\N{NO-BREAK SPACE}")


def middle(name: str, most: int = 56) -> str:
    """Shorten a long name in its middle, so that its beginning and its end can be read.

    >>> middle("photos/" + "x" * 90 + "/cat-0042.jpg", 30)
    'photos/xxxxxxx…xx/cat-0042.jpg'
    """
    if len(name) <= most:
        return name
    tail = most // 2
    return f"{name[: most - tail - 1]}…{name[-tail:]}"


def breakable(name: str) -> Markup:
    """Escape a name, and let a line end after its separators, or inside a word of more than `LONGEST_WORD` letters.

    Numbers such as `-4.5` stay whole.

    >>> breakable("six-spot_<burnet>")
    Markup('six-<wbr>spot_<wbr>&lt;burnet&gt;')
    """
    return Markup("<wbr>").join(_BREAKS.split(name))


def with_commands(sentence: str) -> Markup:
    """Escape a sentence; show commands and options in it as code, and let no line end before a per cent sign.

    >>> with_commands("Cut by 33 %: try --resize letterbox.")
    Markup('Cut by 33\\xa0%: try <code>--resize letterbox</code>.')
    """
    parts = _COMMANDS.split(sentence.replace(" %", "\N{NO-BREAK SPACE}%"))
    code, plain = Markup("<code>{}</code>"), Markup("{}")
    return Markup("").join((code if place % 2 else plain).format(part) for place, part in enumerate(parts))


def decimal(value: float | None) -> str:
    """Format with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def interval(limits: Sequence[float] | None, formatted: Callable[[float], str] = percent) -> str:
    """Format the limits of an interval, such as `70.0 % to 80.0 %`; empty for None."""
    return "" if limits is None else f"{formatted(limits[0])} to {formatted(limits[1])}"
