"""EmbeddingMixup: blend embeddings, sentence vectors and hidden states."""

from typing import Any

import keras

from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import BlendEmbeddings, InputMixing
from kmix.layers.keras_masks import MixMask, masks_of, set_masks
from kmix.plan import MixPlan, sample_mixup, streams


@keras.saving.register_keras_serializable(package="kmix")
class EmbeddingMixup(MixLayer):
    """Blends embeddings or hidden states of pairs of examples, and their labels. Unites padding masks.

    In a model that a `MixTrainer` trains, place it after an `Embedding` layer (wordMixup), after
    the pooling of a sentence encoder (senMixup), or after any hidden layer. In inference it is the
    identity.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step). 0 is the identity. Defaults to 0.2.
        num_classes, target: What `y` is, see `MixUp`. A `MixTrainer` can often infer `num_classes`.
        pairing, per, rate, lam_at_least_half, include_clean, inputs_key, jit_compile, seed, name, dtype: See `MixUp`.

    Call arguments:
        x: Float tensors: token embeddings `(B, T, D)`, vectors `(B, D)`, hidden states `(B, ...)`, or a
            nested structure of them. The Keras mask of x becomes `mask | mask[permutation]`. Boolean
            tensors in a structure are your own masks and are united in the same way.
        y, sample_weight, training: As for `MixUp`. In a model x stands alone.

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
    _mask: Any = None

    @property
    def input_mixing(self) -> InputMixing:
        return BlendEmbeddings(self.compute_dtype)

    def sample(self, seed: int, step: Any, alpha: Any, batch_size: Any, spatial_shape: Any, **settings: Any) -> MixPlan:
        return sample_mixup(seed, step, alpha, batch_size, stream=streams.EMBEDDING, **settings)

    def _read(self, batch):
        """The batch, with the masks that Keras holds for its inputs mixed along with them, in the same program."""
        given = super()._read(batch)
        masks = masks_of(given.inputs)
        if not masks:
            return given

        def assemble(mixed):
            return given.assemble(mixed._replace(inputs=set_masks(**mixed.inputs)))

        return given._replace(inputs={"x": given.inputs, "masks": masks}, assemble=assemble)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        if self._mask is None:
            # Without weights, so nothing to track.
            self._store(_mask=MixMask(name=f"{self.name}_mask"))
        return keras.tree.map_structure(lambda mask: None if mask is None else self._mask(mask), previous_mask)
