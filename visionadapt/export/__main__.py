"""`python -m visionadapt.export RUN --out DIR`: write a classifier as one file, or as a run that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from visionadapt.commands import shell
from visionadapt.commands.exports import check_libraries, report
from visionadapt.errors import UsageError
from visionadapt.runs.options import Flag, OutputOptions

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter
    from visionadapt.export.folder import Reduction

_OPENVINO = (
    "--format openvino is not written, because OpenVINO resizes some pixels otherwise; take --format onnx --prepared, "
    "and convert the part behind the resizing with OpenVINO's own `ovc OUT/prepared.onnx --compress_to_fp16=False`"
)

app = shell.app(
    "export",
    "python -m visionadapt.export runs/first --out exported",
    "python -m visionadapt.export runs/first --out exported --prepared",
    "python -m visionadapt.export runs/first --out exported --precision int8",
    "python -m visionadapt.export runs/first --out exported --format torch",
    "python -m visionadapt.export runs/first --out bundle --format bundle",
)


@app.default
def main(
    run: str,
    /,
    *,
    out: str,
    format: Literal["onnx", "torch", "bundle", "openvino"] = "onnx",  # noqa: A002 - the name of the option
    prepared: Flag = False,
    precision: Literal["float32", "float16", "int8"] = "float32",
    weights: str | None = None,
    overwrite: Flag = False,
    output: OutputOptions | None = None,
) -> int:
    """Write a classifier as one file, with golden images and examples, and verify it.

    The file resizes and normalises images of any size itself, and gives calibrated probabilities. Exit code 1: it does
    not agree with the run.

    Parameters
    ----------
    run
        Run folder of the trained classifier, or hf://ORG/NAME for one on the Hugging Face hub.
    out
        Folder to make.
    format
        onnx: for ONNX Runtime, in Python, JavaScript and others. torch: for PyTorch alone (torch.export). bundle: a
        copy of the run folder with the backbone's weights inside, which this library opens anywhere. openvino:
        prints how to convert prepared.onnx, and why no file is written.
    prepared
        Also write prepared.onnx (or .pt2), which takes images that are resized and normalised already.
    precision
        float16 or int8 writes a smaller model too, and says what it costs on the validation images. float16.onnx stores
        weights in half the bytes; int8.onnx computes in 8 bits, and needs the images of the training.
    weights
        Backbone weights, if they are no longer where training found them.
    overwrite
        Replace the exported folder that --out names.
    """
    if format == "openvino":
        raise UsageError(_OPENVINO)
    reduction = _reduction(format, precision, prepared)
    if format == "onnx":
        check_libraries()
    reporter = (output or OutputOptions()).reporter()
    reporter.announce_loading()
    from visionadapt.export.bundle import bundle
    from visionadapt.export.export import export
    from visionadapt.export.verify import verify

    if format == "bundle":
        folder = bundle(run, out, weights=weights, overwrite=overwrite)
        code = report(reporter, verify(folder))
    else:
        folder = export(run, out, format, weights=weights, prepared=prepared, precision=reduction, overwrite=overwrite)
        if reduction is not None:
            _tell_costs(reporter, folder)
        code = report(reporter, verify(folder, run, weights=weights, trust=True))
    reporter.say(f"exported: {folder}")
    reporter.event("export", {"out": str(folder), "verified": code == 0})
    reporter.answer(str(folder))
    return code


def _reduction(kind: str, precision: Literal["float32", "float16", "int8"], prepared: bool) -> Reduction | None:
    """Return the number format of a smaller model; raise UsageError for options that do not fit the format."""
    reduction = None if precision == "float32" else precision
    if (kind != "onnx" and reduction is not None) or (kind == "bundle" and prepared):
        raise UsageError(f"--{'prepared' if reduction is None else 'precision'} is not for --format {kind}")
    return reduction


def _tell_costs(reporter: Reporter, folder: Path) -> None:
    """Say what the reduced models of an export cost."""
    from visionadapt.export.onnx_files import costs

    for name, cost in costs(folder).items():
        reporter.say(f"{name}: {cost}")


if __name__ == "__main__":
    shell.main(app)
