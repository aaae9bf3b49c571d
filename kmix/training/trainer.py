"""MixTrainer: mix inside the training step, on the accelerator, with plain `fit`."""

import keras

from kmix import _checks
from kmix.layers.step import run
from kmix.targets import target as kinds
from kmix.training import manifold, placement
from kmix.training.compiled import Compiled
from kmix.training.state import HeldWeights, State
from kmix.training.step_mixer import StepMixer

tree = keras.tree


@keras.saving.register_keras_serializable(package="kmix")
class MixTrainer(Compiled):
    """Trains a model on mixed batches, and otherwise behaves like that model.

    Each training step draws one plan and mixes the labels and sample weights with it. It mixes the inputs
    (`mix=`), or mixes in the mixing layers inside the model, or mixes after one of the layers named in
    `at`, drawn for each step (Manifold Mixup). `evaluate`, `predict` and `export` use the bare model. Its
    weights are trained in place.

    Args:
        model: A Keras model. Mixing layers inside it (`MixUp`, `EmbeddingMixup`) all mix with the plan of the step.
        mix: The layer that mixes the inputs, any mixing layer of kmix. For a model without mixing layers.
        at: Names of layers after which to mix instead, for a functional or Sequential model: `"input"` for
            the inputs, `"backbone/conv2"` for a layer of a nested model. `mix` must then be a `MixUp` or an
            `EmbeddingMixup`.
        num_classes: Number of classes of integer labels, or a structure of numbers that matches the labels. Defaults
            to the value of the mixing layer, then to the number of output columns, if the loss shows that they are
            classes.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`. Defaults to the value of the mixing layer.
        target: What `y` is, see `MixUp`. Defaults to the value of the mixing layer.
        interpolate: `"labels"` compares predictions with mixed labels. `"loss"` mixes the losses of the two labels,
            sample by sample, `lam * loss(y_i, p) + (1 - lam) * loss(y_j, p)`: for any loss that gives one value a
            sample, also of class ids. Metrics then see the label with the larger share.
        pairing: `"batch"` draws partners from the whole batch; `"label"` prefers partners with similar labels, see
            `MixUp`; `"shard"` draws from the part of the batch on the same device under `keras.distribution`, so that
            mixing moves nothing between devices. Defaults to the value of the mixing layer.
        bandwidth, pairing_by: For `pairing="label"`, see `MixUp`. Default to the values of the mixing layer.
        keep_clean: Whether to train on the clean samples beside the mixed ones, see `MixUp`: on twice the batch.
            Defaults to the value of the mixing layer.
        seed: Integer in `[0, 2**32)`. Defaults to the seed of the mixing layer, whose `plan(step, n)` then
            shows what a training step did.
        **kwargs: The arguments that kinds of targets add, see `MixUp`, by default those of the mixing layer; and
            `name`, as for every Keras model.

    Attributes:
        model: The bare model, for use after training.
        step: Number of the next training step: a weight, initially 0, saved with the others. To read it as a
            number, write `int(keras.ops.convert_to_numpy(trainer.step))`.
        alpha: Alpha of the mixing layers: a weight in training, so that a compiled step sees it change.

    Raises:
        ValueError: if nothing mixes, or more than one of the three ways is used; if `at` does not name layers; if
            the mixing layers of a model disagree, follow each other, or cannot be used inside a model; at compile, if
            a loss or metric accepts only class ids; in `fit`, if labels are missing, if it is not clear what they
            are, or if the model does not call its mixing layers.
        TypeError: if `model` is not a Keras model, or overrides part of the training loop; if `mix` is not a mixing
            layer.

    Warns:
        UserWarning: if the outputs also depend on tensors that bypass a layer of `at`, or all mixing layers of the
            model: these tensors are not mixed, but the labels are.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412;
        V. Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
        https://arxiv.org/abs/1806.05236

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    >>> trainer = kmix.MixTrainer(model, mix=kmix.CutMix(1.0))
    >>> trainer.compile("adam", kmix.losses.SoftLabelCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> x, y = np.ones((6, 8, 8, 3), "float32"), np.array([0, 1, 2, 3, 0, 1])
    >>> history = trainer.fit(x, y, batch_size=3, verbose=0)
    >>> int(trainer.step)
    2
    """

    def __init__(
        self,
        model,
        mix=None,
        *,
        at=None,
        num_classes=None,
        labels=None,
        target=None,
        interpolate="labels",
        pairing=None,
        bandwidth=None,
        pairing_by=None,
        keep_clean=None,
        seed=None,
        **kwargs,
    ):
        own = {name: kwargs.pop(name) for name in kinds.arguments() if name in kwargs}
        super().__init__(**kwargs)
        partners = {"pairing": pairing, "bandwidth": bandwidth, "pairing_by": pairing_by, "keep_clean": keep_clean}
        self.seed = None if seed is None else _checks.seed(seed)
        self.at = None if at is None else _checks.names(at, "at")
        if isinstance(model, MixTrainer):
            _checks.fail("A MixTrainer trains a plain model.", "a MixTrainer", "Wrap its `.model`.")
        placed = placement.placed_layers(model)
        placement.check_ways(model, mix, self.at, placed)
        self.model, self.mix = model, mix
        mixing_layers = placed if mix is None else [mix]
        self.pairing, self.bandwidth, self.pairing_by, self.keep_clean = pairing, bandwidth, pairing_by, keep_clean
        inputs = mix is not None and not at
        self._mixer = StepMixer(
            model, mixing_layers, inputs, self.at, num_classes, labels, target, interpolate, partners, self.seed, own
        )
        self.num_classes, self.labels, self.target = self._mixer.form
        self.interpolate = interpolate
        # As a function, so that Keras does not track the layers twice.
        graph = manifold.with_places(model, self.at) if self.at else placement.check_sequence(model, placed)
        self._network = None if graph is None else lambda *args, **kwargs: graph(*args, **kwargs)
        self._mixers = tuple(placed if mix is None else placement.leaves(mix))
        self._state = State(self, self._mixers, one_alpha=mix is None)
        self._held = HeldWeights()
        if model.built and hasattr(model, "operations"):
            # By its method, so that TensorFlow's converters know the inputs, too.
            self.build(model.input_shape)
        self.built = model.built

    @property
    def step(self):
        """Number of the next training step: a weight."""
        return self._state.step

    def refresh(self):
        """Bring the weights up to date: on JAX, `fit` holds them while it runs."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def __setattr__(self, name, value):
        # TensorFlow reads an attribute before it sets it, but alphas that differ cannot be read.
        if name == "alpha":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def alpha(self):
        """Alpha of the mixing layers: a float, or the schedule that they were given.

        Setting it changes all of them, and takes effect with the next training step.
        """
        # A mixer without alpha says so.
        alphas = {layer.name: layer.alpha for layer in self._mixers or (self.mix,)}
        values = list(alphas.values())
        if any(value != values[0] for value in values):
            _checks.fail(
                "The mixing layers have different alphas.",
                f"{alphas}",
                "Read the alpha of a layer: `choice.layers[0].alpha`.",
            )
        return values[0]

    @alpha.setter
    def alpha(self, value):
        self.check_alpha(value)
        for layer in self._mixers:
            layer.alpha = value

    def check_alpha(self, value):
        """Raise unless alpha of all mixing layers can be set to `value`."""
        for layer in self._mixers or (self.mix,):
            layer.check_alpha(value)

    def plan(self, step, batch_size, spatial_shape=None, replica=0, *, labels=None):
        """The plan of one training step as NumPy arrays: what its batch is, or was, mixed with.

        Args:
            step: Number of the training step, an int >= 0.
            batch_size: Number of samples in the batch.
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. CutMix needs it.
            replica: Index of the replica under `tf.distribute`.
            labels: The labels of the batch, by which `pairing="label"` chooses partners.

        Returns:
            A `kmix.MixPlan` for the current alpha of the trainer. With `at`, its `place` is the index in `at` of the
            layer that was drawn.

        Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)])
        >>> trainer = kmix.MixTrainer(model, mix=kmix.EmbeddingMixup(2.0, seed=1), at=["input", "hidden"])
        >>> int(trainer.plan(step=0, batch_size=4).place)
        1
        """
        return self._mixer.plan(step, batch_size, spatial_shape, replica, labels)

    def _mix(self, data):
        mixed = self._mixer.mix(data, self.loss, *self._state.read())
        self._state.advance()
        return mixed

    def train_step(self, *args):
        # On JAX, the state of the trainer is an argument and a result.
        *states, data = args
        try:
            if not states:
                step, data = self._mix(data)
            else:
                trainable, non_trainable, *others = states[0]
                weights = self.non_trainable_variables
                with keras.StatelessScope(list(zip(weights, non_trainable, strict=True))) as scope:
                    step, data = self._mix(data)
                states = [(trainable, [scope.get_current_value(weight) for weight in weights], *others)]
            with run(step):
                return super().train_step(*states, data)
        except Exception:
            self._held.restore()
            raise

    def make_train_function(self, force=False):
        super().make_train_function(force)
        self._held = HeldWeights(self)

    def call(self, inputs, training=None):
        network = self._network if training and self._network else self.model
        return network(inputs, training=training)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """Save the weights, step, alpha and optimizer. The bare model can load the weights from this file."""
        self.refresh()
        self.model.save_weights(filepath, overwrite, **kwargs)
        self._state.save(filepath, self.optimizer)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Load a file of a trainer, or of the bare model. The latter leaves step and alpha unchanged.

        Warns:
            UserWarning: if the file changes alpha and was saved by a trainer built with another alpha.
        """
        self.model.load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        self._state.load(filepath, self.optimizer)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "model": serialize(self.model),
            "mix": None if self.mix is None else serialize(self.mix),
            "at": None if self.at is None else list(self.at),
            "num_classes": self.num_classes,
            "labels": self.labels,
            "target": serialize(self.target),
            "interpolate": self.interpolate,
            "seed": self.seed,
            **self._mixer.given_arguments,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        objects = {
            name: deserialize(config[name]) for name in ("model", "mix", "target") if config.get(name) is not None
        }
        return cls(**{**config, **objects})
