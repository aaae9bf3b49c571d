"""What the mixing layers share: the forms of a batch, the step, alpha, and the config."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks, mixing
from kmix.layers.step import running
from kmix.plan import MixPlan

tree = keras.tree


class Draw(NamedTuple):
    """Which plan to draw: the step, and what a training step knows besides.

    Attributes:
        step: Number of the batch, an int or an integer scalar tensor.
        replica: Index of the replica under data parallelism.
        seed: Seed in place of the layer's own.
        shards: Number of equal parts of the batch within which partners stay.
        alphas: The alpha of layers in this step, where it is not the layer itself that holds it.
    """

    step: Any
    replica: Any = 0
    seed: int | None = None
    shards: int = 1
    alphas: Mapping[keras.layers.Layer, Any] = {}

    def seed_of(self, layer):
        return layer.seed if self.seed is None else self.seed


def split(batch):
    """Return `(x, y, sample_weight)` of a batch, and a function that gives the mixed three its form."""
    if isinstance(batch, dict):
        parts = tuple(batch.get(name) for name in ("images", "labels", "sample_weight"))

        def join(x, y, sample_weight):
            mixed = {"images": x, "labels": y, "sample_weight": sample_weight}
            return type(batch)({name: mixed.get(name, value) for name, value in batch.items()})

        return *parts, join
    make = getattr(type(batch), "_make", type(batch))
    return *(*batch, None, None)[:3], lambda *mixed: make(mixed[: len(batch)])


def is_labelled(batch):
    """Whether a batch has labels: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with labels."""
    if isinstance(batch, dict):
        return batch.get("labels") is not None
    return isinstance(batch, tuple) and len(batch) in (2, 3) and batch[1] is not None


def map_arrays(function, structure):
    """`function` of every array of a structure; None stays None."""
    return tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def arrays_of(structure):
    """The arrays of a structure, without None."""
    return [leaf for leaf in tree.flatten(structure) if leaf is not None]


class BatchLayer(keras.layers.Layer):
    """A layer that maps a labelled batch to a labelled batch, one numbered step at a time.

    A subclass implements `_check(x)`, `_plan(xp, draw, batch_size, spatial_shape)`, `_dtype_of(leaf)` and
    `_mix(xp, draw, x, y, sample_weight, weights)` and `_alphas(xp, draw, leaf)`.

    Attributes:
        fuse: Whether XLA compiles the mixing in a TensorFlow graph, as in tf.data, where it can. Set it to
            `False` before the data set is mapped to have plain TensorFlow ops.
    """

    fuse = True

    # Whether a `MixTrainer` may find it inside of a model.
    _fits_in_models = False

    def __init__(self, *, num_classes=None, labels="dense", passthrough=(), seed=None, **kwargs):
        # Autocasting would cast labels, too, to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        self.num_classes = None if num_classes is None else _checks.integer(num_classes, "num_classes", 1)
        self.labels = _checks.label_form(labels, self.num_classes)
        self.passthrough = _checks.names(passthrough, "passthrough")
        # From Python's generator, as Keras draws its seeds, so that keras.utils.set_random_seed governs it.
        self.seed = random.randint(1, int(1e9)) if seed is None else _checks.seed(seed)
        self._counter = _backend.Counter()
        # There is nothing to build; Keras would try to, by tracing `call`, where a layer stands in another.
        self.built = True

    def __call__(self, *args, **kwargs):
        return _backend.as_written(self._route, *args, **kwargs)

    def _route(self, *args, **kwargs):
        """Answer batches that are not Keras' own at once, since Keras would convert them to its backend."""
        arrays = [leaf for leaf in tree.flatten((args, kwargs)) if hasattr(leaf, "dtype")]
        if any(map(_backend.irregular, arrays)) or (arrays and _backend.is_foreign(*arrays)):
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, x, y=None, sample_weight=None, training=None):
        batch = self._batch(x, y, sample_weight)
        if training is False:
            return batch
        if is_labelled(batch):
            return self._mixed(None, batch, self.fuse)
        _checks.inputs_alone(batch)
        if not training and sample_weight is None:
            return batch
        step = running()
        plan = None if step is None else step.plan
        if plan is None or sample_weight is not None or not self._fits_in_models:
            _checks.fail(
                "Inputs are mixed together with their labels.",
                "inputs without labels, in training",
                "Call it on labelled batches: `ds.map(layer)` on a data set of (x, y), or `x, y = layer(x, y)`. "
                "Plain `fit` of a model with a mixing layer in it would mix the inputs and leave the labels as they "
                "are: write `kmix.MixTrainer(model)` and fit that.",
            )
        if plan.place is not None:
            _checks.fail(
                "Mix in one way: behind the layers named in `at`, or with the mixing layers inside of the model.",
                f"`at` and a model with {self.name}",
                "Take that layer out of the model, or leave out `mix` and `at`.",
            )
        self._check(x)
        for leaf in arrays_of(x):
            _checks.batch_of_plan(_backend.static_shape(leaf), _backend.static_shape(plan.lam))
        step.note()
        return map_arrays(lambda leaf: self._mix_input(leaf, plan), x)

    def at_step(self, step, batch):
        """Mix the batch with number `step`. A pure function: `ds.enumerate().map(layer.at_step)`.

        Args:
            step: Number of the batch: an integer >= 0 or an integer scalar tensor.
            batch: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with `"images"` and `"labels"`.

        Returns:
            The mixed batch in the same structure, on the framework of the batch: NumPy for NumPy arrays
            (and for tensors of a framework that is neither TensorFlow nor Keras' backend).

        Raises:
            ValueError: if the batch has no labels, or cannot be mixed (see the class).

        Example:
        >>> layer = kmix.MixUp(0.2, num_classes=3, seed=1)
        >>> x, y = layer.at_step(0, (np.ones((4, 2), "float32"), np.array([0, 1, 2, 1])))
        >>> y.shape
        (4, 3)
        """
        return _backend.as_written(self._at_step, step, batch)

    def _at_step(self, step, batch):
        if not is_labelled(tuple(batch) if isinstance(batch, list) else batch):
            _checks.fail(
                'Expected a labelled batch: (x, y), (x, y, sample_weight), or a dictionary with "images" and "labels".',
                f"a batch of type {type(batch).__name__}",
                "With tf.data write `ds.enumerate().map(layer.at_step)`.",
            )
        if not hasattr(step, "dtype"):
            step = _checks.integer(step, "step")
        elif "int" not in _backend.dtype(step) or len(step.shape):
            _checks.fail("`step` must be an integer scalar.", f"dtype {_backend.dtype(step)}, shape {step.shape}")
        elif not _backend.is_symbolic(step):
            step = _checks.integer(int(step), "step")
        return self._mixed(Draw(step), batch, self.fuse)

    def plan(self, step, batch_size, spatial_shape=None, replica=0):
        """The plan of one step as NumPy arrays: what a batch with that number is, or was, mixed with.

        Args:
            step: Number of the batch, an int >= 0.
            batch_size: Number of samples in the batch.
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. Needed where CutMix mixes.
            replica: Index of the replica under data parallelism.

        Returns:
            A `kmix.MixPlan`, for the alpha that the layer has now. `RandomChoice` adds `choice`, the index of
            the layer that was drawn.

        Example:
        >>> kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4).permutation
        array([2, 0, 3, 1], dtype=int32)
        """
        step = _checks.integer(step, "step")
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        replica = _checks.integer(replica, "replica")
        return self._plan(_backend.NUMPY, Draw(step, replica), batch_size, spatial_shape)

    def _plan(self, xp, draw, batch_size, spatial_shape=None) -> MixPlan:
        raise NotImplementedError

    def _alphas(self, xp, draw, leaf):
        """Alpha by layer, for each layer that may draw the plan of a batch with the array `leaf`."""
        raise NotImplementedError

    def _mixed(self, draw, batch, fuse=False):
        """Check, number, encode and mix one batch. Nothing has changed if a check fails."""
        if isinstance(batch, dict):
            _checks.keys(batch, self.passthrough)
        x, y, sample_weight, join = split(batch)
        leaves = self._check_arrays(x, y, sample_weight)
        if draw is None and any(map(_backend.is_jax_tracer, leaves)):
            _checks.fail(
                "Inside a function that JAX compiles a layer cannot count its calls.",
                "a call without a step",
                "Write `layer.at_step(step, (x, y))` with a step that is an argument of the function.",
            )
        numbers = [draw.step] if draw is not None and hasattr(draw.step, "dtype") else []
        xp = _backend.namespace(*leaves, *numbers)
        with _backend.device_of(leaves[0]):
            x, y, sample_weight = map_arrays(xp.asarray, (x, y, sample_weight))
            self._check_float_ids(xp, y)
            y = map_arrays(lambda leaf: mixing.check_labels(xp, leaf, self.num_classes, self.labels), y)
            weights = self._weights_for(y, sample_weight)
            xp.require_equal_sizes([(leaf, 0) for leaf in arrays_of((x, y, sample_weight))], _checks.BATCH_SIZES)
            draw = Draw(self._counter.next(xp)) if draw is None else draw
            drawer, step = _backend.plan_namespace(xp, draw.step, leaves[0])
            # Out here: a schedule is anybody's function, and XLA would take what alpha is now for a constant.
            alphas = self._alphas(drawer, draw._replace(step=step), leaves[0])

            def mix(step, alphas, x, y, sample_weight, weights):
                at = draw._replace(step=step, alphas=dict(zip(layers, alphas, strict=True)))
                y = map_arrays(lambda leaf: mixing.encode_checked(xp, leaf, self.num_classes, self.labels), y)
                return self._mix(xp, at, x, y, sample_weight, weights)

            layers, arguments = list(alphas), (step, list(alphas.values()), x, y, sample_weight, weights)
            return join(*(xp.fused(mix, *arguments) if fuse else mix(*arguments)))

    def _check_arrays(self, x, y, sample_weight):
        """Raise unless all are dense arrays with one batch size that can be mixed; return them in a list."""
        leaves = arrays_of((x, y, sample_weight))
        for leaf in [*tree.flatten((x, y)), *arrays_of(sample_weight)]:
            _checks.array(leaf, _backend.irregular(leaf))
        _checks.batch_shapes([_backend.static_shape(leaf) for leaf in leaves])
        self._check(x)
        return leaves

    def _check_float_ids(self, xp, y):
        """Raise where class ids arrive as floats: Keras' preprocessing layers cast labels so in tf.data."""
        labels = arrays_of(y)
        if self.num_classes is None or len(labels) > 1 or "float" not in _backend.dtype(labels[0]):
            return
        shape = _backend.static_shape(labels[0])
        if shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            labels = xp.cast(labels[0], "float32")
            whole = xp.all(labels == xp.math.floor(labels)) & xp.any(labels > 1.0)
            xp.require(xp.math.logical_not(whole), _checks.FLOAT_IDS)

    def _weights_for(self, y, sample_weight):
        """The sample weights of each array of `y`, in the order in which they are flattened."""
        if not tree.is_nested(sample_weight):
            weights = [sample_weight] * len(tree.flatten(y))
        elif isinstance(y, dict) and isinstance(sample_weight, dict) and set(sample_weight) <= set(y):
            by_key = tree.map_structure(lambda leaf: None, y)
            by_key.update(sample_weight)
            weights = tree.flatten(by_key)
        else:
            weights = tree.flatten(sample_weight)
            if isinstance(y, dict) or isinstance(sample_weight, dict) or len(weights) != len(tree.flatten(y)):
                _checks.fail(
                    "Sample weights must be one tensor, or one for each tensor of the labels in the same structure.",
                    f"{tree.map_structure(lambda _: '...', sample_weight)} for labels "
                    f"{tree.map_structure(lambda _: '...', y)}",
                )
        for label, weight in zip(tree.flatten(y), weights, strict=True):
            if weight is not None:
                shape = _backend.static_shape(label)
                ids = "int" in _backend.dtype(label) and self.labels == "dense"
                _checks.weight_shape(_backend.static_shape(weight), (*shape, self.num_classes) if ids else shape)
        return weights

    def compute_output_spec(self, x, y=None, sample_weight=None, training=None):
        batch = self._batch(x, y, sample_weight)

        def spec(leaf, shape=None, dtype=None):
            return keras.KerasTensor(leaf.shape if shape is None else shape, dtype=dtype or leaf.dtype)

        if training is False or not is_labelled(batch):
            if self._fits_in_models:
                self._check(batch)
            return map_arrays(spec, batch)
        if isinstance(batch, dict):
            _checks.keys(batch, self.passthrough)
        x, y, sample_weight, join = split(batch)
        self._check(x)

        def label_spec(leaf):
            ids = _checks.label_kind(leaf.shape, leaf.dtype, self.num_classes, self.labels) == "ids"
            columns = 3 if self.labels == "pair" else self.num_classes
            return spec(leaf, (leaf.shape[0], columns) if ids else None, "float32")

        return join(
            map_arrays(lambda leaf: spec(leaf, dtype=self._dtype_of(leaf)), x),
            map_arrays(label_spec, y),
            map_arrays(lambda leaf: spec(leaf, dtype="float32"), sample_weight),
        )

    @staticmethod
    def _batch(x, y, sample_weight):
        """The batch that the arguments of a call stand for."""
        if sample_weight is not None:
            return x, y, sample_weight
        return x if y is None else (x, y)

    def _arguments(self):
        """The config with objects (schedules, layers) as they are."""
        return {**super().get_config(), "passthrough": list(self.passthrough), "seed": self.seed}

    def get_config(self):
        def serialize(value):
            if isinstance(value, list):
                return [serialize(item) for item in value]
            return keras.saving.serialize_keras_object(value) if callable(value) else value

        return {name: serialize(value) for name, value in self._arguments().items()}

    def __reduce__(self):
        return _rebuild, (type(self), self._arguments(), self._counter.count())


