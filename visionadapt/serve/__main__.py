"""`python -m visionadapt.serve RUN ...`: classify images over HTTP, and on a page in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cyclopts import Group, Parameter

from visionadapt.commands import shell
from visionadapt.errors import Terminated, UsageError
from visionadapt.runs.options import OutputOptions

if TYPE_CHECKING:
    from visionadapt.serve.limits import Limits

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart")
_MEBIBYTE = 2**20


@Parameter(name="*", group=Group("Limits", sort_key=3))
@dataclass(frozen=True)
class LimitOptions:
    """What requests may cost."""

    max_megabytes: int = 32
    """MiB of one request."""

    max_pixels: int = 100_000_000
    """Most pixels (width × height) of an image."""

    max_files: int = 64
    """Images of one request."""

    seconds: float = 30.0
    """Time for a request to arrive, and again for its answer, once those before it have theirs."""

    max_requests: int = 256
    """Requests in progress, and images that wait; others are told to come back."""

    def limits(self) -> Limits:
        """Return the limits; raise UsageError if one is not above 0."""
        from visionadapt.serve.limits import Limits

        size = self.max_megabytes * _MEBIBYTE
        held = max(Limits.max_waiting_bytes, 2 * size)
        return Limits(size, self.max_pixels, self.max_files, self.seconds, self.max_requests, held)


app = shell.app(
    "serve",
    "python -m visionadapt.serve runs/first",
    "python -m visionadapt.serve runs/first runs/second --port 9000",
    "python -m visionadapt.serve runs/first --host 0.0.0.0 --max-megabytes 8",
    "curl -F file=@cat.jpg http://127.0.0.1:8000/predict",
)


@app.default
def main(
    run: str,
    /,
    *runs: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    weights: str | None = None,
    limit: LimitOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Classify images over HTTP until a signal ends it: POST /predict, and a page at / to drop images on.

    Images of all requests are classified in batches. Runs on one backbone share its frozen layers. No file is written,
    and no path or URL in a request is opened. There is no login: who reaches the port can ask.

    Parameters
    ----------
    run
        Run folder of a trained classifier, or hf://ORG/NAME for one on the Hugging Face hub.
    runs
        Further run folders, or hf://ORG/NAME.
    host
        Address to listen on; 0.0.0.0 lets other machines ask.
    port
        Port to listen on; 0 takes a free one.
    device
        auto, cpu, cuda, cuda:1 or mps.
    weights
        Backbone weights, if they are no longer where training found them.
    """
    _check_libraries()
    reporter = (output or OutputOptions()).reporter()
    limits = (limit or LimitOptions()).limits()
    reporter.announce_loading()
    import os

    from visionadapt.serve import server
    from visionadapt.serve.app import application
    from visionadapt.serve.runs import ServedRuns, open_runs

    with server.bind(host, port) as bound:
        served = ServedRuns(open_runs((run, *runs), device, weights), limits.max_pixels)
        for sharing in served.shared:
            reporter.say(f"{', '.join(sharing)} share one backbone")
        hosts = ("localhost", "127.0.0.1", "[::1]", host) if server.is_local(host) else ("*",)
        web = application(served, limits, hosts=hosts, threads=max(os.cpu_count() or 1, 1))
        address = server.address_of(bound)

        def ready() -> None:
            reporter.say(f"ready: {address} (Ctrl-C ends it)")
            reporter.event("ready", {"address": address, "runs": list(served.predictors)})
            reporter.answer(address)

        try:
            server.made(web, limits.seconds, ready).run(sockets=[bound])
        except (KeyboardInterrupt, Terminated) as signal:  # the usual way to end it, not an error
            reporter.say("stopped")
            return shell.SIGNALLED + signal.number if isinstance(signal, Terminated) else shell.INTERRUPTED
    return 0


def _check_libraries() -> None:
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        names = ", ".join(missing).replace("_", "-")
        raise UsageError(f"serving needs {names}: pip install 'visionadapt[serve]'")


if __name__ == "__main__":
    shell.main(app)
