"""A mixer with one alpha and one plan for each batch."""

import keras

from kmix import _backend, _checks
from kmix.batch import LABELS
from kmix.layers import partners
from kmix.layers.batch_layer import BatchLayer
from kmix.plan import MixPlan

tree = keras.tree


_OWN = ("alpha", "per", "rate", *partners.PAIRING, "derange", "dominant")


class MixLayer(BatchLayer):
    """A layer that draws its plan with one alpha. A subclass implements `sample` and `inputs`.

    Args:
        alpha: Parameter of the Beta distribution, a float >= 0 or a schedule.
        per: `"sample"` or `"batch"`.
        rate: Probability in [0, 1] that a sample is mixed at all.
        pairing, bandwidth, pairing_by, derange, dominant: See `MixUp`.
        **kwargs: `num_classes`, `labels`, `target`, `class_weight`, `keep_clean`, `passthrough`, `seed`, and `name`
            and `dtype`.

    Raises:
        ValueError: if `alpha` is negative, `per` or `pairing` unknown, `rate` outside [0, 1], or `bandwidth` not
            positive.
        TypeError: if an argument has the wrong type.

    Example: a mixer that pastes the bottom rows of the partner.

    >>> from typing import Any, NamedTuple
    >>> class Rows(NamedTuple):
    ...     first: Any
    ...     def paste(self, xp, x, permutation, axes):
    ...         row = xp.reshape(xp.arange(xp.size(x, 1)), (1, -1) + (1,) * (len(x.shape) - 2))
    ...         return xp.where(row < xp.along(self.first, x), x, xp.take(x, permutation))
    >>> class RowMix(kmix.layers.MixLayer):
    ...     inputs = kmix.targets.Pasted("channels_last")
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

    def __init__(
        self,
        alpha=1.0,
        *,
        per="sample",
        rate=1.0,
        pairing="batch",
        bandwidth=0.5,
        pairing_by=None,
        derange=False,
        dominant=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.per = _checks.one_of(per, "per", ("sample", "batch"))
        self.rate = _checks.real(rate, "rate", 0.0, 1.0)
        for name, value in partners.check_pairing(pairing, bandwidth, pairing_by).items():
            setattr(self, name, value)
        self.derange, self.dominant = _checks.boolean(derange, "derange"), _checks.boolean(dominant, "dominant")
        alpha = _checks.alpha(alpha)
        self._alpha = alpha if callable(alpha) else _backend.Cell(alpha)
        self._traced = self._frozen = False

    def sample(self, seed, step, alpha, batch_size, spatial_shape, *, per, rate, replica, shards, xp) -> MixPlan:
        """Draw the plan of one batch: a pure function. Override this.

        Args:
            seed: Python int in `[0, 2**32)`.
            step: Number of the batch: int or integer scalar tensor.
            alpha: Float or float32 scalar tensor.
            batch_size: Number of samples, an int or a scalar tensor.
            spatial_shape: Sizes of the spatial axes, from `inputs`; None if there are none.
            per, rate, replica, shards, xp: As in `kmix.plan.sample_mixup`. `dominant=True` comes with them if the layer
                has that setting.

        Returns:
            A `kmix.MixPlan`. Its `lam` is the share of the sample in its label.
        """
        raise NotImplementedError

    @property
    def alpha(self):
        """Parameter of the Beta distribution: a float >= 0, or the schedule that the layer was given.

        A new number takes effect with the next batch drawn, even in a traced `tf.data` pipeline and in the worker
        processes of a loader; batches already prefetched keep the old one. A function compiled by `jax.jit` and a
        pickled copy, as Grain and Ray send to their workers, would not see the new number: from then on, setting a
        different alpha raises an error. A schedule of the step is exact everywhere.
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
        """Return `value` as the alpha to set, or raise."""
        value = _checks.alpha(value)
        if not isinstance(self._alpha, _backend.Cell):
            _checks.fail(
                "`alpha` of this layer follows a schedule, which sets it for each step.",
                f"alpha={value!r}",
                "To set alpha yourself, build the layer with a number.",
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
                "Build the layer with a schedule of the step, or call `at_step` outside `jax.jit`.",
            )
        else:
            self._alpha.check(value)
        return value

    def pickled(self):
        return self._alpha.pickled() if isinstance(self._alpha, _backend.Cell) else None

    def unpickle(self, count, memory, process):
        super().unpickle(count, memory, process)
        if memory is not None:
            self._alpha = _backend.Cell(memory.value, memory)

    def share_alpha(self, weight, refresh):
        """Keep alpha in a weight of a trainer as well. `refresh` brings that weight up to date."""
        # A schedule would come too late for a compiled training step.
        self._traced = True
        self._alpha.share(weight, refresh)

    def sample_plan(self, xp, key, batch_size, spatial_shape=None):
        alpha = key.alphas[self] if self in key.alphas else self._alpha_at(xp, key.step)
        settings = {"per": self.per, "rate": self.rate, "replica": key.replica, "shards": key.shards, "xp": xp}
        if self.dominant:
            settings["dominant"] = True
        alpha = 0.0 if key.clean else alpha
        plan = self.sample(key.seed_of(self), key.step, alpha, batch_size, spatial_shape, **settings)
        return partners.pair(xp, key, plan, self)

    def check_partners(self, xp, targets, given=None):
        setting = partners.pairing_of(self, given or {})
        if setting["pairing"] == "label":
            label = partners.label_of(targets.get(LABELS), setting["pairing_by"])
            if xp is not None:
                partners.check_label(xp, label)

    def check_takes_partner(self):
        for name, value, other in (("pairing", self.pairing, "batch"), ("derange", self.derange, False)):
            if value != other:
                _checks.fail(
                    "With `partner=`, a plan pairs each sample with any sample of the other batch.",
                    f"a layer with `{name}={value!r}`",
                    f"Leave out `{name}`.",
                )

    def alphas(self, xp, key, leaf):
        self._traced |= _backend.is_symbolic(leaf)
        if self in key.alphas:
            return key.alphas
        self._frozen |= _backend.is_jax_tracer(leaf) and isinstance(self._alpha, _backend.Cell)
        return {self: self._alpha_at(xp, key.step)}

    def _alpha_at(self, xp, step):
        """Alpha as it is, or the value of the schedule. Any error in the schedule gets the same wording."""
        if isinstance(self._alpha, _backend.Cell):
            return self._alpha.read(xp)
        try:
            alpha = xp.evaluate(self._alpha, step)
        except Exception as error:
            raise ValueError(
                f"`alpha={self._alpha!r}` could not be evaluated at a step of type {type(step).__name__}: {error}. In "
                "a graph, a schedule must be arithmetic on the step, without Python's `if`, `min` or `max`. The "
                "schedules in `kmix.schedules` work everywhere; `Join` combines them."
            ) from error
        if len(alpha.shape):
            _checks.fail("A schedule must return a single number.", f"alpha of shape {tuple(alpha.shape)}")
        return alpha

    def arguments(self):
        return {**super().arguments(), **{name: getattr(self, name) for name in _OWN}}
