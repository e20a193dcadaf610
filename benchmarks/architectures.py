"""Check every architecture of timm: `python -m benchmarks.architectures`.

An architecture is a model class together with the classes of the modules inside: of all names that share both, the one
with the fewest parameters is measured, with random weights. Names are measured in processes of their own, a few in
each, with limits on CPU time and memory. Every result is a line of the file of `--kept`: an interrupted run resumes
from it, and `docs/measurements/architectures.md` is written from its lines. Names in `--again` are measured again.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import textwrap
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from visionadapt import adapters
from visionadapt.backbones import Backbone, load
from visionadapt.backbones.creation import check_image_size
from visionadapt.errors import AdapterError, BackboneError

Line = dict[str, Any]

KEPT = Path("docs/measurements/architectures.jsonl")
MOST_PARAMETERS = 100_000_000
NAMES_PER_PROCESS = 6
SECONDS_PER_NAME = 240
MOST_MEMORY = 10 * 2**30
IMAGE_SIZE = 128
FEW_BLOCKS = 4
MOST_MERGED_ERROR = 1e-5
STEPS = 2
METHODS: Mapping[str, adapters.AdapterSettings] = {"bottleneck": adapters.Bottleneck(), "lora": adapters.LoRA()}

PAGE = """# Every architecture of timm

This file is written by `python -m benchmarks.architectures`; do not edit it.

timm {timm} has {names:,} names, {small:,} of them with at most 100 million parameters without a classifier. An
architecture is a model class together with the classes of the modules inside; of all names that share both, the one
with the fewest parameters was measured, in float32 on a CPU with torch {torch}, on images of {size} pixels where it can
take them, else of its own size, with random weights: factors that start at zero, such as layer scales, were set as if
they had been trained. An architecture passes if

- its stem, blocks and finish, one after the other, give the model's own features bit for bit (`torch.equal`);
- it has at least {few} blocks, or a stated reason for fewer;
- `bottleneck` and `lora` attach with their default settings, every layer is reached in training, evaluation and
  inference mode (`adapters.probe`), and every adapter parameter has a gradient after a training step;
- LoRA merged into the weights gives the same features within {merged:.0e} of the largest one;
- detaching restores the weights and the features bit for bit.

{result}

## What does not pass

{failures}
## Fewer than {few} blocks

{undivided}
## All model classes

