"""MixTrainer: mixing inside of the training step, on the accelerator, with plain `fit`."""

import keras
from keras import ops

from kmix import _backend, _checks, manifold, mixing
from kmix import plan as plans
from kmix.layers.base import BatchLayer, Draw, MixLayer, arrays_of, map_arrays, mix_targets
from kmix.layers.step import Step, run
from kmix.losses import SoftLabelCrossentropy
from kmix.metrics import SoftLabelAccuracy
from kmix.training.hard_labels import harden

tree = keras.tree


@keras.saving.register_keras_serializable(package="kmix")
class MixTrainer(keras.Model):
    """Trains a model on mixed batches, and is that model in everything else.

    Each training step draws one plan, mixes the labels and sample weights with it, and mixes in one of
    three places: the inputs (`mix=`), wherever mixing layers stand inside of the model, or behind one of
    the layers named in `at`, drawn anew for each step (Manifold Mixup). `evaluate`, `predict` and `export`
    are those of the bare model, whose weights are trained in place.

    Args:
        model: A Keras model. Mixing layers inside of it (`MixUp`, `EmbeddingMixup`) all mix with the plan
            of the step.
        mix: The layer that mixes the inputs, any of kmix; for a model without mixing layers.
        at: Names of layers behind which to mix instead, for a functional or Sequential model; `"input"` for
            the inputs, `"backbone/conv2"` for a layer of a nested model. `mix` is then a `MixUp` or an
            `EmbeddingMixup`.
        num_classes: Number of classes of integer labels. Defaults to that of the mixing layer, then to the
            columns of the output that the labels belong to.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`. Defaults to that of the mixing layer.
        pairing: `"batch"` draws partners from the whole batch; `"shard"` from the part that is on the same
            device under `keras.distribution`, so that mixing moves nothing between devices.
        seed: Integer in `[0, 2**32)`. Defaults to the seed of the mixing layer, whose `plan(step, n)` then
            tells what a training step did.
        **kwargs: `name`, as for every Keras model.

    Attributes:
        step: Number of the next training step: a weight, 0 at first, saved with the others.
        alpha: Alpha of the mixing layers: a weight in training, so that a compiled step sees it change.

    Raises:
        ValueError: if there is nothing that mixes, or more than one of the three ways is taken; if names in
            `at` are not those of layers; if the mixing layers of a model disagree, follow each other, or
            are none that can stand in a model; at compile, if a loss or metric takes class ids alone; in
            `fit`, if labels are missing, or are integers whose number of classes nobody tells, or if a
            sub-classed model mixes nothing.
        TypeError: if `model` is no Keras model or `mix` no mixing layer.

    Warns:
        UserWarning: if some of what the outputs are computed from passes by a layer of `at`, or by all the mixing
            layers of the model: it is not mixed, but the labels are.

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
        self, model, mix=None, *, at=None, num_classes=None, labels=None, pairing="batch", seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        self.pairing = _checks.one_of(pairing, "pairing", ("batch", "shard"))
        self.seed = None if seed is None else _checks.seed(seed)
        self.at = None if at is None else _checks.names(at, "at")
        placed = _placed_layers(model)
        _check_ways(model, mix, self.at, placed)
        self.model, self.mix = model, mix
        mixing_layers = placed if mix is None else [mix]
        self.num_classes = _one_num_classes(num_classes, mixing_layers)
        self.labels = _checks.label_form(labels or _one_form(mixing_layers), self.num_classes)
        # The layer that draws the plan of a step.
        self._drawer = placed[0] if mix is None else mix
        # As a function, so that Keras does not track the layers twice.
        graph = manifold.with_places(model, self.at) if self.at else None
        self._with_places = None if graph is None else lambda *args, **kwargs: graph(*args, **kwargs)
        self._own_weights(placed if mix is None else list(_leaves(mix)))
        self._restore_weights = lambda: None
        self.built = model.built

    def _own_weights(self, layers):
        """Make the step, and alpha where it is a number, weights of the trainer."""
        self._mixers = tuple(layers)
        self._alpha_weights: dict[str, keras.Variable] = {}
        settings = {"shape": (), "trainable": False, "autocast": False, "aggregation": "only_first_replica"}
        with _backend.beside_the_plan():
            self.step = self.add_weight(dtype="int", initializer="zeros", name="step", **settings)
            for layer in dict.fromkeys(layers):
                if callable(layer.alpha):
                    continue
                # The layers of a model share one alpha, so that they cannot come to disagree.
                if self.mix is not None or not self._alpha_weights:
                    weight = self.add_weight(dtype="float32", initializer="zeros", name="alpha", **settings)
                self._alpha_weights[layer.name] = weight
                layer.share_alpha(weight, self._refresh)

    def _refresh(self):
        """Bring the weights up to date: on JAX `fit` keeps them to itself while it runs."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def __setattr__(self, name, value):
        # TensorFlow reads an attribute before it sets it, and alphas that differ cannot be read.
        if name == "alpha":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def alpha(self):
        """Alpha of the mixing layers, a float or the schedule that they were given.

        Setting it writes all of them, and takes effect with the next training step.
        """
        alphas = {layer.name: layer.alpha for layer in self._mixers}
        values = list(alphas.values())
        if any(value != values[0] for value in values):
            _checks.fail(
                "The mixing layers have different alphas.",
                f"{alphas}",
                "Read that of a layer: `choice.layers[0].alpha`.",
            )
        return values[0]

    @alpha.setter
    def alpha(self, value):
        self.check_alpha(value)
        for layer in self._mixers:
            layer.alpha = value

    def check_alpha(self, value):
        """Raise unless alpha of all mixing layers can be set to `value`."""
        for layer in self._mixers:
            layer.check_alpha(value)

    def plan(self, step, batch_size, spatial_shape=None, replica=0):
        """The plan of one training step as NumPy arrays: what its batch is, or was, mixed with.

        Args:
            step: Number of the training step, an int >= 0.
            batch_size: Number of samples in the batch.
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. Needed where CutMix mixes.
            replica: Index of the replica under `tf.distribute`.

        Returns:
            A `kmix.MixPlan` for the alpha that the trainer has now, with `place` if there is `at`: the index in
            it of the layer that was drawn.

        Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)])
        >>> trainer = kmix.MixTrainer(model, mix=kmix.EmbeddingMixup(2.0, seed=1), at=["input", "hidden"])
        >>> int(trainer.plan(step=0, batch_size=4).place)
        1
        """
        draw = Draw(_checks.integer(step, "step"), _checks.integer(replica, "replica"), self.seed, self._shards())
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        if batch_size % draw.shards:
            _checks.fail(
                "Under `keras.distribution` the batch size must be divisible by the number of devices.",
                f"batch_size={batch_size} on {draw.shards} devices",
            )
        plan = self._drawn(_backend.NUMPY, draw, batch_size, spatial_shape)
        if draw.shards > 1:
            first = ops.convert_to_numpy(ops.arange(draw.shards))[:, None] * (batch_size // draw.shards)
            plan = plan._replace(permutation=(plan.permutation + first).reshape(-1).astype("int32"))
        return plan

    def _drawn(self, xp, draw, batch_size, spatial_shape=None):
        plan = self._drawer._plan(xp, draw, batch_size, spatial_shape)
        if self.at:
            seed, even = draw.seed_of(self._drawer), [1] * len(self.at)
            plan = plan._replace(place=plans.sample_choice(seed, draw.step, even, stream=plans.PLACE, xp=xp))
        return plan

    def _shards(self):
        distribution = keras.distribution.distribution()
        # On TensorFlow it distributes nothing. Under `tf.distribute` a replica sees its own part of the batch alone.
        if self.pairing == "batch" or distribution is None or keras.backend.backend() == "tensorflow":
            return 1
        mesh = distribution.device_mesh
        return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]

    def _draw(self):
        """The draw of this step."""

        def read(weight):
            value = _backend.namespace(weight.value).asarray(weight.value)
            return value if _backend.is_symbolic(value) else _backend.values(value)

        with _backend.beside_the_plan():
            step = read(self.step)
            alphas = {
                layer: read(self._alpha_weights[layer.name])
                for layer in self._mixers
                if layer.name in self._alpha_weights
            }
        return Draw(step, _backend.replica(), self.seed, self._shards(), alphas)

    def _mixed_batch(self, data):
        """The batch of this step with mixed labels, and the plan for the model, or None with mixed inputs."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight = map_arrays(ops.convert_to_tensor, sample_weight)
        y = self._encoded(y, to_mix=True)
        draw, plan, leaves = self._draw(), None, arrays_of((y, sample_weight))
        weights = self._drawer._weights_for(y, sample_weight)
        xp = _backend.namespace(*leaves)
        if self.mix is not None and not self.at:
            x = tree.map_structure(ops.convert_to_tensor, x)
            self.mix._check_arrays(x, y, sample_weight)
            batch = self.mix._mix(xp, draw, x, y, sample_weight, weights)
        else:
            _checks.batch_shapes([_backend.static_shape(leaf) for leaf in leaves])
            drawer, step = _backend.drawing(xp, draw.step, leaves[0])
            plan = self._drawn(drawer, draw._replace(step=step), xp.size(leaves[0], 0))
            batch = x, *mix_targets(plan, y, sample_weight, weights)
        with _backend.beside_the_plan():
            self.step.assign_add(1)
        return plan, batch

    def train_step(self, *args):
        # On JAX the state of the trainer comes as an argument and goes as a result.
        *states, data = args
        try:
            if not states:
                plan, data = self._mixed_batch(data)
            else:
                trainable, non_trainable, *others = states[0]
                weights = self.non_trainable_variables
                with keras.StatelessScope(list(zip(weights, non_trainable, strict=True))) as scope:
                    plan, data = self._mixed_batch(data)
                states = [(trainable, [scope.get_current_value(weight) for weight in weights], *others)]
            with run(Step(plan, len(self.at or ()))):
                return super().train_step(*states, data)
        except Exception:
            self._restore_weights()
            raise

    def make_train_function(self, force=False):
        super().make_train_function(force)
        if keras.backend.backend() == "jax":
            # Keras takes the weights away before the first step, and loses them if that raises.
            weights = [*self.variables, *(self.optimizer.variables if self.optimizer else ())]
            held = [(weight, weight.value) for weight in weights]

            def restore():
                for weight, value in held:
                    if not value.is_deleted():
                        weight.assign(value)

            self._restore_weights = restore

    def call(self, inputs, training=None):
        network = self._with_places if training and self._with_places else self.model
        return network(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # A loss that reads class ids gets them, as from the bare model: one-hot encoded they may round differently.
        keep_ids = all(isinstance(loss, SoftLabelCrossentropy) for loss in tree.flatten(self.loss)) and all(
            self.num_classes in (None, output.shape[-1]) for output in tree.flatten(y_pred)
        )
        return super().compute_loss(x, self._encoded(y, keep_ids=keep_ids), y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, self._encoded(y), y_pred, sample_weight)

    def _encoded(self, y, to_mix=False, keep_ids=False):
        """Labels as they are mixed and compared with: class ids one-hot encoded, or for pairs and `keep_ids` checked.

        Encoded and mixed ones stay as they are.
        """
        if y is None:
            if to_mix or self.loss is not None:
                _checks.fail(
                    "Mixing mixes labels along with the inputs, and the loss compares with them.",
                    "data without labels",
                    "Write `trainer.fit(x, y)`, or a data set of (x, y).",
                )
            return None

        def encode(leaf, output):
            if leaf is None:
                return None
            leaf = ops.convert_to_tensor(leaf)
            shape, dtype = _backend.static_shape(leaf), _backend.dtype(leaf)
            if self.num_classes is None and "float" not in dtype:
                _checks.integer_labels(shape, dtype, output)
            form = self.labels if to_mix or "float" not in dtype else "dense"
            xp, num_classes = _backend.namespace(leaf), self.num_classes or (output[-1] if output else None)
            checked = mixing.check_labels(xp, leaf, num_classes, form)
            return checked if keep_ids else mixing.encode_checked(xp, checked, num_classes, form)

        shapes = _shapes_of_labels(self.model, y)
        return tree.pack_sequence_as(y, [encode(*pair) for pair in zip(tree.flatten(y), shapes, strict=True)])

    @property
    def output_names(self):
        """Names of the outputs of the model, by which losses, metrics and labels may be given."""
        return getattr(self.model, "output_names", None)

    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs):
        for leaf in tree.flatten((loss, metrics, weighted_metrics)):
            _checks.takes_soft_labels(leaf, self.labels)
        metrics, weighted_metrics = harden(self._named(metrics)), harden(self._named(weighted_metrics))
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def compile_from_config(self, config):
        # Keras skips this where `compile` is overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def _named(self, metrics):
        """Metrics with "accuracy" and "crossentropy" made what they mean for soft labels.

        Keras would decide from the shapes of the labels, and may see them before they are encoded.
        """
        shapes, by_name = _outputs(self.model)
        columns = [shape[-1] for shape in shapes] or [self.num_classes]

        def resolve(metric, column):
            if isinstance(metric, (list, tuple)):
                return [resolve(item, column) for item in metric]
            if column is None or metric not in ("accuracy", "acc", "crossentropy", "ce"):
                return metric
            if metric in ("accuracy", "acc"):
                # Mixed labels never equal a prediction of yes or no, and only kmix reads pairs.
                soft = column == 1 or self.labels == "pair"
                return SoftLabelAccuracy(metric) if soft else keras.metrics.CategoricalAccuracy(metric)
            kind = keras.metrics.BinaryCrossentropy if column == 1 else keras.metrics.CategoricalCrossentropy
            return kind(name=metric)

        if isinstance(metrics, dict):
            return {name: resolve(value, by_name.get(name, (None,))[-1]) for name, value in metrics.items()}
        if isinstance(metrics, (list, tuple)) and len(columns) == len(metrics) > 1:
            return [resolve(value, column) for value, column in zip(metrics, columns, strict=True)]
        return resolve(metrics, columns[0] if len(columns) == 1 else None)

    def export(self, *args, **kwargs):
        """Export the bare model, see `keras.Model.export`."""
        return self.model.export(*args, **kwargs)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "model": serialize(self.model),
            "mix": None if self.mix is None else serialize(self.mix),
            "at": None if self.at is None else list(self.at),
            "num_classes": self.num_classes,
            "labels": self.labels,
            "pairing": self.pairing,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        mix = None if config["mix"] is None else deserialize(config["mix"])
        return cls(**{**config, "model": deserialize(config["model"]), "mix": mix})


def _leaves(layer):
    """The layers that draw with an alpha: those of a `RandomChoice`, or the layer itself."""
    if isinstance(layer, MixLayer):
        yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _leaves(inner)


def _placed_layers(model):
    """The mixing layers inside of a model, in the order of its layers, each once."""
    found = {}
    for layer in getattr(model, "layers", ()):
        inner = [layer] if isinstance(layer, BatchLayer) else _placed_layers(layer)
        found.update(dict.fromkeys(inner))
    return list(found)


def _check_ways(model, mix, at, placed):
    """Raise unless exactly one of the three ways to mix is taken, with layers that can."""
    if not isinstance(model, keras.Model):
        _checks.fail("`model` must be a Keras model.", f"a {type(model).__name__}", error=TypeError)
    if isinstance(model, MixTrainer):
        _checks.fail("A MixTrainer trains a plain model.", "a MixTrainer", "Wrap its `.model`.")
    if mix is not None and not isinstance(mix, BatchLayer):
        _checks.fail("`mix` must be a mixing layer of kmix.", f"a {type(mix).__name__}", error=TypeError)
    names = ", ".join(layer.name for layer in placed)
    if mix is None and not placed:
        _checks.fail(
            "A MixTrainer needs something that mixes.",
            "no `mix` and a model without mixing layers",
            "Write `MixTrainer(model, mix=kmix.MixUp(0.2))`, or place `kmix.EmbeddingMixup(0.2)` in the model.",
        )
    if placed and (mix is not None or at is not None):
        given = "`at`" if mix is None else "`mix`"
        _checks.fail(
            "Mix in one way: with `mix=`, or with the mixing layers inside of the model.",
            f"{given} and a model with {names}",
            f"Leave out {given}, or take the layers out of the model.",
        )
    if at is not None and (len(at) == 0 or len(set(at)) < len(at)):
        _checks.fail("`at` must hold names of layers, each once.", f"at={list(at)}")
    for layer in placed if at is None or mix is None else [mix]:
        if not layer._fits_in_models:
            _checks.fail(
                "Behind layers of a model only MixUp and EmbeddingMixup mix.",
                f"{type(layer).__name__} ({layer.name})",
                f"Mix the inputs with it: `MixTrainer(model, mix=kmix.{type(layer).__name__}(...))`.",
            )
    for setting in ("alpha", "per", "rate"):
        if len({repr(layer.get_config()[setting]) for layer in placed}) > 1:
            values = ", ".join(f"{layer.name}: {getattr(layer, setting)!r}" for layer in placed)
            _checks.fail(
                f"All mixing layers of a model mix with one plan, so they must agree on `{setting}`.",
                values,
                "Give them the same settings. The seed of the first one counts.",
            )
    if placed and not _check_sequence(model, placed):
        _checks.warn_of_other_ways([layer.name for layer in placed])


def _check_sequence(model, placed):
    """Raise where one mixing layer follows another, as far as the graph of the model can tell.

    Returns whether all that the outputs are computed from has passed one.
    """
    if not placed or manifold.functional(model) is None:
        return bool(placed)
    mixed = frozenset(["mixed"])
    behind: dict[int, BatchLayer | None] = {}  # for each tensor the mixing layer that it has passed
    every: dict[int, frozenset[str]] = {}  # and whether it has on every way

    def call(layer, *args, **kwargs):
        earlier = next((behind[id(leaf)] for leaf in tree.flatten((args, kwargs)) if id(leaf) in behind), None)
        inside = [layer] if isinstance(layer, BatchLayer) else _placed_layers(layer)
        if earlier and inside:
            _checks.fail(
                "Two mixing layers in one branch would mix twice, and the labels only once.",
                f"{inside[0].name} behind {earlier.name}",
                "Take one of them out. To mix at one of several places, drawn anew for each step, write "
                '`MixTrainer(model, mix=kmix.EmbeddingMixup(2.0), at=["layer1", "layer2"])`.',
            )
        met = _check_sequence(layer, inside) if isinstance(layer, keras.Model) else bool(inside)
        outputs = layer(*args, **kwargs)
        for leaf in tree.flatten(outputs):
            every[id(leaf)] = mixed if met else manifold.passed_by_all(every, manifold.inputs_of(args, kwargs), mixed)
            if inside or earlier:
                behind[id(leaf)] = inside[0] if inside else earlier
        return outputs

    return bool(manifold.passed_by_all(every, manifold.walk(model, call).outputs, mixed))


def _one_num_classes(num_classes, layers):
    """The number of classes that the trainer or its layers were given, None where they were not."""
    given = {layer.num_classes for layer in layers}
    if num_classes is not None:
        given.add(_checks.integer(num_classes, "num_classes", 1))
    given.discard(None)
    if len(given) > 1:
        _checks.fail("The trainer and its mixing layers must agree on `num_classes`.", f"{sorted(given)}")
    return given.pop() if given else None


def _one_form(layers):
    """The form of labels that the mixing layers agree on."""
    forms = {layer.labels for layer in layers}
    if len(forms) > 1:
        _checks.fail("The mixing layers of a model must agree on `labels`.", f"{sorted(forms)}")
    return forms.pop()


def _outputs(model):
    """Shapes of the outputs of a model, in order and by name; nothing where they are not known before a call."""
    outputs = getattr(model, "outputs", None) or []
    by_name = {}
    if outputs and not isinstance(model, keras.Sequential):
        by_name = dict(zip(model.output_names, outputs, strict=True))
        if isinstance(model.output, dict):
            by_name.update(model.output)
    return [output.shape for output in outputs], {name: output.shape for name, output in by_name.items()}


def _shapes_of_labels(model, y):
    """For each array of `y` the shape of the output that it is the label of, None where nobody knows."""
    shapes, by_name = _outputs(model)
    if isinstance(y, dict):
        return [by_name.get(path[0]) for path, _ in tree.flatten_with_path(y)]
    count = len(tree.flatten(y))
    return shapes if count == len(shapes) else [None] * count
