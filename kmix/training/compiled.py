"""What a trainer compiles: losses and metrics that read mixed labels, or mix themselves."""

import functools
from typing import Any

import keras

from kmix.losses import SoftLabelCrossentropy
from kmix.training import interpolated
from kmix.training.delegate import Delegate
from kmix.training.hard_labels import harden
from kmix.training.outputs import Outputs, check_takes_soft_labels
from kmix.training.step_mixer import StepMixer, require_labels

tree = keras.tree


class Compiled(Delegate):
    """The losses and metrics of a `MixTrainer`."""

    _mixer: StepMixer
    num_classes: Any
    labels: str
    target: Any
    interpolate: str

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.loss is not None:
            require_labels(y)
        if self.interpolate == "loss":
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        # Pass class ids to a loss that reads them, as the bare model does: one-hot labels may round differently.
        keep_ids = all(isinstance(loss, SoftLabelCrossentropy) for loss in tree.flatten(self.loss)) and all(
            classes in (None, output.shape[-1])
            for classes in tree.flatten(self.num_classes)
            for output in tree.flatten(y_pred)
        )
        y = None if y is None else self._mixer.reader(self.loss).encode(y, keep_ids)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self.interpolate == "loss":
            y, sample_weight = interpolated.dominant_labels(y, self.target, sample_weight)
            return super().compute_metrics(x, y, y_pred, sample_weight)
        y = None if y is None else self._mixer.reader(self.loss).encode(y)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs):
        self._given_loss = loss
        if self.interpolate == "loss":
            # Labels stay as they are, so Keras reads the names of metrics right.
            loss = interpolated.interpolated(loss, self.target)
        else:
            # Masks that are pasted keep their class ids.
            for leaf in tree.flatten((loss, metrics, weighted_metrics)) if self.target in (None, "labels") else ():
                check_takes_soft_labels(leaf, self.labels)
            name = functools.partial(Outputs(self.model).name_metrics, num_classes=self.num_classes, labels=self.labels)
            metrics, weighted_metrics = name(metrics), name(weighted_metrics)
        metrics, weighted_metrics = harden(metrics), harden(weighted_metrics)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def get_compile_config(self):
        """The arguments of `compile` as JSON can hold them."""
        config = super().get_compile_config()
        if config and self.interpolate == "loss":
            config["loss"] = keras.saving.serialize_keras_object(self._given_loss)
        return config

    def compile_from_config(self, config):
        # Keras skips this if `compile` is overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)
