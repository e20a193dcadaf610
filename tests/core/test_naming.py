"""Natural order and stable hashes."""

from __future__ import annotations

import doctest
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionadapt.core import naming
from visionadapt.core.naming import natural_key, near_duplicate_classes, stable_hash

from .test_records import TEXTS


@pytest.mark.parametrize(
    "ordered",
    [
        ["a", "b9", "b10", "b010", "c"],
        ["img1", "img2", "img2b", "img10", "img11"],
        ["1", "2", "10", "x"],
        ["v1.2", "v1.10", "v2"],
        ["a", "a1", "a1b", "ab"],
        ["Ant", "bee", "Cow"],
        ["0", "1", "00a"],
        ["1" * 5000, "2" + "0" * 5000],
    ],
)
def test_natural_order(ordered: list[str]) -> None:
    shuffled = random.Random(0).sample(ordered, len(ordered))
    expected = {"b010": ["a", "b9", "b010", "b10", "c"], "00a": ["0", "00a", "1"]}
    wanted = next((names for name, names in expected.items() if name in ordered), ordered)
    assert sorted(shuffled, key=natural_key) == wanted


@given(st.lists(st.text(alphabet="aA09é\u0301e²٣_", max_size=5), unique=True))
def test_natural_order_is_total_and_knows_no_normal_form(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    assert sorted(set(names), key=natural_key) == ordered
    assert len({natural_key(name) for name in names}) == len(names)


def test_both_normal_forms_stand_at_one_place() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert sorted(["cafz", decomposed, "cafd"], key=natural_key) == ["cafd", "cafz", decomposed]
    assert sorted(["cafz", composed, "cafd"], key=natural_key) == ["cafd", "cafz", composed]
    assert natural_key(composed)[:-1] == natural_key(decomposed)[:-1]


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat", "CAT"),
        ("t-shirt", "T_Shirt", "t shirt", "T-\u200bshirt "),
        ("0", "0.0", "00", "-0"),
        ("7", "007", "7.", "7.00"),
        ("straße", "STRASSE"),
        ("ﬁsh", "fish", "ｆｉｓｈ"),
        ("cafe\u0301", "CAFÉ"),
    ],
)
def test_names_that_are_one_class(names: tuple[str, ...]) -> None:
    assert near_duplicate_classes(["a", *names, "b"]) == (names,)
    assert near_duplicate_classes([*names, *names]) == (names,)


def test_names_that_may_be_two_classes_are_left_alone() -> None:
    different = ["A", "A-", "A+", "C", "C++", "tshirt", "t-shirt", "é", "e", "_", "-", "", " "]
    assert near_duplicate_classes([*different, "1", "-1", "10", "01a", "1a", "1,000"]) == ()
    assert near_duplicate_classes(["9" * 5000, "0" + "9" * 5000]) == ()


def test_stable_hashes_are_blake2b_of_the_joined_texts() -> None:
    digest = hashlib.blake2b(b"0\x1fcat/\xc3\xa4.jpg", digest_size=8).digest()
    assert stable_hash(0, "cat/ä.jpg") == int.from_bytes(digest, "little") // 2
    assert stable_hash(0, "order", 3) == 8682038268397892103
    assert stable_hash() == int.from_bytes(hashlib.blake2b(b"", digest_size=8).digest(), "little") // 2


@given(st.lists(st.integers() | TEXTS, max_size=4))
def test_any_values_can_be_hashed(parts: list[int | str]) -> None:
    assert 0 <= stable_hash(*parts) < 2**63


def test_the_example_in_the_documentation_holds() -> None:
    assert doctest.testmod(naming).failed == 0


def test_a_copy_of_a_folder_is_the_same_class() -> None:
    for copy in ("cat copy", "cat copy 2", "cat - Copy", "cat - Copy (2)", "Cat (1)", "cat_copy"):
        assert near_duplicate_classes(["cat", "dog", copy]) == (("cat", copy),)
    assert near_duplicate_classes(["dog", "cat copy", "cat (1)", "photocopy", "photo", "type (2)"]) == ()
