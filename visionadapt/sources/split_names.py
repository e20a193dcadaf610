"""The names of the splits in folders and columns: train, val and test."""

from __future__ import annotations

import re
import unicodedata

from visionadapt.errors import SourceError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The names that Hugging Face's imagefolder knows too, with their splits."""

_THINGS = "sets?|data|datasets?|splits?|folders?|dirs?|samples?|images?|imgs?|photos?|pictures?|pics?|jpe?gs?|pngs?"
_FILLER = re.compile(_THINGS)
_GLUED = re.compile(f"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?:{_THINGS})")
_GLUED_BEHIND = re.compile(f"(?:{_THINGS})({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})")
_WORDS = re.compile(r"[^\W\d_]+")
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def split_named(name: str, where: str) -> str:
    """Return `train`, `val` or `test` for a name in any case; raise SourceError, beginning with `where`, for others."""
    split = SPLIT_NAMES.get(name.strip().casefold())
    if split is None:
        raise SourceError(f"{where} {name!r}; it must be train, val (or validation, valid) or test")
    return split


def flagged_split(column: str, flagged: bool, where: str) -> str:
    """Return the split of a row that a column such as `is_valid` marks, or does not mark.

    Raises:
        SourceError: the column's name does not say which split it marks; the message begins with `where`.
    """
    name = re.sub(r"^is_?", "", column.rpartition(".")[2].casefold())
    split = SPLIT_NAMES.get(name)
    if split is None or (split == "train" and not flagged):
        raise SourceError(
            f"{where}, which is no split; write train, val or test there: only is_valid or is_test may be 1 or 0"
        )
    return split if flagged else "train"


def split_of_folder(name: str) -> tuple[str | None, bool]:
    """Return the split that a folder's name tells, and whether the name tells nothing else.

    >>> split_of_folder("Training"), split_of_folder("01_train_images"), split_of_folder("chest-test")
    (('train', True), ('train', True), ('test', False))
    >>> split_of_folder("steam"), split_of_folder("train_val")
    ((None, False), (None, False))
    """
    humps = _HUMPS.sub(" ", unicodedata.normalize("NFKC", name))
    for text in dict.fromkeys((humps, humps.replace(" ", ""))):
        words = [_core(word) for word in _WORDS.findall(text.casefold())]
        splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if splits:
            only = all(word in SPLIT_NAMES or _FILLER.fullmatch(word) for word in words)
            return (splits.pop(), only) if len(splits) == 1 else (None, False)
    return None, False


def split_called(name: str) -> str | None:
    """Return the split that a name tells, if it tells nothing else; None otherwise."""
    split, alone = split_of_folder(name)
    return split if alone else None


def is_wrapper(name: str) -> bool:
    """Whether a folder's name says nothing about its content: `images`, `data`, `dataset_1`."""
    words = _WORDS.findall(_HUMPS.sub(" ", name).casefold())
    return bool(words) and all(_FILLER.fullmatch(word) for word in words)


def _core(word: str) -> str:
    """`train` from `trainset` or `imagestrain`."""
    glued = _GLUED.fullmatch(word) or _GLUED_BEHIND.fullmatch(word)
    return glued[1] if glued else word
