"""The JSON that the server answers with, and what it documents in its OpenAPI schema."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field

from visionadapt.prediction.predictor import Predictor
from visionadapt.serve.limits import RequestError
from visionadapt.serve.runs import Answer

_DECIMALS = 6


class ClassProbability(BaseModel):
    """A class and its calibrated probability."""

    label: str
    probability: float


class ImageAnswer(BaseModel):
    """What one run says of one image, or why the image could not be used."""

    file: str = Field(description="name of the file in the request; empty without one")
    run: str | None = Field(default=None, description="the run that classified it")
    label: str | None = Field(default=None, description="the most probable class")
    probability: float | None = Field(default=None, description="calibrated probability of the label")
    labels: list[str] | None = Field(default=None, description="every class that reaches its threshold")
    top: list[ClassProbability] | None = Field(default=None, description="the most probable classes")
    abstain: bool | None = Field(
        default=None, description="whether the probability is too low for the target precision"
    )
    distance: float | None = Field(
        default=None, description="dissimilarity to the training images, if the run measured it"
    )
    odd: bool | None = Field(default=None, description="whether the distance is above 1")
    heat_map: str | None = Field(
        default=None, description="data: URI of a JPEG, if it was asked for and the backbone has one"
    )
    problem: str | None = Field(default=None, description="why the image could not be used")
    status: int = Field(default=200, description="200, or 413, 415 or 422 for an image that could not be used")


class Predictions(BaseModel):
    """One entry for each image and run, in the order of the images."""

    predictions: list[ImageAnswer]


class Problem(BaseModel):
    """Why a request was refused."""

    problem: str


class Health(BaseModel):
    """Whether the server answers, and what it has open."""

    status: str = "ok"
    version: str
    runs: list[str]


class RunClasses(BaseModel):
    """A run and its classes, in the order of its probabilities."""

    run: str
    task: str
    classes: list[str]
    backbone: str
    threshold: float = Field(description="probability below which it abstains; above 1 if it always does")
    thresholds: list[float] = Field(description="probability at which an image gets each class, for several labels")


class Classes(BaseModel):
    """The classes of every run."""

    runs: list[RunClasses]


def of_answer(answer: Answer, top: int) -> ImageAnswer:
    """Return what a run says of an image."""
    row = answer.prediction
    measured = not math.isnan(row.distance)
    pairs = [ClassProbability(label=name, probability=round(value, _DECIMALS)) for name, value in row.top(top)]
    return ImageAnswer(
        file=row.file,
        run=answer.run,
        label=row.label,
        probability=round(row.probability, _DECIMALS),
        labels=list(row.labels),
        top=pairs,
        abstain=row.abstain,
        distance=round(row.distance, _DECIMALS) if measured else None,
        odd=row.odd if measured else None,
        heat_map=answer.heat_map,
    )


def of_error(file: str, error: RequestError) -> ImageAnswer:
    """Return why an image could not be used."""
    return ImageAnswer(file=file, problem=error.reason, status=error.status)


def status_of(answers: Sequence[ImageAnswer]) -> int:
    """Return the status of an answer: 200 if any image could be used, else that of the first."""
    return 200 if any(answer.status == 200 for answer in answers) else answers[0].status


def of_run(name: str, predictor: Predictor) -> RunClasses:
    """Return a run's classes."""
    return RunClasses(
        run=name,
        task=predictor.task,
        classes=list(predictor.classes),
        backbone=predictor.classifier.backbone.name,
        threshold=predictor.calibration.threshold,
        thresholds=list(predictor.calibration.thresholds),
    )
