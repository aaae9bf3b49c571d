"""What the layers share: the forms of a call, inside a model and outside, and symbolic use."""

import random

import keras

from kmix import _backend, _checks
from kmix import batch as batches
from kmix.batch import Batch, Settings, is_labelled
from kmix.layers import partners
from kmix.layers.step import StepKey, running
from kmix.layers.stepped import Stepped
from kmix.plan import MixPlan
from kmix.targets import target as kinds
from kmix.targets.assign import check_target, is_built_in
from kmix.targets.inputs import Inputs, check_batch_of_plan
from kmix.targets.labels import check_form
from kmix.targets.sample_weights import check_class_weight
from kmix.targets.spread import check_num_classes

tree = keras.tree


class BatchLayer(Stepped):
    """A layer that maps a labelled batch to a labelled batch, one numbered step at a time.

    A subclass implements `inputs`, `sample_plan` and `alphas`. `MixLayer` does this for mixers with one alpha.

    Args:
        num_classes, labels, target, class_weight, keep_clean, passthrough, seed: See `MixUp`.
        **kwargs: The arguments that kinds of targets add, and `name` and `dtype`.

    Attributes:
        fuse: Whether the mixing may be compiled, in a TensorFlow graph and in eager code, and use several threads.
            Set it to `False`, in tf.data before you map the data set, to get plain operations.
        fits_in_models: Whether the layer may stand inside a model that a `MixTrainer` trains.
    """

    fuse = True
    fits_in_models = False

    def __init__(
        self,
        *,
        num_classes=None,
        labels="dense",
        target=None,
        class_weight=None,
        keep_clean=False,
        passthrough=(),
        seed=None,
        **kwargs,
    ):
        own = kinds.check_arguments({name: kwargs.pop(name) for name in kinds.arguments() if name in kwargs})
        # Autocasting would also cast labels to the compute dtype.
        super().__init__(autocast=False, **kwargs)
        for name, value in own.items():
            setattr(self, name, value)
        self.num_classes = check_num_classes(num_classes)
        self.labels = check_form(labels, self.num_classes)
        self.target = check_target(target)
        self.class_weight = check_class_weight(class_weight)
        self.keep_clean = _checks.boolean(keep_clean, "keep_clean")
        self.passthrough = _checks.names(passthrough, "passthrough")
        # From Python's generator, as Keras' own seeds, so that keras.utils.set_random_seed controls it.
        self.seed = random.randint(1, int(1e9)) if seed is None else _checks.seed(seed)
        self._counter = _backend.Counter()
        # There is nothing to build. Keras would try, by tracing `call`, when another layer holds this one.
        self.built = True

    @property
    def inputs(self) -> Inputs:
        """How the inputs follow a plan of this layer: a `kmix.targets.Inputs`."""
        raise NotImplementedError

    def sample_plan(self, xp, key, batch_size, spatial_shape=None) -> MixPlan:
        """The plan of the step with a `StepKey`, in the array namespace `xp`."""
        raise NotImplementedError

    def alphas(self, xp, key, leaf):
        """Alpha by layer, for each layer that may draw the plan. `leaf` is an array of the batch."""
        raise NotImplementedError

    def mix_values(self, xp, key, batch, values):
        """Draw the plan of a step and mix the encoded values of a `Batch`."""
        leaf = tree.flatten(values.inputs)[0]
        spatial_shape = self.inputs.spatial_shape(xp, values.inputs)
        plan_xp, step = _backend.plan_namespace(xp, key.step, leaf)
        plan = partners.draw(self, plan_xp, key._replace(step=step), values, xp.size(leaf, 0), spatial_shape)
        plan = self.inputs.settle(xp, values.inputs, plan)
        inputs = partners.Kept(self.inputs) if key.clean else self.inputs
        return batch.mix(xp, values, plan, inputs, spatial_shape)

    @property
    def settings(self):
        """The arguments that say how to read batches: a `kmix.batch.Settings`."""
        return Settings(
            self.target, self.num_classes, self.labels, self.class_weight, self.passthrough, self.target_arguments
        )

    def __call__(self, *args, **kwargs):
        return _backend.as_written(self._route, *args, **kwargs)

    def _route(self, *args, **kwargs):
        """Pass batches of other frameworks directly to `call`, since Keras would convert them to its backend."""
        arrays = [leaf for leaf in tree.flatten((args, kwargs)) if hasattr(leaf, "dtype")]
        if len(args) == 1 and isinstance(args[0], list) and is_labelled(tuple(args[0])):
            # A batch, as PyTorch's loaders form it. Inside a model, a list stands for several inputs.
            inside = any(map(keras.backend.is_keras_tensor, arrays)) or not self._is_outermost()
            args = args if inside else (tuple(args[0]),)
        foreign = any(map(_backend.irregular, arrays)) or (arrays and _backend.is_foreign(*arrays))
        # Keras would add nothing to an eager batch but time.
        if foreign or (not kwargs and is_labelled(args[0] if len(args) == 1 else args) and self._is_eager(args)):
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, x, y=None, sample_weight=None, training=None):
        batch = _as_batch(x, y, sample_weight)
        if training is False:
            return batch
        if is_labelled(batch):
            return self.mix_batch(None, batch)
        return self._mix_inputs_alone(batch, sample_weight, training)

    def _is_eager(self, batch):
        """Whether a batch holds only tensors with values, and the user calls the layer."""
        eager = (
            leaf is None or (keras.ops.is_tensor(leaf) and not _backend.is_symbolic(leaf))
            for leaf in tree.flatten(batch)
        )
        return all(eager) and self._is_outermost()

    def _is_outermost(self):
        """Whether the layer is about to be called by the user, not by a model."""
        context = self._get_call_context()
        self._maybe_reset_call_context()
        return running() is None and context.entry_layer is self

    def _mix_inputs_alone(self, x, sample_weight, training):
        """Mix inputs with the plan of the step inside a model that a `MixTrainer` trains. Else the identity."""
        step = running()
        plan = None if step is None else step.plan
        if isinstance(x, dict) and plan is None:
            batches.check_keys(x, self.passthrough)
        batches.check_inputs_alone(x)
        if not training and sample_weight is None and not _backend.is_mapped(*tree.flatten(x)):
            return x
        if plan is None or sample_weight is not None or not self.fits_in_models:
            _checks.fail(
                "Inputs are mixed together with their labels.",
                "inputs without labels, in training",
                "Call it on labelled batches: `ds.map(layer)` on a data set of (x, y), or `x, y = layer(x, y)`. "
                "Plain `fit` of a model with a mixing layer would mix the inputs but not the labels: write "
                "`kmix.MixTrainer(model)` and fit that.",
            )
        if plan.place is not None:
            _checks.fail(
                "Mix in one way: after the layers named in `at`, or with the mixing layers inside the model.",
                f"`at` and a model with {self.name}",
                "Remove that layer from the model, or leave out `mix` and `at`.",
            )
        self.inputs.check(x)
        for leaf in tree.flatten(x):
            check_batch_of_plan(leaf, plan)
        step.note()
        with _backend.fusing(self.fuse):
            return tree.map_structure(lambda leaf: self.inputs.mix(leaf, plan), x)

    def check_partners(self, xp, targets, given=None):
        """Raise unless partners can be drawn for these targets. `xp` is None for symbols, which have no values.

        `given` holds settings of a trainer that replace those of the layer.
        """
        partners.check_layer(self, given)

    def mix_batch(self, key, batch, partner=None):
        """Mix a labelled batch with the `StepKey` of a step, or with the next number that the layer counts.

        If a check fails, nothing has changed and no call was counted. `partner` is as for `at_step`.
        """
        if isinstance(batch, dict):
            batches.check_keys(batch, self.passthrough)
            batch = partners.double_passed(batch, self.passthrough) if self.keep_clean else batch
        batch = batch if partner is None else partners.join(batch, partner, self.settings, self.inputs)
        batch = Batch.read(batch, self.settings, self.inputs)
        leaves = batch.values.arrays()
        if key is None and any(map(_backend.is_jax_tracer, leaves)):
            _checks.fail(
                "Inside a function that JAX compiles, a layer cannot count its calls.",
                "a call without a step",
                "Write `layer.at_step(step, (x, y))` and make the step an argument of the function.",
            )
        xp = _backend.namespace(*leaves, *(() if key is None else (key.step, key.replica)))
        with _backend.device_of(leaves[0]), _backend.fusing(self.fuse):
            values = batch.check(xp)
            self.check_partners(xp, batch.values.targets)
            key = StepKey(self._counter.next(xp)) if key is None else key
            plan_xp, step = _backend.plan_namespace(xp, key.step, leaves[0])
            # Outside XLA: a schedule may be any function, and XLA would make the current alpha a constant.
            alphas = self.alphas(plan_xp, key._replace(step=step), leaves[0])
            layers = list(alphas)

            def mix(step, alphas, values):
                known = key._replace(step=step, alphas=dict(zip(layers, alphas, strict=True)))
                return partners.mix(self, xp, known, batch, batch.encode(xp, values), self.keep_clean)

            arguments = step, list(alphas.values())
            if not self.fuse:
                return batch.write(mix(*arguments, values))
            place = repr((key.replica, key.joined))
            values, padded = batch.pad(xp, values)
            constants = lambda: (text := self.constants()) and text + place  # noqa: E731
            return batch.write(batch.crop(xp, xp.fused(mix, *arguments, values, key=constants, padded=padded)))

    def constants(self):
        """What a compiled program holds of the layer, as text; None if it holds code of the user, which may change."""
        arguments = {name: value for name, value in self.arguments().items() if name not in ("name", "alpha")}
        known = type(self).__module__.startswith("kmix.")
        return f"{type(self)} {arguments}" if known and all(map(is_built_in, tree.flatten(self.target))) else None

    def compute_output_spec(self, x, y=None, sample_weight=None, training=None):
        batch = _as_batch(x, y, sample_weight)
        if training is False or not is_labelled(batch):
            # Hidden states may be a dictionary, unless it looks like a batch.
            if isinstance(batch, dict) and (not self.fits_in_models or not {*batch}.isdisjoint(batches.known_keys())):
                batches.check_keys(batch, self.passthrough)
            if self.fits_in_models:
                self.inputs.check(batch)
            return _symbols(batch)
        if isinstance(batch, dict):
            batches.check_keys(batch, self.passthrough)
            # Keras needs new tensors, also for what is passed through.
            symbols = partners.double_spec if self.keep_clean else _symbols
            new = {name: symbols(value) if name in self.passthrough else value for name, value in batch.items()}
            batch = type(batch)(new)
        batch = Batch.read(batch, self.settings, self.inputs)
        self.check_partners(None, batch.values.targets)
        spec = batch.spec(self.inputs)
        return batch.write(partners.double_spec(spec) if self.keep_clean else spec)


def _symbols(structure):
    return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), structure)


def _as_batch(x, y, sample_weight):
    """The arguments of a call as a batch."""
    if sample_weight is not None:
        return x, y, sample_weight
    return x if y is None else (x, y)
