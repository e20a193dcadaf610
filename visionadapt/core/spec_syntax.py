"""The syntax of specs: read `lora(rank=8)` as a name with arguments, without evaluating anything.

A spec is like a Python call. Bare words and paths are strings, literals are parsed, and lists become tuples:

    csv(labels.csv, image=file, drop=["Not sure", other])
    lora(rank=8, blocks=last:6)
    my.module:Name(rank=4)
    my_file.py:Name(rank=4)
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from visionadapt.errors import SpecError

_BARE = re.compile(r"[^\s,()\[\]{}=\"'](?:[^,()\[\]{}=\"']*[^\s,()\[\]{}=\"'])?")
_MOST_BRACKETS = 32
_IDENTIFIER = re.compile(r"\s*([A-Za-z_]\w*)\s*=")


@dataclass(frozen=True)
class Call:
    """A parsed spec, not yet turned into an object."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def read(text: str) -> Call:
    """Parse only the syntax of a spec; raise SpecError if it is invalid."""
    reader = _Reader(text)
    call = reader.call()
    reader.expect_end()
    return call


def is_bare(text: str) -> bool:
    """Return whether a string reads as itself without quotation marks."""
    return bool(_BARE.fullmatch(text)) and "\n" not in text and isinstance(_literal(text), str)


def _literal(word: str) -> Any:
    """Parse a bare word as a number or constant, or return the word itself."""
    if word in {"None", "True", "False"} or re.fullmatch(r"[+-]?(\d|\.\d)[\d_.eE+-]*", word):
        try:
            return ast.literal_eval(word)
        except (SyntaxError, ValueError):
            return word
    return word


class _Reader:
    """Parse one spec from left to right; every method leaves `at` after what it has read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def call(self) -> Call:
        match = re.compile(r"\s*([^\s,()\[\]{}=\"']+)\s*").match(self.text, self.at)
        if match is None:
            raise self.error("a name is missing")
        self.at = match.end()
        args, kwargs = self.arguments() if self.peek() == "(" else ((), {})
        return Call(match[1], args, kwargs)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for _ in self.items("(", ")"):
            match = _IDENTIFIER.match(self.text, self.at)
            if match is None:
                if kwargs:
                    raise self.error("an argument without a name follows one with a name")
                args.append(self.value())
                continue
            self.at = match.end()
            if match[1] in kwargs:
                raise self.error(f"{match[1]!r} is given twice")
            kwargs[match[1]] = self.value()
        return tuple(args), kwargs

    def value(self) -> Any:
        start = self.peek()
        if start in "\"'":
            return self.quoted()
        if start == "[":
            return tuple(self.value() for _ in self.items("[", "]"))
        if start == "{":
            return dict(self.entry() for _ in self.items("{", "}"))
        match = _BARE.match(self.text, self.at)
        if match is None:
            raise self.error("a value is missing")
        end = match.end()
        if self.text[end : end + 1] == "(":
            return self.call()
        self.at = end
        return _literal(match[0])

    def entry(self) -> tuple[Any, Any]:
        match = re.compile(r"[^\s,()\[\]{}=\"':]+(?: +[^\s,()\[\]{}=\"':]+)*").match(self.text, self.at)
        if self.peek() in "\"'":
            key = self.quoted()
        elif match is None:
            raise self.error("a key is missing")
        else:
            key, self.at = _literal(match[0]), match.end()
        if self.peek() != ":":
            raise self.error("':' is missing after a key")
        self.at += 1
        return key, self.value()

    def quoted(self) -> str:
        match = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'").match(self.text, self.at)
        if match is None:
            raise self.error("a quotation mark is not closed")
        self.at = match.end()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return str(ast.literal_eval(match[0]))
        except (SyntaxError, ValueError) as error:
            raise self.error("a quoted text has a wrong escape") from error

    def items(self, opening: str, closing: str) -> Iterable[None]:
        """Yield once before each of the comma-separated items between two brackets."""
        self.at += len(opening)
        self.depth += 1
        if self.depth > _MOST_BRACKETS:
            raise self.error(f"more than {_MOST_BRACKETS} brackets are nested")
        while self.peek() != closing:
            yield None
            if self.peek() not in {",", closing}:
                raise self.error(f"',' or {closing!r} is missing")
            if self.peek() == ",":
                self.at += 1
        self.at += len(closing)
        self.depth -= 1

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else "\0"

    def expect_end(self) -> None:
        if self.peek() != "\0" or self.at < len(self.text):
            raise self.error("there is text after the end")

    def error(self, what: str) -> SpecError:
        return SpecError(f"{self.text!r} cannot be read: {what} (at character {self.at + 1})")
