"""How a training step mixes: the plan, the labels, and the inputs if they are mixed before the model."""

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.batch import LABELS, Batch, Settings, Values
from kmix.layers import partners
from kmix.layers.step import REPLICAS, Step, StepKey
from kmix.plan import MixPlan, sample_choice, streams
from kmix.targets import target as kinds
from kmix.targets.assign import check_target
from kmix.targets.labels import check_form
from kmix.training import interpolated
from kmix.training.agreed import agreed, agreed_arguments
from kmix.training.outputs import LabelReader, Outputs
from kmix.training.state import shards

tree = keras.tree


OPTIONS = ("batch", "label", "shard")


class StepMixer:
    """Mixes the batches of training steps.

    Args:
        model: The bare model. Its outputs show what the labels are.
        layers: The layer that mixes the inputs or at the places, or the mixing layers of the model. The first draws.
        inputs: Whether the first layer mixes the inputs.
        at: Names of the places of Manifold Mixup, or None.
        num_classes, labels, target, interpolate, seed: The arguments of the trainer.
        given: Those that replace settings of the layers: `pairing`, `bandwidth`, `pairing_by`, `keep_clean`. None for
            one that does not.
        arguments: Those that kinds of targets add.
    """

    def __init__(self, model, layers, inputs, at, num_classes, labels, target, interpolate, given, seed, arguments):
        self.interpolate = _checks.one_of(interpolate, "interpolate", ("labels", "loss"))
        self._several = layers[0].inputs.images_shown > 2
        self.planner, self._mixes_inputs = layers[0], inputs
        self.at, self.seed = at, seed
        pairing = {name: given[name] for name in partners.PAIRING}
        given = {**given, **partners.check_pairing(**pairing, options=OPTIONS, optional=True)}
        keep_clean = given["keep_clean"]
        self._keeps_clean = layers[0].keep_clean if keep_clean is None else _checks.boolean(keep_clean, "keep_clean")
        self._pairing = {name: given[name] for name in partners.PAIRING if given[name] is not None}
        self._model, self._outputs = (model,), Outputs(model)
        self.num_classes = agreed("num_classes", num_classes, layers)
        self.labels = check_form(agreed("labels", labels, layers), self.num_classes)
        self.target = agreed("target", check_target(target), layers)
        self.given_arguments = {**given, **arguments}
        self.arguments = agreed_arguments(kinds.check_arguments(arguments), layers)
        self._class_weight = agreed("class_weight", None, layers)
        self.form = self.num_classes, self.labels, self.target
        self._check_interpolation()

    def _check_interpolation(self):
        refused = {
            'labels="pair"': self.labels == "pair",
            f"a {type(self.planner).__name__} of several partners": self._several,
            "`keep_clean=True`": self._keeps_clean,
        }
        for received, holds in refused.items():
            if self.interpolate == "loss" and holds:
                _checks.fail(
                    '`interpolate="loss"` compares the prediction of each mixed sample with the labels of two.',
                    received,
                    'Leave it out, or write `interpolate="labels"`.',
                )

    def reader(self, loss):
        """The `LabelReader` for a compiled loss."""
        if not self._outputs.shapes:
            # The model may have been built since.
            self._outputs = Outputs(self._model[0])
        return LabelReader(self._outputs, loss, self.target, self.num_classes, self.labels)

    def plan(self, step, batch_size, spatial_shape=None, replica=0, labels=None):
        """The plan of one step as NumPy arrays, see `MixTrainer.plan`."""
        key = self._key(_checks.integer(step, "step"), _checks.integer(replica, "replica", 0, REPLICAS))
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        key = key._replace(targets=partners.labels_for_plan(labels, batch_size))
        if batch_size % key.shards:
            _checks.fail(
                "Under `keras.distribution` the batch size must be divisible by the number of devices.",
                f"batch_size={batch_size} on {key.shards} devices",
            )
        plan = self._sample_plan(_backend.NUMPY, key, batch_size, spatial_shape)
        return plan._replace(permutation=_backend.NUMPY.rows(plan.permutation).astype("int32"))

    def _key(self, step, replica, alphas=None):
        return StepKey(step, replica, self.seed, shards(self._pairing.get("pairing")), alphas or {}, self._pairing)

    def _sample_plan(self, xp, key, batch_size, spatial_shape=None):
        plan = self.planner.sample_plan(xp, key, batch_size, spatial_shape)
        if not self.at:
            return plan
        seed, even = key.seed_of(self.planner), [1] * len(self.at)
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
        with _backend.fusing(self.planner.fuse):
            return self._mix(data, loss, step, alphas)

    def _mix(self, data, loss, step, alphas):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        require_labels(y)
        if self.interpolate == "loss":
            return self._mix_for_losses(x, y, sample_weight, step, alphas)
        y, classes = self.reader(loss).read(y)
        classes = tree.pack_sequence_as(y, classes)
        settings = Settings(self.target, classes, self.labels, self._class_weight, arguments=self.arguments)
        plan, batch = self._mixed(x, y, sample_weight, settings, step, alphas)
        return Step(plan, len(self.at or ()), several=self._several), batch

    def _mix_for_losses(self, x, y, sample_weight, step, alphas):
        """Mix all but the labels, which the losses compare one by one."""
        first = ops.convert_to_tensor(tree.flatten(y)[0])
        xp = _backend.namespace(first)
        sample_weight = interpolated.weigh(xp, y, self.num_classes, sample_weight, self._class_weight)
        # A second target shows the plan, also that of a choice.
        target = {"y": interpolated.unmixed(self.target), "plan": interpolated.shares_and_partners}
        weights = None if sample_weight is None else {"y": sample_weight}
        settings = Settings(target, arguments=self.arguments)
        plan, (x, mixed, _) = self._mixed(x, {"y": y, "plan": first}, weights, settings, step, alphas)
        label_plan = MixPlan(*mixed["plan"])
        return Step(plan, len(self.at or ()), label_plan), (x, mixed["y"], sample_weight)

    def _mixed(self, x, y, sample_weight, settings, step, alphas):
        inputs = self.planner.inputs if self._mixes_inputs else None
        batch = Batch(Values(() if inputs is None else x, {LABELS: y}, sample_weight), settings, inputs)
        key = self._key(step, _backend.replica(), alphas)
        xp = _backend.namespace(*map(ops.convert_to_tensor, batch.values.arrays()[:1]))
        values = batch.check(xp)
        self.planner.check_partners(xp, batch.values.targets, self._pairing)
        values = batch.encode(xp, values)
        if inputs is not None:
            mixed = partners.mix(self.planner, xp, key, batch, values, self._keeps_clean)
            return None, (mixed.inputs, mixed.targets[LABELS], mixed.sample_weight)
        leaf = values.arrays()[0]
        plan_xp, step = _backend.plan_namespace(xp, key.step, leaf)
        plan = self._sample_plan(plan_xp, key._replace(step=step, targets=values.targets), xp.size(leaf, 0))
        if self._keeps_clean:
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
