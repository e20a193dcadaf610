"""What the application answers: the predictions of `predict`, and one line of JSON for every mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import visionadapt as va
from visionadapt.serve.app import application
from visionadapt.serve.limits import Limits
from visionadapt.serve.runs import ServedRuns, open_runs

from .conftest import ADAPTERS, LIMITS, image


def rows(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["predictions"]
    return found


def agree(row: dict[str, Any], own: va.Prediction) -> None:
    """Whether an answer is what `predict` gives."""
    assert (row["label"], row["abstain"], row["labels"]) == (own.label, own.abstain, list(own.labels))
    assert row["probability"] == pytest.approx(own.probability, abs=1e-5)
    assert row["distance"] == pytest.approx(own.distance, abs=1e-4)
    assert row["odd"] == (own.distance > 1)
    assert {each["label"]: each["probability"] for each in row["top"]} == pytest.approx(dict(own.top(3)), abs=1e-5)


@pytest.mark.slow
def test_one_image_as_the_body_is_classified_by_every_run(client: TestClient, folders: dict[str, Path]) -> None:
    data = image(1)
    found = rows(client.post("/predict", content=data))
    assert [row["run"] for row in found] == [*ADAPTERS]
    for row in found:
        agree(row, va.load(folders[row["run"]]).predict(data))


def test_several_files_are_answered_in_order_with_a_reason_for_those_that_fail(
    client: TestClient, folders: dict[str, Path]
) -> None:
    files = [
        ("a.png", image(2)),
        ("text.jpg", b"no image"),
        ("c.jpg", image(3, form="JPEG")),
        ("cut.png", image(4)[:-60]),
    ]
    found = rows(client.post("/predict?run=lora&top=1", files=[("file", pair) for pair in files]))
    assert [(row["file"], row["status"]) for row in found] == [
        ("a.png", 200),
        ("text.jpg", 415),
        ("c.jpg", 200),
        ("cut.png", 422),
    ]
    own = va.load(folders["lora"])
    for row, (_, data) in zip(found, files, strict=True):
        assert (row["problem"] is None) == (row["status"] == 200)
        if row["status"] == 200:
            assert (row["run"], row["label"], len(row["top"])) == ("lora", own.predict(data).label, 1)


@pytest.mark.parametrize("name", ["probe", "bottleneck"])
def test_a_heat_map_is_a_jpeg_of_its_own_run(client: TestClient, name: str) -> None:
    (row,) = rows(client.post(f"/predict?run={name}&heat_map=true", content=image(5)))
    assert row["heat_map"].startswith("data:image/jpeg;base64,")
    (without,) = rows(client.post(f"/predict?run={name}", content=image(5)))
    assert {**row, "heat_map": None} == without


@pytest.mark.slow
def test_several_labels(folders: dict[str, Path]) -> None:
    served = ServedRuns(open_runs([str(folders["tags"])], "cpu", None), LIMITS.max_pixels)
    with TestClient(application(served, LIMITS), base_url="http://localhost") as client:
        (row,) = rows(client.post("/predict", content=image(1)))
        agree(row, va.load(folders["tags"]).predict(image(1)))
        (facts,) = client.get("/classes").json()["runs"]
    assert (facts["task"], facts["thresholds"], facts["classes"]) == (
        "multilabel",
        [0.3, 0.5, 0.7],
        ["blood", "grass", "sky"],
    )


def test_health_and_classes(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "version": va.__version__, "runs": [*ADAPTERS]}
    assert [run["run"] for run in client.get("/classes").json()["runs"]] == [*ADAPTERS]


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (404, {"url": "/predict?run=none", "content": b"x"}),
        (422, {"url": "/predict?top=0", "content": b"x"}),
        (422, {"url": "/predict"}),
        (422, {"url": "/predict", "files": [("file", ("empty.png", b""))]}),
        (
            422,
            {
                "url": "/predict",
                "files": {},
                "data": {"path": "/etc/passwd"},
                "headers": {"content-type": "multipart/form-data; boundary=b"},
            },
        ),
        (415, {"url": "/predict", "json": {"url": "http://localhost/cat.jpg"}}),
        (415, {"url": "/predict", "data": {"path": "/etc/passwd"}}),
        (415, {"url": "/predict", "content": b"no image"}),
        (422, {"url": "/predict", "content": image(1)[:-60]}),
        (413, {"url": "/predict", "content": image(1, (150, 150))}),
        (413, {"url": "/predict", "content": bytes(LIMITS.max_bytes + 1)}),
        (413, {"url": "/predict", "files": [("file", (f"{n}.png", b"x")) for n in range(LIMITS.max_files + 1)]}),
        (
            400,
            {"url": "/predict", "content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        ),
        (400, {"url": "/predict", "content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        (
            400,
            {
                "url": "/predict",
                "content": b"x",
                "headers": {"content-type": f"multipart/form-data; boundary={300 * 'b'}"},
            },
        ),
    ],
)
def test_what_cannot_be_answered_is_one_line(client: TestClient, status: int, request_: dict[str, Any]) -> None:
    response = client.post(**request_)
    assert response.status_code in ({status, 400} if "data" in request_ and "headers" in request_ else {status})
    body = response.json()
    told = body["problem"] if "problem" in body else body["predictions"][0]["problem"]
    assert told and "\n" not in told
    assert rows(client.post("/predict", content=image(1)))


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(50_000)


def test_a_body_of_unknown_length_is_bounded_too(client: TestClient) -> None:
    assert client.post("/predict", content=chunks(5)).status_code == 413


def test_too_many_images_are_sent_away_with_a_time_to_come_back(served: ServedRuns) -> None:
    few = replace(LIMITS, max_requests=2)
    with TestClient(application(served, few, wait=0.2), base_url="http://localhost") as client:
        response = client.post("/predict", files=[("file", (f"{n}.png", image(n))) for n in range(3)])
        assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)
        assert len(rows(client.post("/predict?run=probe", files=[("file", ("a.png", image(1)))] * 2))) == 2


def test_bytes_of_all_requests_are_bounded(served: ServedRuns) -> None:
    with TestClient(
        application(served, replace(LIMITS, max_waiting_bytes=10_000)), base_url="http://localhost"
    ) as client:
        assert client.post("/predict", content=bytes(10_001)).status_code == 503
        assert rows(client.post("/predict", content=image(1, (20, 20))))


def test_only_the_names_of_this_machine_are_answered(served: ServedRuns) -> None:
    with TestClient(application(served, LIMITS, hosts=["localhost"]), base_url="http://localhost") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_the_schema_names_every_answer_and_no_page_names_another_host(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/health", "/classes"}
    entry = rows(client.post("/predict?run=probe", content=image(1)))[0]
    assert set(entry) == set(schema["components"]["schemas"]["ImageAnswer"]["properties"])
    for path in ("/", "/docs", "/drop.js"):
        page = client.get(path)
        assert page.status_code == 200 and "http://" not in page.text and "https://" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_limits_are_positive() -> None:
    with pytest.raises(va.errors.UsageError, match="--max-files 0"):
        Limits(max_files=0)


def test_names_that_are_no_text_come_back_as_text(client: TestClient) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="\xff\xe4.png"\r\n\r\n'
        + image(1)
        + b"\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    (row,) = rows(client.post("/predict?run=probe", content=body, headers=headers))
    assert json.dumps(row["file"]) and row["label"]
