"""`Limits`: what a request to the server may cost."""

from __future__ import annotations

from dataclasses import dataclass

from visionadapt.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What one request, and all requests together, may cost.

    Attributes:
        max_bytes: bytes of one request.
        max_pixels: pixels (width × height) of one image, checked before it is decoded.
        max_files: images of one request.
        seconds: for a request to arrive; again for its images to be answered; and for which a queue may stand still.
        max_requests: requests in progress, and images that wait; others are sent away.
        max_waiting_bytes: bytes of all requests in progress.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 100_000_000
    max_files: int = 64
    seconds: float = 30.0
    max_requests: int = 256
    max_waiting_bytes: int = 2**30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"--{name.replace('_', '-')} {value}: give a number above 0")


class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: the status of the answer.
        reason: why, one line.
        wait: seconds after which to try again; None where that does not help.
    """

    def __init__(self, status: int, reason: str, wait: int | None = None) -> None:
        super().__init__(status, reason, wait)
        self.status = status
        self.reason = reason
        self.wait = wait


def busy() -> RequestError:
    """Return the error for a request above the limits on all requests together."""
    return RequestError(503, "the server has as many requests as it can take; try again", wait=1)
