"""`Trainer`: the state and the steps of a training run, in one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from visionadapt import adapters
from visionadapt.core.naming import stable_hash
from visionadapt.core.settings import TrainingSettings
from visionadapt.data.order import order_of
from visionadapt.errors import DivergenceError, UsageError
from visionadapt.frozen.features import Features
from visionadapt.frozen.memory import SMALLER
from visionadapt.metrics.paired import difference
from visionadapt.model.classifier import load_trained_tensors, trained_tensors
from visionadapt.system import distributed, noise
from visionadapt.tasks import Validation
from visionadapt.training.averaging import WeightAverage
from visionadapt.training.configured import configured_task, task_of_the_head
from visionadapt.training.early_stopping import cannot_catch_up, no_longer_falls
from visionadapt.training.epochs import Best, Epoch, TrainingState
from visionadapt.training.head_rows import HeadRows
from visionadapt.training.mixing import Mixer, mixer_for
from visionadapt.training.optimizer import load_optimizer_tensors, optimizer_tensors, parameter_groups, schedule
from visionadapt.training.solved_head import SolvedHead, solve_head

_LATEST = 0.15
"""Share of the epochs whose mean score is compared with that of the solved head."""
_STEPS_BETWEEN_CHECKS = 64
"""Steps after which the losses are read from the device: a GPU would wait for each time that this is done."""


class Trainer:
    """The model, its optimiser, and the progress of one training run."""

    def __init__(
        self,
        train: Features,
        val: Features,
        settings: TrainingSettings,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.progress = progress or (lambda done, total: None)
        self.train, self.val, self.settings = train, val, settings
        self.pipeline = train.pipeline
        self.model = model = self.pipeline.model
        self.plan = plan = self.pipeline.plan
        self.task = configured_task(model, train.manifest, settings)
        model.head.dropout.p = settings.dropout
        model.backbone.checkpointing = settings.checkpointing
        if settings.checkpointing and not getattr(model.adapter, "checkpointable", True):
            raise UsageError("--checkpointing cannot go with a side network, which keeps nothing of the blocks anyway")
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        fused = torch.device(plan.device).type == "cuda"
        self.optimizer = torch.optim.AdamW(parameter_groups(model, settings, len(train)), fused=fused or None)
        self.mixer = mixer_for(model.backbone, settings, plan)
        self.average = WeightAverage(self.parameters, settings.ema_decay) if settings.ema_decay else None
        self.scaler = torch.amp.GradScaler(torch.device(plan.device).type, enabled=plan.precision == "float16")
        self.done = 0
        self.best = Best()
        self.scores: list[float] = []
        self.losses: list[float] = []
        self.solved: SolvedHead | None = None
        self.right = torch.empty(0, dtype=torch.bool)
        self.solved_metrics: dict[str, float] = {}
        self.probe_accuracy: float | None = None
        self.hopeless = False

    def finished(self) -> bool:
        """Return whether the last epoch is done, or the rest would not change the result."""
        waited = self.settings.patience and self.done - self.best.epoch >= self.settings.patience
        return self.done >= self.settings.epochs or bool(waited) or self.hopeless or self._flat()

    def _flat(self) -> bool:
        """Whether the validation loss of the averaged weights no longer falls, since adapters are trained too.

        While the solved head is better, they may need all epochs to catch up.
        """
        behind = self.best.solved is not None and not self.best.epoch
        if not self.settings.early_stopping or self.average is None or behind:
            return False
        epochs = self.settings.epochs
        alone = sum(adapters.frozen_in(self.model.adapter, epoch, epochs) for epoch in range(self.done))
        return no_longer_falls(self.losses[alone:], epochs)

    def epoch(self) -> Epoch:
        """Train for one epoch, validate, and remember the best."""
        started = time.perf_counter()
        train_loss, rate = self.unjudged_epoch()
        with nullcontext() if self.average is None else self.average.in_place():
            found = self._judge()
        seconds = time.perf_counter() - started
        return Epoch(
            epoch=self.done,
            train_loss=train_loss,
            val_loss=found.loss,
            val_score=found.score,
            figure=self.task.figure,
            figures=found.figures,
            learning_rate=rate,
            seconds=seconds,
            images_per_second=len(self.train) / seconds,
            best_epoch=self.best.epoch,
            epochs=self.settings.epochs,
            state=self.state(),
        )

    def unjudged_epoch(self) -> tuple[float, float]:
        """Train for one epoch without validation; return the mean loss, and the largest learning rate at its end."""
        if self.model.adapter is not None:  # some methods train only the head in their first epochs
            self._switch(not adapters.frozen_in(self.model.adapter, self.done, self.settings.epochs))
        trained = (self._take_solved(), 0.0) if self.settings.solved else self._train()
        self.done += 1
        return trained

    def _judge(self) -> Validation:
        """End an epoch: validate the model's weights, and keep them if they are the best."""
        val = replace(self.val, pipeline=self.val.pipeline.for_head())
        found, right = self._validate(val, lambda features: self.model.head(features.to(self.plan.device)))
        self.model.thresholds = found.thresholds
        if self.settings.solved and self.task.has_accuracy:
            self.probe_accuracy = found.figures["val_accuracy"]
        only = (int((right & ~self.right).sum()), int((self.right & ~right).sum())) if len(self.right) else (0, 0)
        self.scores.append(found.score)
        self.losses.append(found.loss)
        latest = self.scores[-max(round(_LATEST * self.settings.epochs), 1) :]
        tolerance = self.task.tolerance(self.best.highest, len(self.val))
        if self.best.accepts(found.score, tolerance, sum(latest) / len(latest)):
            self.best = self.best.followed_by(found.score, self.done, self._weights(), only)
        accurate = len(self.right) and self.task.figure == "val_accuracy"
        if self.settings.early_stopping and accurate and not self.best.epoch:
            apart = difference(*only, len(self.right))
            left = self.done < self.settings.epochs
            self.hopeless = left and cannot_catch_up(self.done, self.settings.epochs, apart)
        return found

    def begin(self) -> None:
        """Set the head's mean and deviation of the training features, and solve the head on the same features.

        They are those of the backbone before training. With adapter layers, the solved head is the baseline to beat.
        """
        model, train = self.model, self.train
        views = train.views if self.settings.solved else 1
        sums = torch.zeros(2, model.backbone.num_features, dtype=torch.float64)
        rows = HeadRows(train.manifest, train.labels, model.backbone.num_features, views)
        for view in range(views):
            for start, features in train.shared_pooled(view):
                rows.add(features, start, view)
                if view == 0:
                    sums += torch.stack([features.double().sum(0), features.double().square().sum(0)])
        mean, square = distributed.sum_of(sums) / len(train)
        model.head.set_statistics(mean.float(), (square - mean.square()).clamp_min(0).sqrt().float())
        self.solved = self._solve(rows)
        if not self.settings.solved and self.solved is not None:
            self._keep_solved(self.solved)

    def _keep_solved(self, solved: SolvedHead) -> None:
        """Measure the solved head; with adapter layers, no epoch may be worse."""
        found, self.right = self._validate(self.val, solved.logits)
        self.probe_accuracy = found.figures.get("val_accuracy")
        if self.model.adapter is None:
            return
        own, thresholds = _copies(self.model.head.state_dict()), self.model.thresholds
        self.model.thresholds = found.thresholds
        self.model.head.set_linear(solved.mean, solved.weight, solved.bias)
        self.best = Best(weights=self._weights(), solved=found.score)
        self.solved_metrics = {"epoch": 0, "val_loss": found.loss, **found.figures}
        self.model.head.load_state_dict(own)
        self.model.thresholds = thresholds

    def _solve(self, rows: HeadRows) -> SolvedHead | None:
        """Solve the head on rows that all processes collected; None if they are not finite, so that no head can be."""
        features = rows.features()
        if not features.isfinite().all():
            return None
        task = task_of_the_head(self.model, self.train.manifest, self.settings)
        data = replace(rows.labelled(features, task), own=self.model.backbone.own_features)
        device = self.plan.device if self.plan.device.startswith("cuda") else "cpu"  # MPS has no float64
        return distributed.from_first(lambda: solve_head(data.to(device)).cpu())

    def _take_solved(self) -> float:
        """Set the head's weights to the solved ones; return their training loss."""
        if self.solved is None:
            raise DivergenceError("the features of the backbone are not finite; try --precision float32")
        self.model.head.set_linear(self.solved.mean, self.solved.weight, self.solved.bias)
        self.progress(1, 1)
        return self.solved.loss

    def state(self) -> TrainingState:
        """Return a copy of everything that the next epoch depends on."""
        tensors = {
            **{f"weights/{key}": tensor for key, tensor in self._weights().items()},
            **{f"best/{key}": tensor for key, tensor in self.best.weights.items()},
            **({"solved/right": self.right} if len(self.right) else {}),
            **{f"optimizer/{k}": tensor for k, tensor in optimizer_tensors(self.optimizer, self.parameters).items()},
        }
        if self.average is not None:
            tensors |= {f"average/{key}": tensor for key, tensor in _copies(self.average.tensors).items()}
        facts = {
            "epoch": self.done,
            "best_epoch": self.best.epoch,
            "highest_score": self.best.highest,
            "scores": list(self.scores),
            "losses": list(self.losses),
            "loss_scale": self.scaler.state_dict(),
            "probe_accuracy": self.probe_accuracy,
            "solved": self.best.solved,
            "only": self.best.only,
            "solved_metrics": self.solved_metrics,
            "hopeless": self.hopeless,
            "flat": self._flat(),
            "averaged_steps": 0 if self.average is None else self.average.steps,
        }
        return TrainingState(tensors, facts)

    def restore(self, state: TrainingState) -> None:
        """Resume from `state`."""
        load_trained_tensors(self.model, state.below("weights/"))
        load_optimizer_tensors(self.optimizer, self.parameters, state.below("optimizer/"))
        facts = state.facts
        if self.average is not None:
            self.average.load(state.below("average/"), facts["averaged_steps"])
        self.done = facts["epoch"]
        self.probe_accuracy = facts.get("probe_accuracy")
        self.hopeless = bool(facts.get("hopeless", False)) and self.settings.early_stopping
        self.scaler.load_state_dict(facts["loss_scale"])
        self.right = state.tensors.get("solved/right", self.right)
        self.scores, self.losses = list(facts.get("scores", [])), list(facts.get("losses", []))
        solved, only = facts.get("solved"), facts.get("only", (0, 0))
        self.solved_metrics = facts.get("solved_metrics", {})
        self.best = Best(facts["highest_score"], facts["best_epoch"], state.below("best/"), solved, tuple(only))

    def take_best(self) -> None:
        """Load the weights of the best epoch and switch the model to eval mode."""
        self._take(self.best.weights)

    def take_last(self) -> None:
        """Take the last epoch whatever the validation images say; before the first one, the solved head."""
        with nullcontext() if self.average is None else self.average.in_place():
            last = self._weights()
        self._take(last if self.done else self.best.weights)

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        if self.model.adapter is not None:
            self._switch(True)
        load_trained_tensors(self.model, weights)
        self.model.drop_unused_features()
        self.model.eval()

    def _switch(self, on: bool) -> None:
        adapters.switch(self.model.backbone, *(adapters.names(self.model.backbone) if on else ()))

    def _train(self) -> tuple[float, float]:
        """Train for one pass; return the mean loss over the rows, and the largest learning rate of the last step."""
        self.model.train()
        self.pipeline = self.pipeline.for_head()
        balanced = self.train.labels if self.settings.sampling == "balanced" else None
        order = order_of(len(self.train), self.settings.seed, self.done, balanced)
        group = self.settings.batch_size * self.settings.accumulate
        groups = [order[start : start + group] for start in range(0, len(order), group)]
        steps = len(groups) * self.settings.epochs
        total, factor, losses = 0.0, 0.0, list[Tensor]()
        device = torch.device(self.plan.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for number, rows in enumerate(groups):
                factor = schedule(self.done * len(groups) + number, steps, self.settings.warmup)
                losses.append(self._step(rows, factor))
                if len(losses) == _STEPS_BETWEEN_CHECKS or number + 1 == len(groups):
                    total += self._checked(losses, groups[number + 1 - len(losses) : number + 1])
                    losses = []
                self.progress(number + 1, len(groups))
        peak = max(group["peak"] for group in self.optimizer.param_groups)
        return total / len(order), peak * factor

    def _checked(self, losses: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> float:
        """Return the sum of the losses of some steps; raise DivergenceError at the first that is not finite."""
        values: list[float] = torch.stack(list(losses)).tolist()
        for value, rows in zip(values, groups, strict=True):
            if not math.isfinite(value):
                raise DivergenceError(self._diverged(value, rows))
        return sum(values)

    def _step(self, rows: Sequence[int], factor: float) -> Tensor:
        """Accumulate the gradients of one group of rows, take one optimiser step; return the sum of their losses.

        Nothing is read from the device, so that it need not wait for the next step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        fewer = f"{SMALLER}, or attach adapters to fewer blocks"
        accumulate = partial(self._accumulate, rows)
        total = self.pipeline.frozen.portions["after"].attempt(
            self.settings.batch_size, accumulate, self.plan.device, fewer
        )
        (total,) = distributed.sum_gradients(list(self.parameters.values()), total)
        self._leave_to_the_solved_head()
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return total

    def _leave_to_the_solved_head(self) -> None:
        """Learn nothing from the features of earlier stages: in steps, they make the head surer, not more accurate."""
        gradient = self.model.head.linear.weight.grad
        if gradient is not None:
            gradient[:, self.model.backbone.own_features :] = 0

    def _accumulate(self, rows: Sequence[int], portion: int) -> Tensor:
        """Set the gradients of the mean loss of a group of rows, `portion` at once; return the sum of their losses."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.plan.device)
        for first in range(0, len(rows), self.settings.batch_size):
            batch = rows[first : first + self.settings.batch_size]
            part = distributed.part_of(batch)
            for start in range(part.start, part.stop, portion):
                total += self._backward(batch, range(start, min(start + portion, part.stop)), len(rows))
        return total

    def _backward(self, rows: Sequence[int], part: range, count: int) -> Tensor:
        """Add the gradient of loss sum / `count` for a part of a batch; return the part's loss sum."""
        own = [rows[place] for place in part]
        noise.seed(stable_hash(self.settings.seed, "step", self.done, rows[0]), torch.device(self.plan.device))
        with noise.part(part.start, part.stop, len(rows)):
            if self.mixer is None:
                logits = self.model.head(self.pipeline.suffix(self._read(own)))
                loss = self.task.loss_sum(logits, self._labels(own))
            else:
                loss = self._mixed_loss(self.mixer, rows, part)
            self.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _mixed_loss(self, mixer: Mixer, rows: Sequence[int], part: range) -> Tensor:
        """Return the summed loss of a part of a batch in which each image is mixed with that of the opposite place."""
        mix = mixer.draw(stable_hash(self.settings.seed, "mix", self.done, rows[0]))
        own, partners = [rows[place] for place in part], [rows[-1 - place] for place in part]
        both = list(dict.fromkeys([*own, *partners]))  # each is read once
        places = {row: place for place, row in enumerate(both)}

        def mixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
            picked = ({name: tensor[[places[row] for row in some]] for name, tensor in state.items()} for some in two)
            return mix.apply(next(picked), next(picked), mixer.grid)

        two = (own, partners)
        logits = self.model.head(self.pipeline.suffix(self._read(both), mixed))
        own_loss, other_loss = (self.task.loss_sum(logits, self._labels(some)) for some in two)
        return mix.share * own_loss + (1 - mix.share) * other_loss

    def _read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return self.train.batch(rows, [self._view(row) for row in rows])

    def _labels(self, rows: Sequence[int]) -> Tensor:
        return self.train.labels[rows].to(self.plan.device, non_blocking=True)

    def _view(self, row: int) -> int:
        """Return the view of a row for this epoch: all views in turn, starting at one chosen by the row's name."""
        if self.train.views == 1:  # skip hashing each row's name
            return 0
        start = stable_hash(self.settings.seed, "view", self.train.manifest.key(row))
        return (start + self.done) % self.train.views

    def _weights(self) -> dict[str, Tensor]:
        return _copies(trained_tensors(self.model))

    def _validate(self, val: Features, head: Callable[[Tensor], Tensor]) -> tuple[Validation, Tensor]:
        """Return the metrics of a head on features of the validation split, and which rows it classifies correctly.

        They are the same in every process; bool [N], or [0] for a task without an accuracy.
        """
        tallies: dict[int, tuple[Tensor, Tensor]] = {}
        for start, features in val.shared_pooled():
            logits = head(features).detach().cpu()
            labels = val.labels[start : start + len(logits)]
            right = logits.argmax(1) == labels if self.task.has_accuracy else torch.empty(0, dtype=torch.bool)
            tallies[start] = (self.task.tally(logits, labels), right)
        found = {start: tally for part in distributed.gathered(tallies) for start, tally in part.items()}
        metrics, rights = (torch.cat(parts) for parts in zip(*(found[start] for start in sorted(found)), strict=True))
        return self.task.validation(metrics), rights

    def _diverged(self, value: float, rows: Sequence[int]) -> str:
        files = ", ".join(self.train.manifest.key(row) for row in rows)
        return (
            f"the loss became {value} in epoch {self.done + 1}; lower --learning-rate, or try --precision float32. "
            f"The batch: {files}"
        )


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
