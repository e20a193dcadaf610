"""Every option of the commands, defined once: name, type, default and help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from visionadapt.backbones import default_name

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter

DEFAULT_ADAPTER = "bottleneck(rank=16, blocks=last:66%)"


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """What is trained on what, and where it goes."""

    data: str | None = None
    """Folder of class folders, or of train/, val/ and test/ with such; or csv(labels.csv, image=file, label=label)."""

    out: str | None = None
    """Run folder to make; by default the next free one below runs/."""

    resume: str | None = None
    """Run folder to go on with, to the same result as if it had never stopped; settings come from it."""

    overwrite: Annotated[bool, Parameter(negative=())] = False
    """Replace the run folder that --out names."""

    backbone: str = default_name
    """A timm model."""

    weights: str = "pretrained"
    """pretrained, none for random ones, or a .safetensors or .pth file."""

    image_size: int | None = None
    """Side of the backbone's input in pixels; by default the pretrained one."""

    resize: str | None = None
    """How pictures become square: crop, squash or letterbox; by default the backbone's own way."""

    scaled: Annotated[bool, Parameter(negative=())] = False
    """Read large JPEGs at a fraction of their size, at least twice the backbone's: quicker, 0.2 of 255 off."""

    adapter: str = DEFAULT_ADAPTER
    """Adapter layers: bottleneck or lora, such as lora(rank=8, blocks=last:6); none trains only the head."""

    val: float = 0.2
    """Share of each class to validate with, where the data has no val/ folder."""

    max_rejected: str = "100%"
    """How many rows may be rejected before the run stops: a share such as 5%, or a number."""

    wanted_precision: float = 0.95
    """Share of right ones wanted among the predictions that do not abstain, in (0, 1)."""

    cache: str | None = None
    """Folder that keeps what the frozen part computed; by default visionadapt in the user's cache folder."""

    cache_limit: str | None = None
    """How large that folder may grow, such as 20GB; by default half of what the disk could give it."""

    tracker: str | None = None
    """Who else is told of every epoch: tensorboard, trackio or mlflow; several with commas between them."""

    plan: Annotated[bool, Parameter(negative=())] = False
    """Say how the run would compute and what it would take, and stop."""


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """What a command tells, and to whom."""

    quiet: Annotated[bool, Parameter(negative=())] = False
    """Tell nothing but errors, and where the result is, a line on standard output."""

    json: Annotated[bool, Parameter(negative=())] = False
    """Write what happens to standard output, one JSON object a line, for another program."""

    def reporter(self) -> Reporter:
        """Who tells it."""
        from visionadapt.console.reporter import Reporter

        return Reporter(self.quiet, self.json)


Workers = Annotated[int, Parameter(name="--workers", help="Processes that read pictures; −1 chooses.")]
Device = Annotated[str, Parameter(name="--device", help="auto, cpu, cuda, cuda:1, mps.")]
Overwrite = Annotated[bool, Parameter(name="--overwrite", negative=(), help="Replace what is at --out.")]
BackboneWeights = Annotated[
    str | None, Parameter(name="--weights", help="The backbone's weights, where they lie elsewhere than in training.")
]
