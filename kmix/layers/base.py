"""What all mixers share: the forms of a call, steps, plans, symbolic use, config and copies.

The way of a batch: `__call__` hands it to `_route`, which mixes it at once or lets Keras run `call`; both come to
`_mix`, as `at_step` does. `_mix` reads and checks the batch and numbers it; `_mix_step` encodes it, draws its plan,
mixes and writes it, as it is or as one compiled program.
"""

import copy
import inspect
import random
from collections.abc import Callable, Sequence
from typing import Any, Self, SupportsIndex

import keras

from kmix import _backend, _checks
from kmix._settings import deserialize, serialize
from kmix.batch import Batch, Reading
from kmix.layers.alpha import Alpha
from kmix.layers.calls import STEP_FIRST, as_given, check_labelled, is_array, of_shape
from kmix.layers.input_mixing import InputMixing, check_batch_of_plan, check_inputs_key
from kmix.layers.training_step import current_step
from kmix.pairing import Pairing, RandomPairs, to_pairing
from kmix.plan import MixPlan, PlanKey
from kmix.plan.fingerprint import fingerprint
from kmix.plan.plan import check_key, check_number
from kmix.plan.samplers import check_spatial_shape
from kmix.targets.argument import check_target, plain, to_target
from kmix.typing import BatchLike, PairingLike, Per, ScalarOrSchedule, TargetLike

tree = keras.tree


