"""Every option of the commands, defined once: name, type, default, help, and when it may change. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from visionadapt.backbones import default_name
from visionadapt.core import spec
from visionadapt.core.settings import MACHINE, TrainingSettings
from visionadapt.errors import RunError, UsageError

if TYPE_CHECKING:
    from visionadapt.console.reporter import Reporter

DEFAULT_ADAPTER = "lora(blocks=last:33%)"

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]

COMPUTATION = Group("Computation", sort_key=6)
"""Heading of the options in `--help` that say how something is computed."""

Exclude = Annotated[str | None, Parameter(name="--exclude")]
"""Type of the option that names an edited findings.csv; `visionadapt.sources.edited` describes the file."""

_DATA = Parameter(group=Group("Data", sort_key=1))
_MODEL = Parameter(group=Group("Model", sort_key=2))
_IMAGES = Parameter(group=Group("Images", sort_key=5))
_COMPUTATION = Parameter(group=COMPUTATION)

_ACTION = {"action": True}
"""Says what to do, not how a run computes."""
_FREE = {"free": True}
"""May be given again when a run is resumed."""


@Parameter(name="*", group=Group("Run", sort_key=3))
@dataclass(frozen=True)
class RunOptions:
    """Data, model and run folder of a training run."""

    data: Annotated[str | None, _DATA] = None
    """Folder of class folders (or of train/, val/, test/ with such), also s3://bucket/folder or
    hf://datasets/ORG/NAME, or csv(labels.csv, image=file, label=label)."""

    out: str | None = field(default=None, metadata=_ACTION)
    """Run folder to create; by default the next free one below runs/."""

    resume: str | None = field(default=None, metadata=_ACTION | _FREE)
    """Run folder of an interrupted run to resume, with its settings and to the same result; or of any run to go on
    with, by more --epochs."""

    from_run: Annotated[str | None, Parameter(name=["--from", "--from-run"])] = None
    """Run folder whose adapter layers, head and preprocessing a new run starts from: with other images, or more
    classes."""

    folds: Annotated[int | None, _DATA] = field(default=None, metadata=_ACTION)
    """Cross-validate: train this many classifiers, each validated on another part of the images. They share the output
    of the frozen layers."""

    fold: Annotated[str | None, _DATA] = None
    """Validate with one fold only, such as 2/5: the second of five. By default --val says what to validate with."""

    overwrite: Flag = field(default=False, metadata=_ACTION)
    """Replace the run folder that --out names."""

    backbone: Annotated[str, _MODEL] = default_name
    """Name of a timm model."""

    weights: Annotated[str, _MODEL] = "pretrained"
    """Backbone weights: pretrained, none (random), or a .safetensors or .pth file, also at s3://bucket/file."""

    image_size: Annotated[int | None, _IMAGES] = None
    """Side of the backbone's input in pixels; by default that of the pretrained weights."""

    resize: Annotated[str | None, _IMAGES] = None
    """How images become square: crop, squash or letterbox; by default as in pretraining."""

    scaled: Annotated[Flag, _IMAGES] = False
    """Decode large JPEGs at reduced size, at least twice the input's: faster; pixels change by about 0.2 of 255."""

    sample_range: Annotated[Annotated[str | None, Parameter(allow_leading_hyphen=True)], _IMAGES] = None
    """Values that become black and white in samples of more than 8 bits, such as 0,4095; declared refuses files that
    do not say. By default measured once on the training images, where the files do not say."""

    bands: Annotated[str | None, _IMAGES] = None
    """Bands that are red, green and blue, numbered from 1, such as 3,2,1; by default other bands are refused."""

    channels: Annotated[int, _IMAGES] = 3
    """Channels of the backbone's input: 3, 1 for grey, or as many as --bands names, such as 1,2,3,4,5."""

    icc: Annotated[Literal["convert", "ignore"], _IMAGES] = "convert"
    """Colour profiles in images: convert them to sRGB, or ignore them."""

    max_pixels: Annotated[int, _IMAGES] = 178_956_970
    """Most pixels (width × height) of an image; larger ones are rejected. With --scaled, as decoded."""

    adapter: Annotated[str, _MODEL] = DEFAULT_ADAPTER
    """Adapter layers, such as bottleneck or lora(rank=8, blocks=last:6); none trains only the head."""

    features: Annotated[Literal["blocks", "last"], _MODEL] = "blocks"
    """What the head gets: the last pooled features alone, or also mean and deviation of each channel after each
    of the last four blocks."""

    val: Annotated[float, _DATA] = 0.2
    """Share of each class to validate with, if the data has no val/ folder."""

    split_seed: Annotated[int | None, _DATA] = None
    """Seed of the division into images to train on and to validate with; by default --seed."""

    exclude: Annotated[Exclude, _DATA] = None
    """The findings.csv of an audit, with drop or relabel in its column action for rows to leave out or correct."""

    max_rejected: Annotated[str, _DATA] = field(default="100%", metadata=_FREE)
    """Rows that may be rejected before the run stops: a share such as 5%, or a number."""

    minutes: float | None = field(default=None, metadata=_ACTION)
    """Minutes to spend on trying a solved head and several adapters, of which the best on the validation images is
    taken; by default only --adapter is trained."""

    refit: Flag = False
    """Train the chosen classifier once more at the end, on the validation images too; its figures stay those of
    before."""

    max_minutes: float | None = field(default=None, metadata=_ACTION | _FREE)
    """Minutes after which the run stops, at the end of an epoch; --resume goes on."""

    target_precision: float = 0.95
    """Share of correct predictions to reach among those that do not abstain, in (0, 1)."""

    cache: Annotated[str | None, _COMPUTATION] = field(default=None, metadata=MACHINE)
    """Folder for the cached output of the frozen layers; by default visionadapt in the user's cache folder."""

    cache_limit: Annotated[str | None, _COMPUTATION] = field(default=None, metadata=MACHINE)
    """Maximum size of that folder, such as 20GB; by default half of the disk space that it could take."""

    tracker: str | None = field(default=None, metadata=MACHINE)
    """Experiment trackers to log each epoch to: tensorboard, trackio, mlflow or wandb, separated by commas."""

    trust_run: Flag = field(default=False, metadata=_ACTION | _FREE)
    """Allow the run folder of --resume to import the modules and contact the servers that it names."""

    shard: Annotated[str | None, _COMPUTATION] = field(default=None, metadata=_ACTION)
    """Only cache the output of the frozen layers for one part of the images, such as 3/16, and make no run; train
    without it when all parts are done."""

    plan: Flag = field(default=False, metadata=_ACTION | _FREE)
    """Print how the run would compute and what it would need, and stop."""

    verbose: Flag = field(default=False, metadata=_ACTION | _FREE)
    """Print how the run computes too: what is frozen and cached, the engine, batches, and the time of each step."""


