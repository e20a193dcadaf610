"""The pages for people: one to drop images on, and one that documents the requests; no other host is asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Response

from visionadapt.html.pages import render

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'unsafe-inline'",
        "img-src blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add(app: FastAPI, runs: Sequence[str]) -> None:
    """Add the pages to an application; everything that they consist of is read now."""
    page = render(__package__, "drop.html", runs=list(runs))
    script = (files(__package__) / "templates" / "drop.js").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def drop() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    @app.get("/drop.js", include_in_schema=False)
    async def drop_script() -> Response:
        return Response(script, media_type="text/javascript", headers=_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        text = render(__package__, "requests.html", requests=_requests(app.openapi()))
        return Response(text, media_type="text/html", headers=_HEADERS)


def _requests(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return method, path, parameters and answers of each request of an OpenAPI schema."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "about": facts.get("description", ""),
            "bodies": sorted(facts.get("requestBody", {}).get("content", {})),
            "parameters": [(each["name"], each.get("description", "")) for each in facts.get("parameters", [])],
            "answers": [(status, each["description"]) for status, each in sorted(facts["responses"].items())],
            "fields": _fields(schema, facts),
        }
        for path, methods in schema["paths"].items()
        for method, facts in methods.items()
    ]


def _fields(schema: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the fields of a request's answer, and of the objects in its list, with their descriptions."""
    reference = facts["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    found = []
    waiting = [("", reference)]
    for prefix, each in waiting:
        for name, field in schema["components"]["schemas"][each.rpartition("/")[2]]["properties"].items():
            inner = field.get("items", {}).get("$ref")
            if inner:
                waiting.append((f"{prefix}{name}[].", inner))
            found.append((f"{prefix}{name}", field.get("description", "")))
    return found
