"""The web application: `POST /predict`, `/health`, `/classes`, the page at `/`, and `/docs`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from visionadapt.serve import answers, pages
from visionadapt.serve.answers import Classes, Health, ImageAnswer, Predictions, Problem
from visionadapt.serve.batching import Batcher
from visionadapt.serve.limits import Limits, RequestError
from visionadapt.serve.runs import Answer, Item, ReadItem, ServedRuns
from visionadapt.serve.uploads import Memory, Upload, read_uploads
from visionadapt.serve.waiting import answered
from visionadapt.version import __version__

_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
_MOST_TOP = 1000
_ONE_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _FILES, "application/octet-stream": _ONE_IMAGE},
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "damaged form data"},
    404: {"model": Problem, "description": "no such run"},
    408: {"model": Problem, "description": "the request took too long to arrive"},
    413: {"model": Predictions, "description": "too many bytes, images or pixels"},
    415: {"model": Predictions, "description": "no image file that is known"},
    422: {"model": Predictions, "description": "no image, or none that can be used"},
    503: {"model": Problem, "description": "too many requests; Retry-After says when to try again"},
}

_log = logging.getLogger("visionadapt")


def application(
    runs: ServedRuns, limits: Limits, *, hosts: Sequence[str] = ("*",), wait: float = 0.004, threads: int = 2
) -> FastAPI:
    """Return the application.

    Args:
        runs: what it serves.
        limits: what requests may cost.
        hosts: names that a request may call this server; `*` for any.
        wait: seconds that a request waits for others of its batch.
        threads: threads that decode images.
    """
    batcher: Batcher[Item, ReadItem, list[Answer]] = Batcher(
        runs.read, runs.compute, size=runs.batch, seconds=wait, waiting=limits.max_requests, threads=threads
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="visionadapt", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    _handle_errors(app)
    pages.add(app, tuple(runs.predictors))
    _add_facts(app, runs)
    memory = Memory(limits)

    @app.post("/predict", response_model=Predictions, responses=_REFUSALS, openapi_extra=_BODY)
    async def predict(
        request: Request,
        run: Annotated[list[str] | None, Query(description="runs to ask; all of them by default")] = None,
        top: Annotated[int, Query(ge=1, le=_MOST_TOP, description="so many of the most probable classes")] = 5,
        heat_map: Annotated[bool, Query(description="draw the regions that support each label")] = False,
    ) -> Response:
        """Classify one image (the body), or several (files of multipart/form-data)."""
        names = _known(run, runs)
        async with memory.request() as held:
            uploads = await read_uploads(request, limits, held)
            items = [Item(upload.data, upload.name, names, heat_map) for upload in uploads]
            outcomes = await answered(batcher, items, limits.seconds)
        found = [entry for pair in zip(uploads, outcomes, strict=True) for entry in _entries(*pair, top)]
        return _json(Predictions(predictions=found).model_dump(), answers.status_of(found))

    return app


def _known(requested: Sequence[str] | None, runs: ServedRuns) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(requested or runs.predictors))
    for name in names:
        if name not in runs.predictors:
            raise RequestError(404, f"no run is named {name!r}; there are {', '.join(runs.predictors)}")
    return names


def _entries(upload: Upload, outcome: list[Answer] | RequestError, top: int) -> list[ImageAnswer]:
    if isinstance(outcome, RequestError):
        return [answers.of_error(upload.name, outcome)]
    return [answers.of_answer(each, top) for each in outcome]


def _add_facts(app: FastAPI, runs: ServedRuns) -> None:
    @app.get("/health", response_model=Health)
    async def health() -> Response:
        """Say that the server answers."""
        return _json(Health(version=__version__, runs=list(runs.predictors)).model_dump())

    @app.get("/classes", response_model=Classes)
    async def classes() -> Response:
        """List the classes of every run."""
        found = [answers.of_run(name, predictor) for name, predictor in runs.predictors.items()]
        return _json(Classes(runs=found).model_dump())


def _handle_errors(app: FastAPI) -> None:
    """Answer every error with one line of JSON."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        headers = {} if error.wait is None else {"Retry-After": str(error.wait)}
        return _json({"problem": error.reason}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _json({"problem": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _json({"problem": "the server failed to answer; its log says why"}, 500)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(content, status, {**_HEADERS, **(headers or {})})
