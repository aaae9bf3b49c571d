"""EmbeddingMixup: blend embeddings, sentence vectors and hidden states."""

import contextvars

import keras

from kmix import _backend, _checks, mixing, plan
from kmix.layers.base import MixLayer, map_arrays
from kmix.layers.step import running

# The plan of the call that is running, for the mask that Keras asks for after it.
_CALL: contextvars.ContextVar[dict | None] = contextvars.ContextVar("kmix_call", default=None)


@keras.saving.register_keras_serializable(package="kmix")
class EmbeddingMixup(MixLayer):
    """Blends embeddings or hidden states of pairs of examples, and their labels. Padding masks are united.

    Inside of a model that a `MixTrainer` trains it stands behind an `Embedding` layer (wordMixup), behind
    the pooling of a sentence encoder (senMixup), or behind any hidden layer. In inference it is the
    identity.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step). 0 is the identity. Defaults to 0.2.
        num_classes: Number of classes. Needed if the labels are integer class ids; a `MixTrainer` can
            often infer it.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`.
        per: `"sample"` draws one lam for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        x: Float tensors: token embeddings `(B, T, D)`, vectors `(B, D)`, hidden states `(B, ...)`, or a
            nested structure of them. The Keras mask of x goes on as `mask | mask[permutation]`. Boolean
            tensors in a structure are masks of your own and are mixed the same way.
        y, sample_weight, training: As for `MixUp`. In a model x stands alone.

    Attributes:
        fuse: Whether XLA may compile the mixing in tf.data, see `MixUp`.

    Returns:
        The same structure: x in the compute dtype of the layer, masks boolean, labels and sample weights
        in float32.

    Raises:
        ValueError: if x holds integers, or stands alone in training outside of a `MixTrainer`; and as
            `MixUp`.
        TypeError: if an argument is of the wrong type.

    Reference:
        H. Guo, Y. Mao, R. Zhang, "Augmenting Data with Mixup for Sentence Classification: An Empirical
        Study", https://arxiv.org/abs/1905.08941;
        V. Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
        https://arxiv.org/abs/1806.05236

    Example:
    >>> model = keras.Sequential([
    ...     keras.Input((5,), dtype="int32"),
    ...     keras.layers.Embedding(100, 8, mask_zero=True),
    ...     kmix.EmbeddingMixup(0.2, seed=1),
    ...     keras.layers.GlobalAveragePooling1D(),
    ...     keras.layers.Dense(3, activation="softmax"),
    ... ])
    >>> trainer = kmix.MixTrainer(model)
    >>> trainer.compile("adam", loss=kmix.losses.SoftLabelCrossentropy())
    >>> history = trainer.fit(np.array([[4, 2, 7, 0, 0], [1, 9, 0, 0, 0]]), np.array([2, 0]), verbose=0)
    """

    _fits_in_models = True

    def __init__(self, alpha=0.2, *, num_classes=None, labels="dense", per="sample", rate=1.0, seed=None, **kwargs):
        super().__init__(alpha, num_classes=num_classes, labels=labels, per=per, rate=rate, seed=seed, **kwargs)
        self.supports_masking = True
        self._mask = MixMask(name=f"{self.name}_mask")

    def __call__(self, *args, **kwargs):
        token = _CALL.set({})
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _CALL.reset(token)

    def compute_mask(self, inputs, previous_mask):
        call = _CALL.get() or {}
        if "plan" in call:
            return map_arrays(lambda mask: mixing.mix_masks(mask, call["plan"]), previous_mask)
        return map_arrays(self._mask, previous_mask)

    def _plan(self, xp, draw, batch_size, spatial_shape=None):
        drawn = super()._plan(xp, draw, batch_size, spatial_shape)
        call = _CALL.get()
        if call is not None:
            call["plan"] = drawn
        return drawn

    def _check(self, x):
        leaves = [leaf for leaf in keras.tree.flatten(x) if _backend.dtype(leaf) != "bool"]
        for leaf in leaves:
            _checks.embedding(_backend.dtype(leaf))
        if not leaves:
            _checks.fail("x must hold float tensors.", "boolean tensors alone")

    def _mix_input(self, leaf, plan):
        if _backend.dtype(leaf) == "bool":
            return mixing.mix_masks(leaf, plan)
        return super()._mix_input(leaf, plan)

    def _dtype_of(self, leaf):
        return "bool" if _backend.dtype(leaf) == "bool" else super()._dtype_of(leaf)

    def _draw(self, seed, step, alpha, batch_size, spatial_shape, **settings):
        return plan.sample_mixup(seed, step, alpha, batch_size, stream=plan.EMBEDDING, **settings)

    def _arguments(self):
        arguments = super()._arguments()
        del arguments["passthrough"]
        return arguments


@keras.saving.register_keras_serializable(package="kmix")
class MixMask(keras.layers.Layer):
    """The padding mask of what an `EmbeddingMixup` mixed.

    Keras computes masks when it builds a graph. So this mask is the output of a layer, which reads the
    plan when it runs.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True

    def call(self, mask, training=None):
        step = running() if training else None
        return mask if step is None or step.plan is None else mixing.mix_masks(mask, step.plan)

    def compute_output_spec(self, mask, training=None):
        return keras.KerasTensor(mask.shape, dtype=mask.dtype)
