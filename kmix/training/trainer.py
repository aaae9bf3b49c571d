"""MixTrainer: mix inside the training step, on the accelerator, with plain `fit`."""

import functools
import os
from collections.abc import Sequence
from typing import Any, Self, SupportsIndex

import keras

from kmix import _backend, _checks, _files
from kmix._settings import deserialize, serialize
from kmix.layers import MixLayer
from kmix.layers.training_step import run_step
from kmix.pairing import to_within
from kmix.plan import MixPlan
from kmix.training import manifold, placement
from kmix.training.state import State, check_saved, is_trainer_file
from kmix.training.training_step import StepMixer, require_labels
from kmix.typing import ScalarOrSchedule, TargetLike, Within


@keras.saving.register_keras_serializable(package="kmix")
class MixTrainer(keras.Model):
    """Trains a model on mixed batches, and otherwise behaves like that model.

    Each training step draws one plan and mixes the labels and sample weights with it. It mixes the inputs with a
    `mixer`, or in the mixing layers inside the model, or with the `mixer` after one of the layers named in `places`,
    drawn for each step (Manifold Mixup). `evaluate`, `predict` and `export` are those of the bare model. Its weights
    are trained in place.

    What the labels are, how partners are chosen, and whether clean samples are kept, say the arguments of the mixing
    layers.

    Args:
        model: A Keras model. Mixing layers inside it (`MixUp`, `EmbeddingMixup`) all mix with the plan of the step.
        mixer: The layer that mixes the inputs, any mixing layer of kmix. For a model without mixing layers.
        places: Names of layers after which to mix instead, for a functional or Sequential model: `"input"` for the
            inputs, `"backbone/conv2"` for a layer of a nested model. `mixer` must then be a `MixUp` or an
            `EmbeddingMixup`.
        mix_losses: Whether to mix the losses of the two labels in place of the labels, sample by sample,
            `lam * loss(y_i, p) + (1 - lam) * loss(y_j, p)`: for any loss that gives one value a sample, also of class
            ids and codes. Metrics then see the label with the larger share.
        num_classes: Number of classes of integer labels. Defaults
            to the value of the mixing layer, then to the number of output columns, if the loss shows that they are
            classes. Needed for a model whose outputs have no shape before it is called.
        target: What `y` is, see `MixUp`. Defaults to the value of the mixing layer.
        within: Where partners come from, see `kmix.pairing.Pairing`: `"batch"`, an int for groups of so many rows, with
            which the plan does not depend on the number of devices, or `"shard"`. Defaults to the value of the layer's
            pairing.
        seed: Integer in `[0, 2**32)`. Defaults to the seed of the mixing layer, whose `plan(step, n)` then
            shows what a training step did.
        name: Name of the trainer.

    Attributes:
        model: The bare model, for use after training.
        step: Number of the next training step: a weight, initially 0, saved with the others. Plans repeat after
            `2**32` steps. To read it as a number, write `int(keras.ops.convert_to_numpy(trainer.step))`.
        alpha: Alpha of the mixing layers: a weight in training, so that a compiled step sees it change.

    Raises:
        ValueError: if nothing mixes, or more than one of the three ways is used; if `places` does not name layers; if
            the mixing layers of a model disagree, follow each other, or cannot be used inside a model; if the model
            reads blended inputs as ids; at compile, if a loss or metric accepts only class ids; in `fit`, if labels are
            missing, if it is not clear what they are, or if the model does not call its mixing layers.
        TypeError: if `model` is not a Keras model, or overrides part of the training loop; if `mixer` is not a mixing
            layer.

    Warns:
        UserWarning: if the outputs also depend on tensors that bypass one of the `places`, or all mixing layers of the
            model: these tensors are not mixed, but the labels are.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412;
        V. Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
        https://arxiv.org/abs/1806.05236

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
        >>> trainer = kmix.MixTrainer(model, kmix.CutMix(1.0))
        >>> trainer.compile("adam", kmix.losses.SoftLabelCrossentropy(from_logits=True), metrics=["accuracy"])
        >>> x, y = np.ones((6, 8, 8, 3), "float32"), np.array([0, 1, 2, 3, 0, 1])
        >>> history = trainer.fit(x, y, batch_size=3, verbose=0)
        >>> int(keras.ops.convert_to_numpy(trainer.step))
        2
    """

    def __init__(
        self,
        model: keras.Model,
        mixer: MixLayer | None = None,
        *,
        places: Sequence[str] | None = None,
        mix_losses: bool = False,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        within: Within | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.seed: int | None = None if seed is None else _checks.seed(seed)
        self.places: tuple[str, ...] | None = None if places is None else _checks.names(places, "places")
        if isinstance(model, MixTrainer):
            _checks.fail("A MixTrainer trains a plain model.", "a MixTrainer", "Wrap its `.model`.")
        placed = manifold.placed_layers(model)
        placement.check_ways(model, mixer, self.places, placed)
        self.model, self.mixer, self.num_classes, self.target = model, mixer, num_classes, target
        self.mix_losses: bool = _checks.boolean(mix_losses, "mix_losses")
        self.within: Within | None = within if within is None else to_within(within)
        parts = [] if mixer is None else placement.parts(mixer)
        for part in parts:
            # Nobody calls it, and Keras would trace a trainer with layers to build in every `fit`.
            part.build()
        self._step_mixer = StepMixer(self, placed if mixer is None else [mixer])
        # As a function, so that Keras does not track the layers twice.
        graph = manifold.with_places(model, self.places) if self.places else manifold.check_sequence(model, placed)
        self._network = None if graph is None else lambda *args, **kwargs: graph(*args, **kwargs)
        self._mixers = tuple(placed if mixer is None else (part for part in parts if part._has_alpha))
        self._state = State(self, self._mixers, one_alpha=mixer is None)
        self._resumes = False
        if model.built and hasattr(model, "operations"):
            # By its method, so that TensorFlow's converters know the inputs, too.
            self.build(model.input_shape)
        self.built = model.built

    # As of the bare model.
    def build(self, input_shape: Any = None) -> None:
        # A sub-classed model that does not override `build` builds its layers when it is first called.
        if type(self.model).build is not keras.Model.build and not self.model.built:
            self.model.build(input_shape)
        self.built = True

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of the model, which `get_layer` finds."""
        return self.model.layers

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The inputs of the model."""
        return self.model.inputs

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """The outputs of the model."""
        return self.model.outputs

    @property
    def input(self) -> Any:
        """The inputs of the model, in their structure."""
        return self.model.input

    @property
    def output(self) -> Any:
        """The outputs of the model, in their structure."""
        return self.model.output

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs of the model."""
        return self.model.input_shape

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs of the model."""
        return self.model.output_shape

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the outputs of the model for inputs of these shapes."""
        return self.model.compute_output_shape(input_shape)

    @property
    def output_names(self) -> list[str] | None:
        """Names of the outputs of the model, possible keys of losses, metrics and labels."""
        return getattr(self.model, "output_names", None)

    def get_weights(self) -> list[Any]:
        """The weights of the bare model."""
        return self.model.get_weights()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the weights of the bare model; step and alpha stay unchanged."""
        self.model.set_weights(weights)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the bare model, see `keras.Model.export`."""
        return self.model.export(*args, **kwargs)

    # Step and alpha.

    @property
    def step(self) -> keras.Variable:
        """Number of the next training step, a weight."""
        return self._state.step

    @property
    def alpha(self) -> ScalarOrSchedule:
        """Alpha of the mixing layers, a float or the schedule that they were given.

        Setting it changes all of them, and takes effect with the next training step.
        """
        # A mixer without alpha says so.
        alphas = {layer.name: layer.alpha for layer in self._mixers or (self.mixer,)}
        values = list(alphas.values())
        if any(value != values[0] for value in values):
            _checks.fail(
                "The mixing layers have different alphas.",
                f"{alphas}",
                "Read the alpha of a layer: `choice.layers[0].alpha`.",
            )
        return values[0]

    @alpha.setter
    def alpha(self, value: ScalarOrSchedule) -> None:
        self._check_alpha(value)
        for layer in self._mixers:
            layer.alpha = value

    def _check_alpha(self, value):
        """Raise unless alpha of all mixing layers can be set to `value`."""
        for layer in self._mixers or (self.mixer,):
            layer._check_alpha(value)

    def __setattr__(self, name, value):
        # TensorFlow reads an attribute before it sets it, but alphas that differ cannot be read.
        if name == "alpha":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def refresh(self) -> None:
        """Bring the weights up to date: on JAX, `fit` holds them while it runs."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def plan(
        self,
        step: SupportsIndex,
        batch_size: SupportsIndex,
        replica: SupportsIndex = 0,
        *,
        spatial_shape: Sequence[int] | None = None,
        targets: Any = None,
    ) -> MixPlan:
        """The plan of one training step as NumPy arrays: what its batch is mixed with.

        Args:
            step: Number of the training step, an int >= 0.
            batch_size: Number of samples in the batch.
            replica: Index of the replica under `tf.distribute`.
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. CutMix and Mosaic need it.
            targets: `y` of the batch, if partners are chosen by it.

        Returns:
            A `kmix.MixPlan` for the current alpha of the trainer. With `places`, its `place` is the index in `places`
            of the layer that was drawn.

        Example:
            >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden")])
            >>> trainer = kmix.MixTrainer(model, kmix.EmbeddingMixup(2.0, seed=1), places=["input", "hidden"])
            >>> int(trainer.plan(step=0, batch_size=4).place)
            1
        """
        return self._step_mixer.plan(step, batch_size, replica, spatial_shape, targets)

    def fingerprint(self, step: SupportsIndex, batch_size: SupportsIndex) -> int:
        """A checksum of the settings and of what a training step draws, see `MixLayer.fingerprint`.

        Args:
            step: Number of the training step, an int >= 0.
            batch_size: Number of samples in the global batch, of which every process may hold a part.

        Returns:
            An int in `[0, 2**32)`. With partners `within="shard"`, it also tells numbers of devices apart.
        """
        return self._step_mixer.fingerprint(step, batch_size)

    # Training.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        self._given_loss = loss
        loss, metrics, weighted_metrics = self._step_mixer.compiled(loss, metrics, weighted_metrics)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """The arguments of `compile` as JSON can hold them."""
        config = super().get_compile_config()
        if config and self.mix_losses:
            config["loss"] = keras.saving.serialize_keras_object(self._given_loss)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras skips this if `compile` is overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def _build_optimizer(self):
        optimizer = self._state.optimizer
        if self.built and optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        _backend.check_processes()
        # A callback that loads a file now resumes a training.
        self._resumes = True
        try:
            return super().fit(*args, **kwargs)
        finally:
            self._resumes = False

    # Not as a decorator: a type checker would take the result for no method, and `trainer.fit(x, y)` for an error.
    functools.update_wrapper(fit, keras.Model.fit, assigned=("__doc__",))

    def make_train_function(self, force: bool = False) -> None:
        super().make_train_function(force)
        self._state.hold()

    def train_step(self, *args: Any) -> Any:
        # On JAX, the state of the trainer is an argument and a result.
        *states, data = args
        try:
            if states:
                trainable, non_trainable, *others = states[0]
                weights = self.non_trainable_variables
                with keras.StatelessScope(list(zip(weights, non_trainable, strict=True))) as scope:
                    step, data = self._mix(data)
                    self._state.advance()
                states = [(trainable, [scope.get_current_value(weight) for weight in weights], *others)]
            else:
                step, data = self._mix(data)
            with run_step(step):
                result = super().train_step(*states, data)
            if not states:
                # Not before: a step that raises is not counted.
                self._state.advance()
            return result
        except Exception:
            self._state.restore()
            raise

    def _mix(self, data):
        return self._step_mixer.mix(data, self.loss, *self._state.read())

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        network = self._network if training and self._network else self.model
        return network(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if self.loss is not None:
            require_labels(y)
        y = self._step_mixer.for_loss(y, y_pred, self.loss)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y, sample_weight = self._step_mixer.for_metrics(y, sample_weight, self.loss)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    # Files.

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any) -> None:
        """Save the trainer as `keras.Model.save` does, whole or not at all: a `.keras` file is moved to its place.

        A process that is killed while it saves, or a disk that is full, leaves an earlier file as it was.
        """
        path = str(filepath)
        if not path.endswith(".keras") or "://" in path or not overwrite or kwargs.get("zipped") is False:
            super().save(filepath, overwrite, **kwargs)
            return
        with _files.written_whole(path) as partial:
            super().save(partial, **kwargs)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights, step, alpha and optimizer. The bare model can load the weights from this file."""
        self.refresh()
        self._state.save(filepath, overwrite, kwargs)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load a file of a trainer, or of the bare model. The latter leaves step and alpha unchanged.

        Raises:
            ValueError: if the file was damaged; in `fit`, where training is to go on from it, if it is one of the bare
                model.

        Warns:
            UserWarning: if the file changes alpha and was saved by a trainer built with another alpha; as Keras, if the
                state of the optimizer does not fit.
        """
        settings = {"skip_mismatch": skip_mismatch, **kwargs}
        # For the state of the optimizer in the file.
        self._build_optimizer()
        if is_trainer_file(filepath):
            super().load_weights(filepath, **settings)
        else:
            self._state.load(filepath, self._resumes, settings)

    def load_own_variables(self, store: Any) -> None:
        saved = {name: store[name][()] for name in store.keys()}  # noqa: SIM118  A store of Keras has no iterator.
        alphas = [saved[name] for i in range(1, len(saved) + 1) if (name := str(i)) in saved]
        check_saved(saved.get("0"), alphas, alphas)
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        names = ("name", "model", "mixer", "places", "mix_losses", "num_classes", "target", "within", "seed")
        return {name: serialize(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{name: deserialize(value) for name, value in config.items()})