{table}"""

RESULT = """**{passed} of {measured} measured architectures pass ({share:.1%})**; they stand for {passed_names:,} of
{measured_names:,} names.
There are {chosen} architectures in {classes} model classes; {missing} are not measured yet:
{missing_names:,} names{missing_classes}."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, default=KEPT, help="JSON lines of the results so far")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements/architectures.md"))
    parser.add_argument("--again", nargs="*", default=[], help="names to measure again")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--failed", action="store_true", help="measure again what did not pass")
    parser.add_argument("--measure", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure is not None:
        measure_here(given.measure, given.kept)
        return
    chosen = choose(catalogue(given.kept.with_suffix(".names.jsonl")))
    done = _read(given.kept)
    again = {*given.again, *(name for name, line in done.items() if given.failed and faults(line))}
    missing = [line["name"] for line in chosen if line["name"] not in done or line["name"] in again]
    _measure_all([] if given.page else missing, given.kept)
    done = _read(given.kept)
    lines = [{**line, **done[line["name"]]} for line in chosen if line["name"] in done]
    given.out.write_text(page(sorted(lines, key=lambda line: (line["class"], line["name"])), chosen), encoding="utf-8")
    print(f"written: {given.out}")


def catalogue(kept: Path) -> list[Line]:
    """Every name of timm with its class, the classes of its modules and its size; built without memory for weights."""
    known = _read(kept)
    with kept.open("a", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in timm.list_models():
            if name not in known:
                with torch.device("meta"):
                    model = timm.create_model(name, num_classes=0)
                known[name] = {
                    "name": name,
                    "class": f"{type(model).__module__.removeprefix('timm.models.')}.{type(model).__name__}",
                    "modules": sorted({type(module).__name__ for module in model.modules()}),
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                }
                file.write(json.dumps(known[name]) + "\n")
                file.flush()
    return list(known.values())


def choose(names: Iterable[Line]) -> list[Line]:
    """The smallest name of every architecture, with the number of names that it stands for.

    One of each class comes first, then those that stand for most names.
    """
    groups = defaultdict(list)
    for line in names:
        if line["parameters"] <= MOST_PARAMETERS:
            groups[line["class"], *line["modules"]].append(line)
    smallest = (min(group, key=lambda line: (line["parameters"], line["name"])) for group in groups.values())
    chosen = [{**line, "names": len(group)} for line, group in zip(smallest, groups.values(), strict=True)]
    chosen.sort(key=lambda line: line["parameters"])
    first = {line["class"]: line["name"] for line in reversed(chosen)}
    return sorted(chosen, key=lambda line: (first[line["class"]] != line["name"], -line["names"]))


def _measure_all(names: Sequence[str], kept: Path) -> None:
    """Measure names in processes of their own; one that ends a process is noted, and the rest go on in another."""
    waiting = list(names)
    while waiting:
        batch = waiting[:NAMES_PER_PROCESS]
        started = time.time()
        command = [sys.executable, "-m", "benchmarks.architectures", "--kept", str(kept), "--measure", *batch]
        ended = f"the process ended with exit code {subprocess.run(command).returncode}, by its limits or a crash"
        found = {name for name, line in _read(kept).items() if line["at"] >= started}
        left = [name for name in batch if name not in found]
        if left:
            _append(kept, {"name": left[0], "at": time.time(), "error": ended})
        waiting = left[1:] + waiting[len(batch) :]


def measure_here(names: Sequence[str], kept: Path) -> None:
    """Measure names in this process."""
    seconds = SECONDS_PER_NAME * len(names)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    warnings.simplefilter("ignore")
    for name in names:
        started = time.process_time()
        line: Line = {"name": name}
        try:
            line.update(measure(name))
        except (BackboneError, MemoryError, RuntimeError) as error:
            line["error"] = _first_line(error)
        line.update({"at": time.time(), "seconds": round(time.process_time() - started, 1)})
        _append(kept, line)
        print(name, line["seconds"], *faults(line), flush=True)


def measure(name: str) -> Line:
    """Everything that the page states about one name."""
    backbone = load(name, weights="none", image_size=_size(name))
    _open(backbone)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, *backbone.blank_pixels().shape[1:], generator=generator)
    with torch.no_grad():
        own = backbone.model(pixels)
        state = {"x": pixels}
        for cut in range(len(backbone.segments)):
            state = backbone.run(state, cut, cut + 1)
    found: Line = {
        "size": backbone.config.image_size,
        "equal": torch.equal(state["x"], own) and bool(own.isfinite().all()),
        "blocks": len(backbone.anatomy.blocks),
        "undivided": backbone.anatomy.undivided,
    }
    for method, settings in METHODS.items():
        try:
            found[method] = _trained(backbone, settings, pixels, own)
        except (AdapterError, RuntimeError, TypeError, ValueError) as error:
            found[method] = {"error": _first_line(error)}
            if adapters.names(backbone):
                adapters.detach(backbone)
    return found


def _size(name: str) -> int | None:
    """The image size: small where the model can take it, to save time, else its own."""
    try:
        check_image_size(name, IMAGE_SIZE)
    except BackboneError:
        return None
    return IMAGE_SIZE


def _open(backbone: Backbone) -> None:
    """Set parameters that start at almost zero, such as layer scales and biases, as if they had been trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def _trained(backbone: Backbone, settings: adapters.AdapterSettings, pixels: Tensor, own: Tensor) -> Line:
    """Attach, probe, train a few steps, merge where possible, and detach."""
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    done = adapters.attach(backbone, settings, sites=backbone.sites())
    adapters.probe(backbone, pixels[:1])
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    for _ in range(STEPS):
        backbone.train()
        optimizer.zero_grad()
        output = backbone(pixels)
        ((output - own.flip(0).roll(1, -1)) / own.abs().max()).square().mean().backward()
        optimizer.step()
    gradients = [parameter.grad for parameter in parameters]
    found: Line = {
        "sites": len(done.sites),
        "without_gradient": sum(gradient is None or not gradient.isfinite().all() for gradient in gradients),
    }
    backbone.eval()
    if isinstance(settings, adapters.LoRA):
        found.update(_merged(backbone, pixels))
    adapters.detach(backbone)
    after = backbone.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        found["restored"] = same and torch.equal(backbone.model(pixels), own)
    return found


@torch.no_grad()
def _merged(backbone: Backbone, pixels: Tensor) -> Line:
    """The error of the merged model, relative to the largest feature; where it is large, also that of float32 alone."""
    trained, merged = backbone(pixels), adapters.merge(backbone)
    error = _error(merged(pixels), trained)
    if error <= MOST_MERGED_ERROR:
        return {"merged": error}
    exact = backbone.double()(pixels.double())
    found = {"merged": error, "float32": _error(trained.double(), exact)}
    backbone.float()
    return found


def _error(output: Tensor, expected: Tensor) -> float:
    return float((output - expected).abs().max() / expected.abs().max())


def faults(line: Line) -> list[str]:
    """What a name fails, in words; nothing if it passes."""
    if "error" in line:
        return [line["error"]]
    found = [] if line["equal"] else ["its parts do not give its own features"]
    if line["blocks"] < FEW_BLOCKS and not line["undivided"]:
        found.append(f"it has {line['blocks']} blocks for no stated reason")
    for method in METHODS:
        result = line[method]
        if "error" in result:
            found.append(f"{method}: {result['error']}")
            continue
        if result["without_gradient"]:
            found.append(f"{method}: {result['without_gradient']} parameters have no gradient")
        if result.get("merged", 0) > MOST_MERGED_ERROR or result.get("merged") != result.get("merged"):
            found.append(
                f"{method}: merged, the features differ by {result['merged']:.0e}; "
                f"rounding in float32 alone by {result['float32']:.0e}"
            )
        if not result["restored"]:
            found.append(f"{method}: detaching does not restore it")
    return found


def page(lines: Sequence[Line], chosen: Sequence[Line]) -> str:
    """The page, from the lines of the measured names."""
    passed = [line for line in lines if not faults(line)]
    done = {line["name"] for line in lines}
    missing = [line for line in chosen if line["name"] not in done]
    few = [line for line in lines if line.get("blocks", FEW_BLOCKS) < FEW_BLOCKS]
    result = RESULT.format(
        passed=len(passed),
        measured=len(lines),
        share=len(passed) / len(lines),
        passed_names=sum(line["names"] for line in passed),
        measured_names=sum(line["names"] for line in lines),
        chosen=len(chosen),
        classes=len({line["class"] for line in chosen}),
        missing=len(missing),
        missing_names=sum(line["names"] for line in missing),
        missing_classes=_without(lines, chosen),
    )
    return PAGE.format(
        timm=timm.__version__,
        torch=torch.__version__,
        names=len(timm.list_models()),
        small=sum(line["names"] for line in chosen),
        size=IMAGE_SIZE,
        few=FEW_BLOCKS,
        merged=MOST_MERGED_ERROR,
        result=textwrap.fill(" ".join(result.split()), 120, break_on_hyphens=False),
        failures=_listed((line["name"], line["class"], "; ".join(faults(line))) for line in lines if faults(line)),
        undivided=_listed((line["name"], line["class"], f"{line['blocks']}: {line['undivided']}") for line in few),
        table=_table(lines),
    )


def _without(lines: Sequence[Line], chosen: Sequence[Line]) -> str:
    """The classes of which nothing is measured."""
    classes = sorted({line["class"] for line in chosen} - {line["class"] for line in lines})
    return f". No architecture is measured of {', '.join(f'`{name}`' for name in classes)}" if classes else ""


def _listed(items: Iterable[tuple[str, str, str]]) -> str:
    lines = (
        textwrap.fill(f"- `{name}` (`{kind}`): {reason}", 120, subsequent_indent="  ", break_on_hyphens=False)
        for name, kind, reason in items
    )
    return "".join(f"{line}\n" for line in lines) or "None.\n"


def _table(lines: Sequence[Line]) -> str:
    """One row for each model class."""
    classes = defaultdict(list)
    for line in lines:
        classes[line["class"]].append(line)
    rows = [
        "| class | names | architectures | pass | blocks | largest error of a merged LoRA |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for kind, group in classes.items():
        blocks = [line["blocks"] for line in group if "blocks" in line]
        errors = [line["lora"]["merged"] for line in group if "merged" in line.get("lora", {})]
        spread = f"{min(blocks)}–{max(blocks)}" if len(set(blocks)) > 1 else str(*blocks[:1])
        passed = sum(not faults(line) for line in group)
        worst = f"{max(errors):.0e}" if errors else ""
        rows.append(f"| `{kind}` | {sum(g['names'] for g in group)} | {len(group)} | {passed} | {spread} | {worst} |")
    return "\n".join([*rows, ""])


def _read(kept: Path) -> dict[str, Line]:
    """The latest line of every name."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    return {line["name"]: line for line in map(json.loads, lines)}


def _append(kept: Path, line: Line) -> None:
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


if __name__ == "__main__":
    main()