@Parameter(name="*", group=COMPUTATION)
@dataclass(frozen=True)
class InferenceOptions:
    """How a trained classifier is loaded and run."""

    weights: str | None = None
    """Backbone weights, if they are no longer where training found them."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    workers: int = -1
    """Processes that read images; -1 chooses."""


@Parameter(name="*", group=Group("Cluster", sort_key=7))
@dataclass(frozen=True)
class ClusterOptions:
    """Whether the machines of a cluster share the work."""

    engine: Literal["ray"] | None = None
    """Compute on a Ray cluster (extra ray): the one that RAY_ADDRESS names, or all cores and GPUs of this machine."""

    actors: int | None = None
    """Models on the cluster at most; by default one per GPU, or else one per CPU."""

    shards: int | None = None
    """Parts that the cluster computes one by one; by default one per 4,096 images, and at most 10,000."""

    keep_shards: Flag = False
    """Leave the tables of the parts as they are, such as predictions-00003-of-00016.parquet; merge puts them
    together."""

    def count(self, images: int) -> int:
        """Return the number of parts; raise UsageError if an option is out of range."""
        for name, value in (("actors", self.actors), ("shards", self.shards)):
            if value is not None and not 1 <= value <= 99_999:
                raise UsageError(f"--{name} {value}: give a number from 1 to 99,999")
        return self.shards or min(-(-images // 4096) or 1, 10_000)

    def check(self, shard: str | None, out: str | None) -> None:
        """Raise UsageError where options do not go together."""
        if self.engine is None:
            if (self.actors, self.shards, self.keep_shards) != (None, None, False):
                raise UsageError("--actors, --shards and --keep-shards are for --engine ray")
        elif shard is not None or out in {None, "-"}:
            other = f"leave out --shard {shard}" if shard is not None else "give the table to write with --out"
            raise UsageError(f"--engine {self.engine} divides the images by itself into parts of one table: {other}")


@Parameter(name="*", group=Group("Output", sort_key=4))
@dataclass(frozen=True)
class OutputOptions:
    """What a command prints."""

    quiet: Flag = False
    """Print only errors, and the path of the result to standard output."""

    json: Flag = False
    """Print events to standard output, one JSON object per line, for other programs."""

    def reporter(self) -> Reporter:
        """Return the reporter that prints it."""
        from visionadapt.console.reporter import Reporter

        return Reporter(self.quiet, self.json)


RENAMED = {"wanted_precision": "target_precision"}
"""Former names of options, in run folders and on the command line, and their present ones."""

FORMER = {"icc": "ignore", "head": "trained", "features": "last", "early_stopping": False}
"""What runs did before an option existed, where that is not its default now."""

_FIELDS = {item.name: item for kind in (RunOptions, TrainingSettings) for item in dataclasses.fields(kind)}

DEFAULTS: Mapping[str, Any] = {name: item.default for name, item in _FIELDS.items()}
"""Default of every option and setting of a training run, by name."""


def _with(key: str) -> tuple[str, ...]:
    return tuple(name for name, item in _FIELDS.items() if key in item.metadata)


ACTIONS = _with("action")
"""Options that say what to do, not how the run computes."""

MACHINE_OPTIONS = _with("machine")
"""Options about the machine and its user, which do not change the result."""

FREE_ON_RESUME = _with("free") + MACHINE_OPTIONS
"""Options that may be given again when a run is resumed."""


def read_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options and settings in a run's `config.json` by present name; empty if saved from Python.

    Raise RunError if they are no JSON objects.
    """
    if not all(isinstance(config.get(part, {}), Mapping) for part in ("options", "settings")):
        raise RunError("config.json holds options that are no JSON object; restore it, or train again")
    stored = {**config.get("options", {}), **config.get("settings", {})}
    former = FORMER if stored else {}
    return {**former, **{RENAMED.get(name, name): value for name, value in stored.items()}}


