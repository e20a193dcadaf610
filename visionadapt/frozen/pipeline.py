"""`Pipeline`: a classifier, its preprocessing and its plan as one object, from pixels to features and logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visionadapt.frozen.engines import candidates, engine_versions
from visionadapt.frozen.graphs import channels_last
from visionadapt.frozen.part import FrozenPart
from visionadapt.frozen.plan import Plan
from visionadapt.frozen.precision import computing_in
from visionadapt.images import Preprocessing
from visionadapt.images.decode import DECODER_REVISION
from visionadapt.model.classifier import Classifier
from visionadapt.version import __version__

Change = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""From the named tensors [B, …] at the cut to others, of as many images or fewer."""


@dataclass(frozen=True)
class Pipeline:
    """A classifier with its preprocessing and its plan: everything that decides what an image becomes.

    Shapes: B images, S the side of the input, D pooled features, C classes.
    """

    frozen: FrozenPart
    prepare: Preprocessing
    plan: Plan
    own: bool = False  # whether `suffix` computes the model's own features alone

    @property
    def model(self) -> Classifier:
        """The classifier."""
        return self.frozen.model

    @torch.inference_mode()
    def prefix(self, pixels: Tensor, *, exact: bool = False) -> dict[str, Tensor]:
        """Run the frozen part: uint8 [B, 3, S, S], B the plan's `prefix_batch` → the named tensors at the cut.

        If the plan's engine cannot be built here, `eager` runs, or RunError is raised if `exact`. Where the memory is
        too small for B, fewer images are computed at once.
        """
        plan = self.plan
        if plan.cut == 0:
            return {"x": pixels}

        def run(portion: int) -> dict[str, Tensor]:
            prefix = plan.prefix if portion == len(pixels) else replace(plan.prefix, batch=portion)
            engine = self.frozen.engine(plan.engine, prefix, exact=exact)
            states = []
            for part in torch.split(pixels, portion):
                moved = pad(part, portion).to(plan.device, non_blocking=True)
                states.append(engine(channels_last(self.prepare.device(moved))))
            return _joined(states, len(pixels))

        return self.frozen.portions["before"].attempt(len(pixels), run, plan.device)

    def suffix(self, state: Mapping[str, Tensor], change: Change | None = None) -> Tensor:
        """Run the rest of the backbone: the named tensors [B, …] at the cut → pooled features [B, D] on the device.

        What is frozen after the cut computes in the frozen part's number format, the rest in its own. `change` is
        applied to the tensors at the cut first, where pixels are normalised already.
        """
        plan, model = self.plan, self.model
        state = {name: channels_last(tensor.to(plan.device, non_blocking=True)) for name, tensor in state.items()}
        if plan.cut == 0:
            state["x"] = channels_last(self.prepare.device(state["x"]))
        if change is not None:
            state = {name: channels_last(tensor) for name, tensor in change(state).items()}
        if plan.cut < plan.trained:
            with computing_in(plan.prefix_precision, plan.device):
                state = model.backbone.run(state, plan.cut, plan.trained, own=self.own)
        if plan.trained < plan.segments:
            dtype: torch.dtype = getattr(torch, plan.precision)
            state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        with computing_in(plan.precision, plan.device, twice=model.backbone.checkpointing):
            return model.features(state, plan.trained, own=self.own)

    @torch.inference_mode()
    def pooled(self, state: Mapping[str, Tensor], size: int) -> Tensor:
        """Run `suffix` on a batch padded to `size`, so that a row's bits do not depend on the others: [size, D].

        Unlike in a training step, everything is in the frozen part's number format: validation, predictions and
        exports agree where the steps are in 16 bits.
        """
        plan = self.plan
        exact = replace(self, plan=replace(plan, precision=plan.prefix_precision))
        padded = {name: pad(tensor, size) for name, tensor in state.items()}

        def run(portion: int) -> dict[str, Tensor]:
            parts = zip(*(torch.split(tensor, portion) for tensor in padded.values()), strict=True)
            states = [dict(zip(padded, part, strict=True)) for part in parts]
            full = ({name: pad(tensor, portion) for name, tensor in state.items()} for state in states)
            return _joined([{"x": exact.suffix(state)} for state in full], size)

        return self.frozen.portions["after"].attempt(size, run, plan.device)["x"]

    @torch.inference_mode()
    def outputs(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, S, S] → pooled features [B, D] and logits [B, C], float32 on the CPU.

        In batches padded to the planned size, so that an image's bits do not depend on the others.
        """
        size = self.plan.prefix_batch
        pooled = [torch.empty(0, self.model.backbone.num_features)]
        logits = [torch.empty(0, len(self.model.classes))]
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            features = self.pooled(self.prefix(pad(batch, size)), size)
            pooled.append(features[: len(batch)].float().cpu())
            logits.append(self.model.head(features)[: len(batch)].cpu())
        return torch.cat(pooled), torch.cat(logits)

    def for_head(self) -> Pipeline:
        """Return the pipeline whose `suffix` does not compute features to which the head gives a weight of 0 now."""
        return replace(self, own=self.model.has_unused_features())

    def for_few(self, images: int) -> Pipeline:
        """Return the pipeline that computes a few images soonest: its `outputs` differ by about 1e-6.

        Nothing is built, and the batch is only padded to the next power of two.
        """
        size = min(1 << max(images - 1, 0).bit_length(), self.plan.prefix_batch)
        return replace(self, plan=replace(self.plan, engine="eager", prefix_batch=size))

    def for_many(self) -> Pipeline:
        """Return the pipeline that computes many images soonest: its `outputs` differ by about 1e-5.

        One engine runs the whole backbone, adapters included; it takes about a second to build. Without batch norms to
        fold, or if it fails or differs by more than engines may, the plan's engine remains.
        """
        plan = self.plan
        prefix = replace(plan.prefix, cut=plan.segments)
        engine = candidates(self.model, prefix)[0] if plan.engine == "eager" else plan.engine
        if engine == "eager" or not self.frozen.is_sound(engine, prefix):
            return self
        end = plan.segments
        return replace(self, plan=replace(plan, engine=engine, cut=end, trained=end))

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """Pooled features [N, D] → logits float32 [N, C] on the CPU."""
        parts = torch.split(features, self.plan.batch_size)
        return torch.cat([self.model.head(part.to(self.plan.device)).cpu() for part in parts])

    def description(self) -> dict[str, object]:
        """Return everything that cached tensors depend on besides the image, its extra decoder and its augmentation."""
        plan = self.plan
        versions = {**plan.versions, **engine_versions(plan.engine)}
        features = self.model.backbone.features_at(plan.cut)
        return {
            "backbone": plan.backbone,
            "weights": self.frozen.hash(plan.cut),
            **({} if features == "last" else {"features": features}),
            "image_size": plan.image_size,
            "cut": plan.cut,
            "engine": plan.engine,
            "precision": plan.prefix_precision,
            "device": torch.device(plan.device).type,
            "threads": plan.threads,
            "batch": plan.prefix_batch,
            "versions": {**versions, "visionadapt": __version__},
            "decoder": DECODER_REVISION,
            "preprocessing": self.prepare.to_json(),
        }


def pad(tensor: Tensor, size: int) -> Tensor:
    """Repeat the last row until there are `size` rows: [B, …] → [size, …]."""
    missing = size - len(tensor)
    return tensor if missing <= 0 else torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def _joined(states: Sequence[dict[str, Tensor]], rows: int) -> dict[str, Tensor]:
    """Return the first rows of consecutive named tensors."""
    if len(states) == 1:
        return states[0]
    return {name: torch.cat([state[name] for state in states])[:rows] for name in states[0]}
