"""MixUp: blend pairs of examples."""

from typing import Any

import keras

from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import Blend, InputMixing
from kmix.plan import MixPlan, sample_mixup


@keras.saving.register_keras_serializable(package="kmix")
class MixUp(MixLayer):
    """Blends pairs of examples and their labels: `lam * x_i + (1 - lam) * x_j`, the same for `y`.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step). 0 is the identity, 0.1 to 0.4 keeps most of each image, 1 is uniform. Defaults to 0.2.
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
        name, dtype: As for every Keras layer. Inputs come out in the compute dtype.

    Call arguments:
        x: Inputs: tensors `(B, ...)` of any rank, float or uint8, or a nested structure of them.
        y: Labels, in any structure. Class ids `(B,)` or `(B, 1)` are one-hot encoded; float and multi-hot labels
            `(B, C)` are mixed as they are. Anything of higher rank needs `target`.
        sample_weight: Sample weights `(B,)`, or with more of the leading axes of the labels, mixed so that a loss
            linear in `y` is the weighted pair of losses.
        training: `False` returns the batch as it is. By default, a batch with labels is mixed.

    A single argument is a dictionary with `inputs_key` and a target, or the inputs of a model. Only `alpha` can be set
    after the layer was built.

    Returns:
        The batch in the same structure: inputs in the compute dtype of the layer (float32 by default),
        labels and sample weights in float32.

    Raises:
        ValueError: if inputs are integers other than uint8, or come without labels outside a model; if class ids
            come without `num_classes`, or lie outside `[0, num_classes)` (if their values can be read); if labels have
            three or more axes and `target` does not say what they are; if the batch sizes differ, or there is no batch
            axis; if a tensor is ragged or sparse.
        TypeError: if an argument is of the wrong type.

    Reference:
        H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization",
        ICLR 2018, https://arxiv.org/abs/1710.09412

    Example:
        >>> layer = kmix.MixUp(alpha=0.4, num_classes=3, seed=1)
        >>> x, y = layer(np.eye(4, dtype="float32"), np.array([0, 1, 2, 0]))
        >>> y.round(2)
        array([[1.  , 0.  , 0.  ],
               [0.03, 0.97, 0.  ],
               [0.66, 0.  , 0.34],
               [0.08, 0.92, 0.  ]], dtype=float32)
    """

    fits_in_models = True

    @property
    def input_mixing(self) -> InputMixing:
        return Blend(self.compute_dtype)

    def sample(self, seed: int, step: Any, alpha: Any, batch_size: Any, spatial_shape: Any, **settings: Any) -> MixPlan:
        return sample_mixup(seed, step, alpha, batch_size, **settings)