class MixLayer(keras.layers.Layer):
    """A layer that maps a labelled batch to a mixed batch, one numbered step at a time. Subclass it for a new mixer.

    A subclass overrides `sample`, which draws a plan, and `input_mixing`, which says how the inputs follow it; and
    `resolve`, if the plan depends on the inputs.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the step).
        num_classes: Number of classes. Needed if the labels are integer class ids. Stands for `target=Labels(n)`.
        target: What `y` is, and therefore how it follows the plan: an object of `kmix.targets`, or a name for those
            that need no settings: `"labels"`, `"union"`, `"keep"`, `"segmentation_masks"`; a callable `(y, plan) -> y`;
            or a structure of these that matches `y`, such as `{"class": Labels(10), "id": "keep"}`. Defaults to
            labels. In a dictionary batch, a dictionary says what its keys are; anything else describes `"labels"`.
        pairing: Who mixes with whom: `"random"`, `"similar_labels"` (for regression), `"different_labels"`,
            `"same_labels"`, or an object of `kmix.pairing`.
        per: `"sample"` draws one lam for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all, a float or a
            schedule (a callable of the step).
        lam_at_least_half: Whether to take `max(lam, 1 - lam)` for lam, so that no partner outweighs its sample.
        include_clean: Whether to return a batch of twice the size: the clean samples, encoded in the same way, and then
            the mixed ones (RegMixup). What is kept is doubled as well.
        inputs_key: The key of the inputs in a dictionary batch; a tuple of keys for several inputs.
        jit_compile: Whether the mixing may be compiled where it pays (in tf.data and for large eager batches) and use
            several threads. `False` mixes with plain operations: slower, but the same batch.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        name: Name of the layer.
        dtype: The dtype (policy) of the layer. Inputs that are blended come out in its compute dtype.

    Raises:
        ValueError: if an argument is out of range, or a target cannot follow the mixer.
        TypeError: if an argument has a wrong type.

    Example:
        A mixer that pastes the bottom rows of the partner.

        >>> from typing import Any, NamedTuple
        >>> class Rows(NamedTuple):
        ...     first: Any
        ...     def paste(self, xp, x, permutation, axes):
        ...         row = xp.reshape(xp.arange(xp.size(x, 1)), (1, -1) + (1,) * (len(x.shape) - 2))
        ...         return xp.where(row < xp.along(self.first, x), x, xp.take(x, permutation))
        >>> class RowMix(kmix.layers.MixLayer):
        ...     input_mixing = kmix.layers.Paste("channels_last")
        ...     stream = kmix.plan.reserve("RowMix", 2048)
        ...     def sample(self, seed, step, alpha, batch_size, spatial_shape, *, xp, **settings):
        ...         drawn = kmix.plan.sample_mixup(seed, step, alpha, batch_size, stream=self.stream, xp=xp, **settings)
        ...         rows = xp.cast(spatial_shape[0], "float32")
        ...         first = xp.math.floor(drawn.lam * rows + 0.5)
        ...         return drawn._replace(lam=first / rows, region=Rows(xp.cast(first, "int32")))
        >>> x, y = RowMix(1.0, num_classes=2, seed=1)(np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 1, 1, 0]))
        >>> x.dtype, y.shape
        (dtype('uint8'), (4, 2))
    """

    # Whether the layer may stand inside a model that a `MixTrainer` trains.
    fits_in_models = False
    # How many partners a sample has, and whether the plan depends on an alpha.
    _partners, _has_alpha = 1, True
    _argument_names: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # The names of the arguments of the constructor.
        cls._argument_names = tuple(inspect.signature(cls.__init__).parameters)[1:]

    def __init__(
        self,
        alpha: ScalarOrSchedule = 0.2,
        *,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        pairing: PairingLike = "random",
        per: Per = "sample",
        rate: ScalarOrSchedule = 1.0,
        lam_at_least_half: bool = False,
        include_clean: bool = False,
        inputs_key: str | Sequence[str] = "images",
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        # Autocasting would also cast labels to the compute dtype.
        super().__init__(name=name, dtype=dtype, autocast=False)
        if "float" not in self.compute_dtype:
            _checks.fail("A layer mixes in a float dtype.", f"dtype={dtype!r}", 'For example, write `dtype="float16"`.')
        self._store(
            num_classes=None if num_classes is None else _checks.integer(num_classes, "num_classes", 1),
            target=plain(target),
            pairing=pairing,
            per=_checks.one_of(per, "per", ("sample", "batch")),
            rate=_checks.scalar_or_schedule(rate, "rate", 1.0),
            lam_at_least_half=_checks.boolean(lam_at_least_half, "lam_at_least_half"),
            include_clean=_checks.boolean(include_clean, "include_clean"),
            inputs_key=check_inputs_key(inputs_key),
            jit_compile=_checks.boolean(jit_compile, "jit_compile"),
            # From Python's generator, as Keras' own seeds, so that keras.utils.set_random_seed controls it.
            seed=random.randint(1, int(1e9)) if seed is None else _checks.seed(seed),
            _target=check_target(to_target(target), num_classes, self._partners, type(self).__name__),
            _seed_given=seed is not None,
        )
        self._pairing: Pairing = to_pairing(pairing)
        self._pairs_by_targets = self._pairing.needs_targets
        self._draw_within(self._pairing.within)
        self._alpha: Any = Alpha(alpha) if self._has_alpha else None
        self._counter = _backend.Counter()
        # Whether a model is known to call it.
        self._in_model = False

    def _draw_within(self, within):
        """Keep where partners come from, and the number of rows of a group, if there are groups."""
        self._within, self._group = within, within if isinstance(within, int) else None

    def _store(self, **arguments):
        """Keep arguments of the constructor as they were given: Keras would wrap dictionaries and lists."""
        for name, value in arguments.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name, value):
        if name in self.__dict__ and name in self._argument_names:
            hint = f"Pass `{name}=` when the layer is built."
            if name in ("rate", "probabilities"):
                hint += " A schedule of the step changes it during training."
            _checks.fail(
                f"`{name}` of a layer cannot be set after it was built.", f"{name}={value!r}", hint, AttributeError
            )
        super().__setattr__(name, value)

    # What a subclass overrides.

    @property
    def input_mixing(self) -> InputMixing:
        """How the inputs follow a plan, an `InputMixing`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `input_mixing`.")

    def sample(
        self,
        seed: int,
        step: Any,
        alpha: Any,
        batch_size: Any,
        spatial_shape: Any,
        *,
        per: Per,
        rate: Any,
        lam_at_least_half: bool,
        replica: Any,
        pair: Callable[[Any], Any],
        xp: _backend.Namespace,
    ) -> MixPlan:
        """Draw the plan of one batch: a pure function. Override this.

        Args:
            seed: Python int in `[0, 2**32)`.
            step: Number of the batch: int or integer scalar tensor.
            alpha: Float or float32 scalar tensor; None for a layer without alpha.
            rate: Float or float32 scalar tensor.
            batch_size: Number of samples, an int or a scalar tensor.
            spatial_shape: Sizes of the spatial axes, from `input_mixing`; None if there are none.
            per, lam_at_least_half, replica, pair, xp: As in `kmix.plan.sample_mixup`.

        Returns:
            A `kmix.MixPlan`. Its `lam` is the share of the sample in its label.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `sample`.")

    def resolve(self, plan: MixPlan, batch: Batch) -> MixPlan:
        """The plan of a batch, completed by what depends on its inputs. By default, nothing does.

        Args:
            plan: The `MixPlan` that was drawn.
            batch: The encoded `kmix.batch.Batch`: its `inputs`, and `by_key()`, its targets.
        """
        return plan

    # The way of a batch.

    def _mix(self, key, batch, partner=None):
        """Mix a labelled batch with the `PlanKey` of a step, or with the next number that the layer counts.

        If a check fails, nothing has changed and no call was counted. `partner` is as for `at_step`.
        """
        given = self._read(batch) if partner is None else self._read(batch).join(self._read(partner))
        leaf = given.leaf()
        xp = given.xp if key is None else _backend.namespace(leaf, key.step, key.replica)
        if key is None and xp is not _backend.NUMPY and _backend.is_jax_tracer(leaf):
            _checks.fail(
                "Inside a function that JAX compiles, a layer cannot count its calls.",
                "a call without a step",
                "Write `layer.at_step(step, (x, y))` and make the step an argument of the function.",
            )
        with _backend.device_of(leaf), _backend.fusing(self.jit_compile):
            if xp is not given.xp:
                given = given._replace(xp=xp, uniform=False)
            given = given.check_values()
            self._check_targets(given)
            if key is not None:
                return self._mix_step(key, given, leaf)
            step = self._counter.next(xp)
            try:
                return self._mix_step(PlanKey(step, group=self._group), given, leaf)
            except Exception:
                self._counter.undo(step)
                raise

    def _mix_step(self, key, given, leaf):
        """Mix a checked batch, of which `leaf` is an array, with the `PlanKey` of a step."""
        plan_xp, step = _backend.NUMPY, key.step
        place = "replica" if key.first_row is None else "first_row"
        number = getattr(key, place)
        if given.xp is not plan_xp:
            plan_xp, step, number = _backend.plan_namespace(given.xp, leaf, step, number)
        # Outside XLA: a schedule may be any function, and XLA would make the current alpha a constant.
        values = self._values_at(plan_xp, step, leaf)

        # As an argument: a compiled program would keep it as a constant.
        kept = self._kept_for_pairing(given) if given.kept else {}

        def mixed(step, number, values, arrays, kept):
            batch, own = given.with_arrays(arrays), key._replace(step=step, **{place: number})
            batch = batch._replace(kept=batch.kept | kept).encode()
            batch = self._draw_and_mix(plan_xp, own, values, batch, self.include_clean)
            # As the structure of the result, since a compiled program returns arrays alone.
            return {"by entry" if batch.weights_by_entry else "as given": batch.arrays}

        if not self.jit_compile or plan_xp is _backend.NUMPY:
            arrays = mixed(step, number, values, given.arrays, kept)
            return given.with_mixed(arrays).write(self.include_clean, key)
        padded, added = given.padded()
        constants = self._constants()
        text = constants and f"{constants} {given.second} {given.entries} {place}"
        arrays = given.xp.fused(mixed, step, number, values, padded.arrays, kept, key=lambda: text, padded=added)
        return given.with_mixed(arrays).cropped(given).write(self.include_clean, key)

    def _draw_and_mix(self, plan_xp, key, values, batch, include_clean):
        """Draw the plan of a step for an encoded batch, in the array namespace `plan_xp`, and mix it."""
        mixing, size = self.input_mixing, batch.size()
        sizes = mixing.sizes(batch.xp, batch.inputs) if mixing.pastes else None
        plan = self._draw(plan_xp, key, values, size // 2 if batch.second else size, sizes, batch.by_key)
        if batch.second:
            plan = plan.with_second_batch()
        return batch.mix(self.resolve(plan, batch), mixing, include_clean, key)

    def _draw(self, xp, key, values, batch_size, spatial_shape, targets):
        """The plan of a step, in the array namespace `xp`.

        Args:
            key: The `PlanKey`.
            values: What `_values_at` returned.
            targets: A function that gives the targets of the batch by key.
        """
        key = key._replace(seed=self.seed if key.seed is None else key.seed)
        pairing = self._pairing
        choose = pairing.partners if key.group is None else pairing._draw_in_groups
        known = targets() if self._pairs_by_targets else {}
        plan = self.sample(
            key.seed,
            key.step,
            values.get("alpha"),
            batch_size,
            spatial_shape,
            per=self.per,
            rate=values["rate"],
            lam_at_least_half=self.lam_at_least_half,
            replica=key.replica,
            pair=lambda words: choose(xp, words, key, known),
            xp=xp,
            **({} if key.first_row is None else {"first_row": key.first_row}),
        )
        return plan if plan.bijective == pairing.bijective else plan._replace(bijective=pairing.bijective)

    def _values_at(self, xp, step, leaf, given=None):
        """The values in a step of what may be a schedule, by name: arguments of a compiled program.

        Args:
            xp: The array namespace of the plan.
            step: Number of the batch.
            leaf: An array of the batch.
            given: Alpha by layer, for layers whose alpha a trainer holds.
        """
        values = {"rate": xp.evaluate(self.rate, step, 1.0) if callable(self.rate) else self.rate}
        if given and self in given:
            values["alpha"] = given[self]
        elif self._alpha is not None:
            framework, symbolic = (None, False) if xp is _backend.NUMPY else _backend.kind(leaf)[:2]
            values["alpha"] = self._alpha.at(xp, step, symbolic, symbolic and framework == "jax")
        return values

    def _reading(self):
        """What the layer knows of the batches that it mixes."""
        return Reading(self._target, self.num_classes, self.inputs_key, self.input_mixing, self._partners)

    def _read(self, batch):
        return Batch.read(batch, self._reading())

    def _check_targets(self, batch):
        """Raise unless the layer can choose partners by the targets of a batch, and mix these."""
        if self._pairs_by_targets:
            self._pairing.check_targets(batch.by_key())

    def _kept_for_pairing(self, batch):
        """What a rule of kmix reads of what is kept, by key: arrays of the framework of the batch."""
        if not self._pairs_by_targets or not type(self._pairing).__module__.startswith("kmix."):
            return {}
        read = self._pairing._read(batch.by_key())
        return {key: batch.xp.asarray(value) for key, value in read.items() if key in batch.kept}

    def _constants(self):
        """What a compiled program holds of the layer, as text; None if it holds code of the user, which may change."""
        parts = [self, self._pairing, *tree.flatten(self._target)]
        if not all(part is None or type(part).__module__.startswith("kmix.") for part in parts) or any(
            hasattr(part, "function") for part in parts
        ):
            return None
        # The others are arguments of the program.
        others = ("name", "layers", "alpha", "rate", "probabilities")
        arguments = {name: value for name, value in self._arguments().items() if name not in others}
        return f"{type(self).__name__} {arguments} {self.compute_dtype} {keras.config.image_data_format()}"

    # Calls.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _backend.untraced(self._route, *args, **kwargs)

    def _route(self, *args, **kwargs):
        """Mix eager labelled batches, and those of other frameworks, at once; leave the rest to Keras."""
        if len(args) > 3:
            _checks.fail(
                "A batch is (x, y) or (x, y, sample_weight).",
                f"{len(args)} parts",
                'Take out what is not mixed, or pass a dictionary with `target={key: "keep"}`.',
            )
        if kwargs.get("training") not in (None, True, False):
            _checks.fail("`training` must be True or False.", f"training={kwargs['training']!r}", error=TypeError)
        values = {**dict(zip(("x", "y", "sample_weight"), args, strict=False)), **kwargs}
        training = values.pop("training", None)
        batch, found = self._labelled(**values), set()
        arrays: list[Any] = []
        for value in values.values():
            arrays += [value] if hasattr(value, "dtype") else filter(is_array, tree.flatten(value))
        for leaf in arrays:
            found.add(_backend.kind(leaf)[:2])
        if ("keras", True) in found:
            if isinstance(batch, dict):
                _checks.fail(
                    "Inside a model, labels are a second argument.",
                    f"a dictionary with keys {sorted(map(str, batch))}",
                    "Write `layer(x, y)`.",
                )
            return super().__call__(*args, **kwargs)
        own = keras.backend.backend()
        # Keras would convert them, or could not take them.
        foreign = (
            bool(found - {(own, False), (own, True)})
            or any(map(_backend.irregular, arrays))
            or (("tensorflow", True) in found and None in map(_backend.static_shape, arrays))
        )
        if batch is None:
            return self.call(*args, **kwargs) if foreign else super().__call__(*args, **kwargs)
        # Keras would add nothing to an eager batch but time; it adds whether a model that calls the layer trains.
        if foreign or (found == {(own, False)} and self.built and not self._is_nested() and current_step() is None):
            return as_given(**values) if training is False else self._mix(None, batch)
        return super().__call__(*args, **kwargs)

    def _labelled(self, x=None, y=None, sample_weight=None):
        """The labelled batch that the arguments of a call form, a tuple or a dictionary; None without labels."""
        if y is not None:
            return (x, y) if sample_weight is None else (x, y, sample_weight)
        if sample_weight is not None:
            _checks.fail(
                "Sample weights belong to labels.",
                "sample weights without labels",
                "Write `layer(x, y, sample_weight)`.",
            )
        is_batch = isinstance(x, dict) and current_step() is None and self._reading().is_batch(x)
        return x if is_batch else None

    def call(self, x: Any, y: Any = None, sample_weight: Any = None, *, training: bool | None = None) -> Any:
        if training is False:
            return as_given(x, y, sample_weight)
        batch = self._labelled(x, y, sample_weight)
        return self._mix_inputs_alone(x, training) if batch is None else self._mix(None, batch)

    def _is_nested(self):
        """Whether the layer was built within another layer."""
        return self.path is not None and self.path != self.name

    def build(self, input_shape: Any = None) -> None:
        """Build nothing. Keras records where the layer was built."""

    def _mix_inputs_alone(self, x, training):
        """Mix inputs with the plan of the step inside a model that a `MixTrainer` trains. Else the identity."""
        step = current_step()
        if step is None or step.plan is None or not self.fits_in_models:
            return self._check_inference(x, training)
        plan = step.plan
        if plan.place is not None:
            _checks.fail(
                "Mix in one way: after the layers named in `places`, or with the mixing layers inside the model.",
                f"`places` and a model with {self.name}",
                "Remove that layer from the model, or leave out `mixer` and `places`.",
            )
        self.input_mixing.check(x)
        for leaf in tree.flatten(x):
            check_batch_of_plan(leaf, plan)
        step.record()
        with _backend.fusing(self.jit_compile):
            return tree.map_structure(lambda leaf: self.input_mixing.mix(_backend.namespace(leaf), leaf, plan), x)

    def _check_inference(self, x, training):
        """Return inputs without labels as they are, or raise unless this may be a model in inference."""
        leaves = tree.flatten(x)
        in_model = self._in_model = self._in_model or self._is_nested() or _backend.is_stateless()
        symbolic = any(_backend.kind(leaf)[:2] == ("tensorflow", True) for leaf in leaves)
        pipeline = symbolic and keras.backend.backend() != "tensorflow"
        if not training and in_model and not pipeline:
            return x
        if isinstance(x, dict) and not in_model:
            # Its error names the keys.
            Batch.read(x, self._reading())
        foreign = any(_backend.kind(leaf).framework != keras.backend.backend() for leaf in leaves)
        if training or symbolic or foreign or tree.is_nested(x) or keras.backend.backend() == "numpy":
            _checks.fail(
                "Inputs are mixed together with their labels.",
                f"inputs without labels{of_shape(x)}",
                "Call the layer on labelled batches: `layer(x, y)`, `layer(*batch)`, `layer.at_step(step, batch)`, or "
                "`ds.map(layer)` on a data set of (x, y). Plain `fit` of a model with a mixing layer would mix the "
                "inputs but not the labels: write `kmix.MixTrainer(model)` and fit that.",
            )
        return x

    def compute_output_spec(
        self, x: Any, y: Any = None, sample_weight: Any = None, *, training: bool | None = None
    ) -> Any:
        self._in_model = True
        if training is False or y is None:
            if self.fits_in_models:
                self.input_mixing.check(x)
            given = as_given(x, y, sample_weight)
            return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), given)
        batch = Batch.read(as_given(x, y, sample_weight), self._reading())
        self._check_targets(batch)
        return batch.spec(self.input_mixing, self.include_clean)

    # Steps.

    def at_step(
        self,
        step: Any,
        batch: BatchLike,
        replica: Any = 0,
        *,
        partner: BatchLike | None = None,
        first_row: Any = None,
    ) -> Any:
        """Mix the batch with number `step`. A pure function: `numbering(ds).map(layer.at_step)`.

        Args:
            step: Number of the batch: an integer >= 0 or an integer scalar tensor. Plans repeat after `2**32` steps.
            batch: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with `"images"` and `"labels"`.
            replica: Number of the process in [0, 65536), where several processes load parts of the data and count
                the same steps: an int or an integer scalar tensor. Replicas draw different plans.
            partner: A second batch of the same structure, dtypes and shapes, from which all partners come: sample `i`
                is mixed with sample `plan.permutation[i]` of `partner`, by the same plan. Costs memory for a batch of
                twice the size.
            first_row: Where this batch is a part of a global batch: the number of its first row there, an int or an
                integer scalar tensor. It is mixed as those rows of the global batch are, however many parts that has.
                Needs a pairing within groups, such as `pairing=RandomPairs(within=16)`, and is a multiple of their
                size.

        Returns:
            The mixed batch in the same structure and framework: NumPy for NumPy arrays (and for tensors of a
            framework that is neither TensorFlow nor Keras' backend). A list becomes a tuple, which `fit` takes.

        Raises:
            ValueError: if the batch has no labels, or cannot be mixed (see the class); if `partner` differs from it in
                more than its values, or the layer does not pair at random; if `first_row` does not begin a group.

        Example:
            >>> layer = kmix.MixUp(0.2, num_classes=3, seed=1)
            >>> x, y = layer.at_step(0, (np.ones((4, 2), "float32"), np.array([0, 1, 2, 1])))
            >>> y.shape
            (4, 3)
        """
        return _backend.untraced(self._at_step, step, batch, replica, partner, first_row)

    def _at_step(self, step, batch, replica, partner, first_row):
        step = check_number(step, "step", hint=STEP_FIRST)
        key = check_key(step, replica, self._within, first_row)
        if partner is not None:
            self._check_takes_second_batch()
            partner = check_labelled(partner)
        return self._mix(key, check_labelled(batch), partner)

    def _check_takes_second_batch(self):
        """Raise unless the partners may come from a second batch."""
        rule = to_pairing(self.pairing)
        if self._partners > 1 or type(rule) is not RandomPairs or not rule.allow_self:
            received = f"pairing={self.pairing!r}" if self._partners == 1 else f"{self.name}, which takes several"
            _checks.fail(
                "`partner=` brings one partner for each sample, any sample of the other batch.",
                received,
                'Use `MixUp` or `CutMix` with `pairing="random"`, or leave out `partner`.',
            )

    def plan(
        self,
        step: SupportsIndex,
        batch_size: SupportsIndex,
        replica: SupportsIndex = 0,
        *,
        spatial_shape: Sequence[int] | None = None,
        targets: Any = None,
        first_row: SupportsIndex | None = None,
    ) -> MixPlan:
        """The plan of one step as NumPy arrays: what the batch with that number is, or was, mixed with.

        What depends on the inputs (`padding_id` of a `CutMix`) is not in it.

        Args:
            step: Number of the batch, an int >= 0.
            batch_size: Number of samples in the batch.
            replica: As in `at_step`, an int in [0, 65536).
            spatial_shape: Sizes of the spatial axes, `(H, W)` for images. CutMix and Mosaic need it.
            targets: `y` of the batch, or for a dictionary batch the dictionary of its targets, with what is kept: for
                a rule of pairing that reads them, such as `"similar_labels"`.
            first_row: As in `at_step`, an int. Partners are counted from the first row of this batch.

        Returns:
            A `kmix.MixPlan` for the current alpha of the layer. `RandomChoice` adds `choice`, the index of
            the layer it drew.

        Example:
            >>> kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4).permutation
            array([2, 0, 3, 1], dtype=int32)
        """
        key = check_key(_checks.integer(step, "step"), replica, self._within, first_row)
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        values = self._values_at(_backend.NUMPY, key.step, None)
        return self._plan(key, values, batch_size, spatial_shape, targets)

    def _plan(self, key, values, batch_size, spatial_shape, targets):
        """The plan of a `PlanKey` as NumPy arrays."""

        def by_key():
            if targets is None:
                return {}
            reading = self._reading()._replace(input_mixing=None)
            named = dict.fromkeys(reading.input_keys(), ()) | (targets if isinstance(targets, dict) else {})
            batch = Batch.read(named if reading.is_batch(named) else ((), targets), reading)
            if batch.size() != batch_size:
                received = f"{batch.size()} rows for {batch_size} samples"
                _checks.fail("`targets` must have one row for each sample.", received)
            self._check_targets(batch)
            return batch.check_values().encode().by_key()

        if spatial_shape is not None:
            spatial_shape = check_spatial_shape(spatial_shape)
        plan = self._draw(_backend.NUMPY, key, values, batch_size, spatial_shape, by_key)
        permutation = _backend.values(_backend.namespace(plan.permutation).rows(plan.permutation))
        return plan._replace(permutation=permutation.astype("int32"))

    def fingerprint(self, step: SupportsIndex, batch_size: SupportsIndex) -> int:
        """A checksum of the settings and of what a step draws: equal in processes that mix alike.

        Log it, and compare it between processes and runs with one version of kmix: where it differs, so do batches. It
        holds the seed, the step, all settings that shape a batch, the layer that a `RandomChoice` draws, and the
        partners, unless a rule chooses them by their targets. A schedule or a function counts by its name and its own
        settings. Names, dtypes and lam, which rounds differently between processors, do not count.

        Args:
            step: Number of the batch, an int >= 0.
            batch_size: Number of samples in the global batch, of which every process may hold a part.

        Returns:
            An int in `[0, 2**32)`, the same with every framework, and for every number of processes and devices.

        Example:
            >>> kmix.MixUp(0.2, seed=1).fingerprint(step=0, batch_size=32) == kmix.MixUp(0.3, seed=1).fingerprint(0, 32)
            False
        """
        key = PlanKey(_checks.integer(step, "step"), group=self._group)
        batch_size = _checks.integer(batch_size, "batch_size", 1)
        return fingerprint([self, key.step, batch_size], *self._integers(key, batch_size))

    def _integers(self, key, batch_size):
        """The integers that a step draws, whatever the inputs and targets are."""
        if self._pairs_by_targets:
            return []
        # Any sizes: those of the inputs shape boxes and lam, not partners.
        axes = 1 + max([1, *(axis for cut in self.input_mixing.cut_axes() for axis in cut)])
        values = self._values_at(_backend.NUMPY, key.step, None)
        plan = self._plan(key, values, batch_size, (64,) * axes, None)
        return [part.source for part in plan.parts()[1:]]

    # Alpha.

    @property
    def alpha(self) -> ScalarOrSchedule:
        """Parameter of the Beta distribution, a float >= 0 or the schedule that the layer was given.

        A new number takes effect with the next batch drawn, even in a traced `tf.data` pipeline and in the worker
        processes of a loader; batches already prefetched keep the old one. A function compiled by `jax.jit` and a
        pickled copy, as Grain and Ray send to their workers, would not see the new number: from then on, setting a
        different alpha raises an error. A schedule of the step is exact everywhere.
        """
        if self._alpha is None:
            raise AttributeError(f"{type(self).__name__} has no alpha. {self._without_alpha()}")
        return self._alpha.value

    @alpha.setter
    def alpha(self, value: ScalarOrSchedule) -> None:
        self._check_alpha(value)
        self._alpha.set(value)

    def _check_alpha(self, value):
        """Return `value` as the alpha to set, or raise."""
        if self._alpha is None:
            _checks.fail(f"{type(self).__name__} has no alpha.", f"alpha={value!r}", self._without_alpha())
        return self._alpha.check(value)

    def _without_alpha(self):
        """What to set instead of alpha."""
        return ""

    # Config and copies.

    def _arguments(self):
        """The arguments of the constructor, as they were given."""
        return {name: getattr(self, name) for name in self._argument_names if name != "dtype"}

    def get_config(self) -> dict[str, Any]:
        config = {name: serialize(value) for name, value in self._arguments().items()}
        if "dtype" in self._argument_names:
            config["dtype"] = super().get_config()["dtype"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        layer = cls(**{name: value if name == "dtype" else deserialize(value) for name, value in config.items()})
        # Every config holds a seed, also one that was drawn.
        layer._store(_seed_given=False)
        return layer

    def __reduce__(self):
        memory = None if self._alpha is None else self._alpha.pickled()
        return _rebuild, (type(self), self._copied(), self._counter.count(), memory, self._counter.process)

    def __copy__(self):
        return _rebuild(type(self), self._copied(), self._counter.count())

    def __deepcopy__(self, memo):
        return _rebuild(type(self), copy.deepcopy(self._copied(), memo), self._counter.count())

    def _copied(self):
        """The arguments of a copy."""
        policy = {"dtype": self.dtype_policy} if "dtype" in self._argument_names else {}
        return {**self._arguments(), **policy}


def _rebuild(cls, arguments, count, memory=None, process=None):
    """Unpickle or copy a layer. In a worker process it can mix at a given step, but not count."""
    layer = cls(**arguments)
    layer._counter = _backend.Counter(count, copied=process is not None, process=process)
    if memory is not None:
        layer._alpha = Alpha(memory.value, memory)
    return layer
