"""EmbeddingMixup: blend embeddings, sentence vectors and hidden states."""

import keras

from kmix.batch import inputs_of, is_labelled, with_inputs
from kmix.layers.keras_masks import MixMask, masks_of, set_masks
from kmix.layers.mix_layer import MixLayer
from kmix.plan import sample_mixup, streams
from kmix.targets import Embeddings


@keras.saving.register_keras_serializable(package="kmix")
class EmbeddingMixup(MixLayer):
    """Blends embeddings or hidden states of pairs of examples, and their labels. Unites padding masks.

    In a model that a `MixTrainer` trains, place it after an `Embedding` layer (wordMixup), after
    the pooling of a sentence encoder (senMixup), or after any hidden layer. In inference it is the
    identity.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step). 0 is the identity. Defaults to 0.2.
        num_classes: Number of classes, or a structure, see `MixUp`. Needed if the labels are integer class ids; a
            `MixTrainer` can often infer it.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`.
        target: What `y` is, see `MixUp`.
        per: `"sample"` draws one lam for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all.
        pairing, bandwidth, pairing_by, derange: How to choose partners, see `MixUp`.
        dominant: Whether to take `max(lam, 1 - lam)` for lam, see `MixUp`.
        keep_clean: Whether to return the clean samples before the mixed ones, see `MixUp`.
        class_weight: Weights of the classes, see `MixUp`.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: The arguments that kinds of targets add, see `MixUp`; `name` and `dtype`, as for every Keras layer.

    Call arguments:
        x: Float tensors: token embeddings `(B, T, D)`, vectors `(B, D)`, hidden states `(B, ...)`, or a
            nested structure of them. The Keras mask of x becomes `mask | mask[permutation]`. Boolean
            tensors in a structure are your own masks and are united in the same way.
        y, sample_weight, training: As for `MixUp`. In a model x stands alone.

    Attributes:
        fuse: Whether the mixing may be compiled and use several threads, see `MixUp`.

    Returns:
        The same structure: x in the compute dtype of the layer, masks boolean, labels and sample weights
        in float32.

    Raises:
        ValueError: if x holds integers, or has no labels in training outside a `MixTrainer`; and as for
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

    fits_in_models = True

    def __init__(
        self,
        alpha=0.2,
        *,
        num_classes=None,
        labels="dense",
        target=None,
        per="sample",
        rate=1.0,
        pairing="batch",
        bandwidth=0.5,
        pairing_by=None,
        derange=False,
        dominant=False,
        keep_clean=False,
        class_weight=None,
        seed=None,
        **kwargs,
    ):
        settings = {"num_classes": num_classes, "labels": labels, "target": target, "class_weight": class_weight}
        partners = {"pairing": pairing, "bandwidth": bandwidth, "pairing_by": pairing_by, "derange": derange}
        settings |= {**partners, "dominant": dominant, "keep_clean": keep_clean}
        super().__init__(alpha, per=per, rate=rate, seed=seed, **settings, **kwargs)
        self.supports_masking = True
        self._mask = MixMask(name=f"{self.name}_mask")

    @property
    def inputs(self):
        return Embeddings(self.compute_dtype)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, **settings):
        return sample_mixup(seed, step, alpha, batch_size, stream=streams.EMBEDDING, **settings)

    def mix_batch(self, key, batch, partner=None):
        x = inputs_of(batch)
        masks = masks_of(x)
        if not masks:
            return super().mix_batch(key, batch, partner)
        if partner is not None:
            others = inputs_of(partner)
            partner = with_inputs(partner, {"x": others, "masks": masks_of(others)})
        # Mix the masks that Keras holds for tensors along with them, in the same program.
        mixed = super().mix_batch(key, with_inputs(batch, {"x": x, "masks": masks}), partner)
        return with_inputs(mixed, set_masks(**inputs_of(mixed)))

    def compute_mask(self, inputs, previous_mask):
        # `mix_batch` has set the masks of a labelled batch.
        if is_labelled(inputs):
            return None
        return keras.tree.map_structure(lambda mask: None if mask is None else self._mask(mask), previous_mask)

    def arguments(self):
        arguments = super().arguments()
        del arguments["passthrough"]
        return arguments