def _rebuild(cls, arguments, count):
    """Unpickle or copy a layer. In a worker process it may mix at a given step, but not count."""
    layer = cls.from_config(arguments)
    layer._counter = _backend.Counter(count, copied=True)
    return layer


def mix_targets(plan, y, sample_weight, weights):
    """Labels and sample weights, mixed; `weights` are those of each array of `y`."""
    labels = [mixing.mix_encoded(label, plan, weight) for label, weight in zip(tree.flatten(y), weights, strict=True)]
    return (
        tree.pack_sequence_as(y, labels),
        map_arrays(lambda weight: mixing.mix_weights(weight, plan), sample_weight),
    )


class MixLayer(BatchLayer):
    """A layer that draws its plan with one alpha. A subclass implements `_draw`."""

    def __init__(self, alpha, *, per="sample", rate=1.0, **kwargs):
        super().__init__(**kwargs)
        self.per = _checks.one_of(per, "per", ("sample", "batch"))
        self.rate = _checks.real(rate, "rate", 0.0, 1.0)
        alpha = _checks.alpha(alpha)
        self._alpha = alpha if callable(alpha) else _backend.Cell(alpha)
        self._traced = self._frozen = False

    @property
    def alpha(self):
        """Parameter of the Beta distribution: a float >= 0, or the schedule that the layer was given.

        A new number takes effect with the next batch that is drawn, in a traced `tf.data` pipeline, too;
        batches that were prefetched before keep theirs. A function compiled by `jax.jit` would not see it,
        so setting it raises there.
        """
        return self._alpha.value if isinstance(self._alpha, _backend.Cell) else self._alpha

    @alpha.setter
    def alpha(self, value):
        value = self.check_alpha(value)
        if callable(value):
            self._alpha = value
        else:
            self._alpha.assign(value)

    def check_alpha(self, value):
        """Return `value` as the alpha that it would be set to, or raise."""
        value = _checks.alpha(value)
        if not isinstance(self._alpha, _backend.Cell):
            _checks.fail(
                "`alpha` of this layer follows a schedule, which sets it for each step.",
                f"alpha={value!r}",
                "Build the layer with a number to set alpha yourself.",
            )
        if callable(value):
            if self._traced:
                _checks.fail(
                    "A schedule must be given before the layer is first used in a compiled function.",
                    f"alpha={value!r}",
                    "Pass it when the layer is built: `alpha=schedule`.",
                )
        elif self._frozen and value != self._alpha.value:
            _checks.fail(
                "A function compiled by `jax.jit` holds alpha as a constant and would not see the new value.",
                f"alpha={value!r} instead of {self._alpha.value!r}",
                "Build the layer with a schedule of the step, or call `at_step` outside of `jax.jit`.",
            )
        return value

    def share_alpha(self, weight, refresh):
        """Keep alpha in a weight of a trainer, too, which `refresh` brings up to date."""
        # A schedule would come too late for a training step that is compiled.
        self._traced = True
        self._alpha.share(weight, refresh)

    def _plan(self, xp, draw, batch_size, spatial_shape=None):
        alpha = draw.alphas[self] if self in draw.alphas else self._alpha_at(xp, draw.step)
        settings = {"per": self.per, "rate": self.rate, "replica": draw.replica, "shards": draw.shards, "xp": xp}
        return self._draw(draw.seed_of(self), draw.step, alpha, batch_size, spatial_shape, **settings)

    def _alphas(self, xp, draw, leaf):
        self._traced |= _backend.is_symbolic(leaf)
        if self in draw.alphas:
            return draw.alphas
        self._frozen |= _backend.is_jax_tracer(leaf) and isinstance(self._alpha, _backend.Cell)
        return {self: self._alpha_at(xp, draw.step)}

    def _alpha_at(self, xp, step):
        """Alpha as it is, or the value of the schedule, with the one wording of what can go wrong in it."""
        if isinstance(self._alpha, _backend.Cell):
            return self._alpha.read(xp)
        try:
            alpha = xp.evaluate(self._alpha, step)
        except Exception as error:
            raise ValueError(
                f"`alpha={self._alpha!r}` could not be evaluated at a step of type {type(step).__name__}: {error}. In "
                "a graph a schedule is arithmetic on the step, without Python's `if`, `min` or `max`. Those of "
                "`kmix.schedules` work everywhere; `Join` puts pieces together."
            ) from error
        if len(alpha.shape):
            _checks.fail("A schedule must return a single number.", f"alpha of shape {tuple(alpha.shape)}")
        return alpha

    def _mix(self, xp, draw, x, y, sample_weight, weights):
        leaf = tree.flatten(x)[0]
        spatial_shape = self._spatial_shape(xp, x)
        drawer, step = _backend.plan_namespace(xp, draw.step, leaf)
        plan = self._plan(drawer, draw._replace(step=step), xp.size(leaf, 0), spatial_shape)
        return tree.map_structure(lambda leaf: self._mix_input(leaf, plan), x), *mix_targets(
            plan, y, sample_weight, weights
        )

    def _check(self, x):
        for leaf in tree.flatten(x):
            _checks.blendable(_backend.dtype(leaf))

    def _spatial_shape(self, xp, x):
        """The sizes that a box is drawn for; None where there is no box."""
        return

    def _mix_input(self, leaf, plan):
        return mixing.mix_inputs(leaf, plan, dtype=self._dtype_of(leaf))

    def _dtype_of(self, leaf):
        """The dtype in which `leaf` comes back."""
        return self.compute_dtype

    def _draw(self, seed, step, alpha, batch_size, spatial_shape, **settings) -> MixPlan:
        raise NotImplementedError

    def _arguments(self):
        names = ("alpha", "num_classes", "labels", "per", "rate")
        return {**super()._arguments(), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config):
        alpha = config["alpha"]
        if isinstance(alpha, dict):
            alpha = keras.saving.deserialize_keras_object(alpha)
        return super().from_config({**config, "alpha": alpha})
