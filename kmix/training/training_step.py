"""How a training step mixes: the plan, the labels, and the inputs if they are mixed before the model."""

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.batch import LABELS, Batch, Settings, Values
from kmix.layers import partners
from kmix.layers.step import REPLICAS, Step, StepKey
from kmix.losses import SoftLabelCrossentropy
from kmix.plan import MixPlan, sample_choice, streams
from kmix.targets.assign import check_target, explicit
from kmix.targets.labels import check_form
from kmix.targets.spread import check_num_classes
from kmix.training import paired_loss
from kmix.training.hard_label_metrics import in_training
from kmix.training.output_labels import OutputLabels, by_target
from kmix.training.placement import agreed
from kmix.training.state import shards

tree = keras.tree


class StepMixer:
    """Mixes the batches of training steps, and prepares what is compiled for mixed labels.

    Args:
        trainer: A `MixTrainer`, for its arguments. The outputs of its model show what the labels are.
        layers: The layer that mixes the inputs or at the places, or the mixing layers of the model. The first draws.
    """

    def __init__(self, trainer, layers):
        self.planner, self.mix_losses = layers[0], _checks.boolean(trainer.mix_losses, "mix_losses")
        self._within = _checks.one_of(trainer.within, "within", (None, "batch", "shard"))
        self._seed, self._places = trainer.seed, trainer.places or ()
        self._mixes_inputs = trainer.mixer is not None and not self._places
        self.settings = Settings(
            target=agreed("target", check_target(trainer.target), layers),
            num_classes=agreed("num_classes", check_num_classes(trainer.num_classes), layers),
            labels=agreed("labels", None, layers),
            class_weight=agreed("class_weight", None, layers),
            arguments=agreed("target_arguments", None, layers),
        )
        check_form(self.settings.labels, self.settings.num_classes)
        self._several = self.planner.inputs.images_shown > 2
        self._labels = OutputLabels(trainer.model, self.settings)
        refused = {
            'labels="pair"': self.settings.labels == "pair",
            f"a {type(self.planner).__name__} of several partners": self._several,
            "`keep_clean=True`": self.planner.keep_clean,
        }
        for received, holds in refused.items():
            if self.mix_losses and holds:
                _checks.fail(
                    "`mix_losses=True` compares the prediction of each mixed sample with the labels of two.",
                    received,
                    "Leave one of them out.",
                )
        if self._within == "shard" and getattr(self.planner, "pairing", "batch") == "label":
            _checks.fail("Partners by label come from the whole batch.", "`within='shard'`", "Leave it out.")

    # What is compiled.

    def compiled(self, loss, metrics, weighted_metrics):
        """The arguments of these names for `keras.Model.compile`; raises if mixed labels are not for them."""
        if self.mix_losses:
            loss = by_target(paired_loss.paired, loss, self.settings.target)
        else:
            self._labels.check_compiled(loss, metrics, weighted_metrics)
        return loss, in_training(metrics), in_training(weighted_metrics)

    def for_loss(self, y, y_pred, loss):
        """Labels as a loss compares with them."""
        if loss is not None:
            require_labels(y)
        if self.mix_losses:
            return y
        # Pass class ids to a loss that reads them, as the bare model does: one-hot labels may round differently.
        keep_ids = all(isinstance(each, SoftLabelCrossentropy) for each in tree.flatten(loss)) and all(
            classes in (None, output.shape[-1])
            for classes in tree.flatten(self.settings.num_classes)
            for output in tree.flatten(y_pred)
        )
        return self._labels.encode(y, loss, keep_ids)

    def for_metrics(self, y, sample_weight, loss):
        """Labels and sample weights as metrics get them."""
        if self.mix_losses:
            return paired_loss.larger_share(y, self.settings.target, sample_weight)
        return self._labels.encode(y, loss), sample_weight

    # What is mixed.

    def plan(self, step, batch_size, spatial_shape=None, replica=0, labels=None):
        """The plan of one step as NumPy arrays, see `MixTrainer.plan`."""
        key = self._key(_checks.integer(step, "step"), _checks.integer(replica, "replica", 0, REPLICAS))
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        if batch_size % key.shards:
            _checks.fail(
                "Under `keras.distribution` the batch size must be divisible by the number of devices.",
                f"batch_size={batch_size} on {key.shards} devices",
            )
        key = key._replace(targets=partners.labels_for_plan(labels, batch_size))
        plan = self._sample_plan(_backend.NUMPY, key, batch_size, spatial_shape)
        return plan._replace(permutation=_backend.NUMPY.rows(plan.permutation).astype("int32"))

    def _key(self, step, replica, alphas=None):
        return StepKey(step, replica, self._seed, shards(self._within), alphas or {})

    def _sample_plan(self, xp, key, batch_size, spatial_shape=None):
        plan = self.planner.sample_plan(xp, key, batch_size, spatial_shape)
        if not self._places:
            return plan
        seed, even = key.seed_of(self.planner), [1] * len(self._places)
        return plan._replace(place=sample_choice(seed, key.step, even, stream=streams.PLACE, xp=xp))

    def mix(self, data, loss, step, alphas):
        """Mix the batch of a step.

        Args:
            data: What `fit` passes to a step.
            loss: The compiled loss.
            step: Number of the step.
            alphas: Alpha by layer.

        Returns:
            The `Step` to run, and the batch. Its labels are mixed, unless the losses do it.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        require_labels(y)
        with _backend.fusing(self.planner.fuse):
            if self.mix_losses:
                return self._mix_for_losses(x, y, sample_weight, step, alphas)
            y, target, classes = self._labels.read(y, loss)
            settings = self.settings._replace(target=target, num_classes=classes)
            plan, batch = self._mixed(x, y, sample_weight, settings, step, alphas)
        return Step(plan, len(self._places), several=self._several), batch

    def _mix_for_losses(self, x, y, sample_weight, step, alphas):
        """Mix all but the labels, which the losses compare one by one."""
        target = self.settings.target
        if explicit(target, y) != target:
            # Their losses have been taken for those of labels.
            _checks.fail(
                "With `mix_losses=True`, the losses of what is no label must be known when they are compiled.",
                "labels that hold boxes",
                'Write `MixTrainer(..., target="bounding_boxes")`, or a structure that matches the labels.',
            )
        first = ops.convert_to_tensor(tree.flatten(y)[0])
        xp = _backend.namespace(first)
        paired_loss.check_labels(xp, y, target, self.planner.inputs.pasted(x) if self._mixes_inputs else None)
        settings = self.settings
        sample_weight = paired_loss.class_weighted(xp, y, settings.num_classes, sample_weight, settings.class_weight)
        # A second target shows the plan, also that of a choice.
        kept = by_target(lambda _, kind: "keep" if kind in (None, "labels") else kind, target, target)
        targets = {"y": kept, "plan": paired_loss.shares_and_partners}
        weights = None if sample_weight is None else {"y": sample_weight}
        settings = Settings(targets, arguments=settings.arguments)
        plan, (x, mixed, _) = self._mixed(
            x, {"y": y, "plan": first}, weights, settings, step, alphas, pairing={"pairing_by": "y"}
        )
        label_plan = MixPlan(*mixed["plan"])
        return Step(plan, len(self._places), label_plan), (x, mixed["y"], sample_weight)

    def _mixed(self, x, y, sample_weight, settings, step, alphas, pairing=None):
        inputs = self.planner.inputs if self._mixes_inputs else None
        batch = Batch(Values(() if inputs is None else x, {LABELS: y}, sample_weight), settings, inputs)
        key = self._key(step, _backend.replica(), alphas)._replace(pairing=pairing or {})
        xp = _backend.namespace(*map(ops.convert_to_tensor, batch.values.arrays()[:1]))
        values = batch.check(xp)
        self.planner.check_partners(xp, batch.values.targets, key.pairing)
        values, keep_clean = batch.encode(xp, values), self.planner.keep_clean
        if inputs is not None:
            mixed = partners.mix(self.planner, xp, key, batch, values, keep_clean)
            return None, (mixed.inputs, mixed.targets[LABELS], mixed.sample_weight)
        leaf = values.arrays()[0]
        plan_xp, step = _backend.plan_namespace(xp, key.step, leaf)
        plan = self._sample_plan(plan_xp, key._replace(step=step, targets=values.targets), xp.size(leaf, 0))
        if keep_clean:
            plan = partners.with_clean(plan)
            values = partners.both(xp, values, values, key.shards)
            x = tree.map_structure(xp.asarray, x)
            x = partners.both(xp, x, x, key.shards)
        mixed = batch.mix(xp, values, plan)
        return plan, (x, mixed.targets[LABELS], mixed.sample_weight)


def require_labels(y):
    """Raise if there are no labels."""
    if y is None:
        _checks.fail(
            "A MixTrainer mixes labels with the inputs, and the loss compares with them.",
            "data without labels",
            "Write `trainer.fit(x, y)`, or a data set of (x, y).",
        )