def by_name(options: RunOptions, settings: TrainingSettings) -> dict[str, Any]:
    """Return every option and setting of a run by name."""
    return {**dataclasses.asdict(options), **dataclasses.asdict(settings)}


OTHER_TASKS = ("regression", "ordinal", "detection", "segmentation")
"""Tasks that people ask for, and that are none of visionadapt's."""


def check_task(task: Any) -> None:
    """Raise UsageError for a task that needs another kind of model than a classifier."""
    if task in OTHER_TASKS:
        numbers = task in OTHER_TASKS[:2]
        advice = "write a column of a few ranges or grades as the label" if numbers else "label each image as a whole"
        raise UsageError(f"--task {task}: visionadapt trains classifiers only; {advice}, and leave out --task")


def divide(values: Mapping[str, Any]) -> tuple[RunOptions, TrainingSettings]:
    """Return the options and the settings among values by name; what is missing has its default.

    Raise UsageError if a name is unknown, or a value is out of range.
    """
    for name in values:
        if name not in _FIELDS:
            raise UsageError(f"unknown option {name!r}{spec.suggestion(name, _FIELDS)}")
    check_task(values.get("task"))
    own = {item.name for item in dataclasses.fields(RunOptions)}
    options = RunOptions(**{name: value for name, value in values.items() if name in own})
    return options, TrainingSettings(**{name: value for name, value in values.items() if name not in own})


def with_folder(options: RunOptions | None, folder: str | None) -> RunOptions:
    """Return the options with `folder`, the data that was given without its name; raise UsageError if given twice."""
    options = options or RunOptions()
    if folder is not None and options.data is not None:
        raise UsageError(f"{folder!r} and --data {options.data} both name the data; give one of them")
    return options if folder is None else dataclasses.replace(options, data=folder)


def repeating(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a run's options and settings that repeat it: neither actions nor what was left open."""
    found = {name: value for name, value in values.items() if name not in ACTIONS and value is not None}
    if found.get("adapter", "none") != "none":  # with adapter layers, the head is trained in any case
        found.pop("head", None)
    return found
