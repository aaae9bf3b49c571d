"""How a training step mixes: the plan, the labels, and the inputs if they are mixed before the model."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.batch import Batch, Reading
from kmix.layers.base import MixLayer
from kmix.layers.training_step import TrainingStep
from kmix.losses import SoftLabelCrossentropy
from kmix.plan import MixPlan, PlanKey, sample_choice, streams
from kmix.plan.fingerprint import fingerprint
from kmix.plan.plan import REPLICAS
from kmix.targets import BatchInfo, Keep, LabelPairs, Labels
from kmix.targets.base import Function
from kmix.training import paired_loss, placement
from kmix.training.hard_label_metrics import in_training
from kmix.training.output_labels import OutputLabels, by_target, check_reads_blended_masks
from kmix.training.state import shards

tree = keras.tree


class StepMixer:
    """Mixes the batches of training steps, and prepares what is compiled for mixed labels.

    Args:
        trainer: The `MixTrainer`, with its arguments as attributes.
        layers: The layer that mixes the inputs or at the places, or the mixing layers of the model. The first draws.
    """

    def __init__(self, trainer: Any, layers: Sequence[MixLayer]) -> None:
        self.planner, self.mix_losses, self.seed = layers[0], trainer.mix_losses, trainer.seed
        self._mixes_inputs, self._places = trainer.mixer is not None and not trainer.places, trainer.places or ()
        self._within = trainer.within or self.planner._within
        for layer in placement.parts(self.planner) if trainer.within == "shard" else ():
            layer._pairing.check_shards()
        self.target = placement.agreed_target(trainer.num_classes, trainer.target, layers)
        placement.check_takes_arrays(self.planner, self.target)
        self._several = self.planner._partners > 1
        self._labels = OutputLabels(trainer.model, self.target)
        refused = {
            "`LabelPairs`": any(isinstance(each, LabelPairs) for each in tree.flatten(self.target)),
            f"a {type(self.planner).__name__} of several partners": self._several,
            "`include_clean=True`": self.planner.include_clean,
            "`nan_is_missing=True`": any(getattr(each, "nan_is_missing", False) for each in tree.flatten(self.target)),
        }
        for received, holds in refused.items():
            if self.mix_losses and holds:
                _checks.fail(
                    "`mix_losses=True` compares the prediction of each mixed sample with the labels of two.",
                    received,
                    "Leave one of them out.",
                )

    # What is compiled.

    def compiled(self, loss: Any, metrics: Any, weighted_metrics: Any) -> tuple[Any, Any, Any]:
        """The arguments of these names for `keras.Model.compile`; raises if mixed labels are not for them."""
        if self.planner.input_mixing.blends:
            for each in (loss, metrics, weighted_metrics):
                by_target(check_reads_blended_masks, each, self.target)
        if self.mix_losses:
            loss = by_target(paired_loss.paired, loss, self.target)
        else:
            self._labels.check_compiled(loss, metrics, weighted_metrics)
        return loss, in_training(metrics), in_training(weighted_metrics)

    def for_loss(self, y: Any, y_pred: Any, loss: Any) -> Any:
        """Labels as a loss compares with them."""
        if self.mix_losses:
            return y
        # Pass class ids to a loss that reads them, as the bare model does: one-hot labels may round differently.
        keep_ids = all(isinstance(each, SoftLabelCrossentropy) for each in tree.flatten(loss)) and all(
            classes in (None, output.shape[-1])
            for classes in (getattr(each, "num_classes", None) for each in tree.flatten(self.target))
            for output in tree.flatten(y_pred)
        )
        return self._labels.encode(y, loss, keep_ids)

    def for_metrics(self, y: Any, sample_weight: Any, loss: Any) -> tuple[Any, Any]:
        """Labels and sample weights as metrics get them."""
        if self.mix_losses:
            return paired_loss.larger_share(y, self.target, sample_weight)
        return self._labels.encode(y, loss), sample_weight

    # What is mixed.

    def plan(
        self,
        step: SupportsIndex,
        batch_size: SupportsIndex,
        replica: SupportsIndex = 0,
        spatial_shape: Sequence[int] | None = None,
        targets: Any = None,
    ) -> MixPlan:
        """The plan of one step as NumPy arrays, see `MixTrainer.plan`."""
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        replica = _checks.integer(replica, "replica", 0, REPLICAS)
        key = self._key(_checks.integer(step, "step"), replica, batch_size)
        if batch_size % key.shards:
            _checks.fail(
                "Under `keras.distribution` the batch size must be divisible by the number of devices.",
                f"batch_size={batch_size} on {key.shards} devices",
            )
        values = self.planner._values_at(_backend.NUMPY, key.step, None)
        plan = self.planner._plan(key, values, batch_size, spatial_shape, targets)
        return plan._replace(place=self._place(_backend.NUMPY, key))

    def fingerprint(self, step: SupportsIndex, batch_size: SupportsIndex) -> int:
        """The fingerprint of a step, see `MixTrainer.fingerprint`."""
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        key = self._key(_checks.integer(step, "step"), 0, batch_size)
        settings = [self.planner, self.target, self._places, self._within, key.seed, self.mix_losses]
        drawn = self.planner._integers(key, batch_size)
        return fingerprint([*settings, key.step, batch_size], self._place(_backend.NUMPY, key), *drawn)

    def _key(self, step, replica, rows):
        """The `PlanKey` of a step on so many rows of a replica."""
        group = self._within
        if not isinstance(group, int):
            return PlanKey(step, replica, shards(group), self.seed)
        # Counted within the groups, so that XLA sees that no group needs the rows of another.
        whole = keras.backend.backend() == "jax" and isinstance(rows, int) and rows % group == 0
        first_row = replica * rows if not isinstance(replica, int) or replica else None
        return PlanKey(step, 0, rows // group if whole else 1, self.seed, group, first_row)

    def _place(self, xp, key):
        """The place of Manifold Mixup that mixes; None without places."""
        if not self._places:
            return None
        seed, even = self.planner.seed if key.seed is None else key.seed, [1] * len(self._places)
        return sample_choice(seed, key.step, even, stream=streams.PLACE, xp=xp)

    def mix(self, data: Any, loss: Any, step: Any, alphas: dict[Any, Any]) -> tuple[TrainingStep, Any]:
        """Mix the batch of a step.

        Args:
            data: What `fit` passes to a step.
            loss: The compiled loss.
            step: Number of the step.
            alphas: Alpha by layer.

        Returns:
            The `TrainingStep` to run, and the batch. Its labels are mixed, unless the losses do it.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        require_labels(y)
        with _backend.fusing(self.planner.jit_compile):
            if self.mix_losses:
                return self._mix_for_losses(x, y, sample_weight, step, alphas)
            y, target = self._labels.read(y, loss)
            plan, batch = self._mixed(x, y, sample_weight, target, step, alphas)
        return TrainingStep(plan, len(self._places), several=self._several), batch

    def _mix_for_losses(self, x, y, sample_weight, step, alphas):
        """Mix all but the labels, which the losses compare one by one."""
        first = ops.convert_to_tensor(tree.flatten(y)[0])
        info, mixing = BatchInfo(), self.planner.input_mixing
        if self._mixes_inputs and mixing.pastes:
            form = mixing.shapes(x), mixing.spatial_shape(x), mixing.data_format, True, mixing.blends
            info = BatchInfo(*form, cut_axes=mixing.cut_axes())
        sample_weight = paired_loss.class_weighted(_backend.namespace(first), y, self.target, info, sample_weight)
        kept = by_target(lambda _, target: Keep() if isinstance(target, Labels) else target, self.target, self.target)
        # A second target shows the plan, also that of a choice.
        target = {"labels": kept, "plan": Function(paired_loss.shares_and_partners)}
        weights = None if sample_weight is None else {"labels": sample_weight}
        plan, (x, mixed, _) = self._mixed(x, {"labels": y, "plan": first}, weights, target, step, alphas)
        label_plan = MixPlan(*mixed["plan"])
        return TrainingStep(plan, len(self._places), label_plan), (x, mixed["labels"], sample_weight)

    def _mixed(self, x, y, sample_weight, target, step, alphas):
        """The plan for the model, None if the inputs are mixed here; and the mixed `(x, y, sample_weight)`."""
        planner = self.planner
        mixing = planner.input_mixing if self._mixes_inputs else None
        batch = Batch.read((x, y, sample_weight), Reading(target, input_mixing=mixing, partners=planner._partners))
        leaf = ops.convert_to_tensor((batch.leaves() or tree.flatten(x))[0])
        batch = batch._replace(xp=_backend.namespace(leaf), uniform=False).check_values()
        planner._check_targets(batch)
        batch = batch.encode()
        plan_xp, step, replica = _backend.plan_namespace(batch.xp, leaf, step, _backend.replica(leaf))
        key = self._key(step, replica, batch.xp.size(leaf, 0))
        values = planner._values_at(plan_xp, step, leaf, alphas)
        if mixing is not None:
            batch = planner._draw_and_mix(plan_xp, key, values, batch, planner.include_clean)
            return None, batch.write(planner.include_clean, key)
        plan = planner._draw(plan_xp, key, values, batch.xp.size(leaf, 0), None, batch.by_key)
        plan = plan._replace(place=self._place(plan_xp, key))
        mixed = batch.mix(plan, None, planner.include_clean, key)
        _, y, sample_weight = mixed.write(planner.include_clean, key)
        if planner.include_clean:
            plan = plan.with_clean(key)
            x = tree.map_structure(batch.xp.asarray, x)
            x = tree.map_structure(lambda leaf: key.join(batch.xp, leaf, leaf), x)
        return plan.without_own_partners(), (x, y, sample_weight)


def require_labels(y: Any) -> None:
    """Raise if there are no labels."""
    if y is None:
        _checks.fail(
            "A MixTrainer mixes labels with the inputs, and the loss compares with them.",
            "data without labels",
            "Write `trainer.fit(x, y)`, or a data set of (x, y).",
        )
