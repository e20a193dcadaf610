"""Why rows cannot be used, in one line: the commonest reasons, counted, with examples."""

from __future__ import annotations

from visionadapt.core.records import Record
from visionadapt.data.reasons import commonest


class Advised:
    """A source that knows what one of its rows may mean."""

    def advice(self, record: Record) -> str | None:
        return f"there is {record.key.upper()}" if record.key == "a.png" else None


def rows(*problems: str) -> list[tuple[Record, str]]:
    return [(Record(f"{chr(97 + place)}.png"), problem) for place, problem in enumerate(problems)]


def test_reasons_are_counted_without_their_places_and_numbers() -> None:
    told = commonest(
        rows("no such file (line 2)", "has 7 bytes (line 3)", "no such file (line 4)", "has 9 bytes (id 5)")
    )
    assert told == "2 × no such file (such as a.png, line 2), 2 × has 7 bytes (such as b.png, line 3)"


def test_the_commonest_come_first_and_the_rest_is_counted() -> None:
    told = commonest(rows("w", "x", "y", "y", "z", "z", "z", "v", "w"))
    assert told == "3 × z (such as e.png), 2 × w (such as a.png), 2 × y (such as c.png), 2 × other reasons"


def test_what_a_source_advises_on_the_commonest_reason_follows() -> None:
    found = rows("gone (line 2)")
    assert commonest(found, Advised()) == "1 × gone (a.png, line 2); there is A.PNG"  # type: ignore[arg-type]
    assert commonest([(Record("b.png"), "x"), *found], Advised()) == "1 × x (b.png), 1 × gone (a.png, line 2)"  # type: ignore[arg-type]


def test_no_rows_have_no_reasons() -> None:
    assert commonest([]) == ""
