"""MixUp: blend pairs of examples."""

import keras

from kmix.layers.mix_layer import MixLayer
from kmix.plan import sample_mixup
from kmix.targets import Blended


@keras.saving.register_keras_serializable(package="kmix")
class MixUp(MixLayer):
    """Blends pairs of examples and their labels: `lam * x_i + (1 - lam) * x_j`, the same for `y`.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step). 0 is the identity, 0.1 to 0.4 keeps most of each image, 1 is uniform. Defaults to 0.2.
        num_classes: Number of classes. Needed if the labels are integer class ids. For several labels, a structure
            that matches them: `{"root": 7, "vowel": 3}`. Labels without an entry are not class ids.
        labels: `"dense"`, or `"pair"` for very many classes. Pairs are labels `(B, 3)` instead of
            `(B, num_classes)`: the class of the sample, the class of its partner, and the label weight of the
            sample. `SoftLabelCrossentropy` and the metrics of kmix read both. Pairs need class ids, and
            3 < `num_classes` <= `2**24`; up to there float32 holds every id exactly.
        target: What `y` is, and therefore how it follows the plan: `"labels"`; `"union"`, the larger value of the
            partners, for tags such as sounds heard together; `"keep"` for what belongs to the sample alone;
            `"segmentation_masks"` and `"bounding_boxes"`; a callable `(y, plan) -> y`; or a structure of these that
            matches `y`. Defaults to labels, but `y` that may be something else raises an error. In a dictionary batch,
            `target` describes `"labels"`.
        per: `"sample"` draws one lam for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all.
        pairing: `"batch"` draws partners at random from the whole batch. `"label"` prefers partners with similar
            labels, for regression (C-Mixup): sample `j` for sample `i` with a probability proportional to
            `exp(-|y_i - y_j|**2 / (2 * bandwidth**2))`. It needs float labels `(B,)` or `(B, C)`, and time and memory
            for `B * B` distances.
        bandwidth: For `pairing="label"`: how similar, in standard deviations of the label within the batch (of each
            column). A number > 0, by default 0.5.
        pairing_by: For `pairing="label"` with several labels: the key (or index) of the label to compare.
        derange: Whether to make sure that no sample is its own partner.
        dominant: Whether to take `max(lam, 1 - lam)` for lam, so that no sample is outweighed by its partner.
        keep_clean: Whether to return a batch of twice the size: the clean samples, encoded in the same way, and then
            the mixed ones (RegMixup). Keys in `passthrough` are doubled as well.
        class_weight: Dictionary from class numbers to weights. It multiplies the sample weights before they are
            mixed, and creates them if there are none. Classes without an entry have the weight 1.
        passthrough: Keys of a dictionary batch to pass through unmixed.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: For labels with gaps, `missing="nan"`: NaN in float labels of several tasks is not known. A mixed
            label keeps what the other partner knows, and weights of the entries come along as sample weights: `(B, C)`
            for labels `(B, C)`, and in the structure of the labels if there are several. For masks,
            `num_mask_classes` and `ignore_class`. For boxes, `bounding_box_format`, `max_boxes`, `min_visibility` and
            `bounding_box_weights`; see `kmix.targets.SegmentationMasks` and `kmix.targets.BoundingBoxes`. Also `name`
            and `dtype`, as for every Keras layer.

    Call arguments:
        x: Inputs: tensors `(B, ...)` of any rank, float or uint8, or a nested structure of them. Instead
            of x and y, pass one tuple, or a dictionary with `"images"` and `"labels"`.
        y: Labels, in any structure. Class ids `(B,)` or `(B, 1)` are one-hot encoded; float and multi-hot labels
            are mixed as they are.
        sample_weight: Sample weights `(B,)`, or with more of the leading axes of the labels, mixed so that a loss
            linear in `y` is the weighted pair of losses.
        training: `False` returns the batch as it is. By default, a batch with labels is mixed.

    Attributes:
        fuse: Whether the mixing may be compiled, in tf.data and in eager code, and use several threads. Defaults to
            `True`. Set it to `False`, in tf.data before you map a data set, to mix with plain operations: slower,
            but the same batch.

    Returns:
        The batch in the same structure: inputs in the compute dtype of the layer (float32 by default),
        labels and sample weights in float32.

    Raises:
        ValueError: if inputs are integers other than uint8, or come without labels in training; if class ids
            come without `num_classes`, or lie outside `[0, num_classes)` (if their values can be read); if labels may
            be something else and `target` does not say what they are, or `pairing="label"` cannot compare them; if the
            batch sizes differ, or there is no batch axis; if a tensor is ragged or sparse.
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
        passthrough=(),
        seed=None,
        **kwargs,
    ):
        settings = {"num_classes": num_classes, "labels": labels, "target": target, "class_weight": class_weight}
        partners = {"pairing": pairing, "bandwidth": bandwidth, "pairing_by": pairing_by, "derange": derange}
        settings |= {**partners, "dominant": dominant, "keep_clean": keep_clean}
        super().__init__(alpha, per=per, rate=rate, passthrough=passthrough, seed=seed, **settings, **kwargs)

    @property
    def inputs(self):
        return Blended(self.compute_dtype)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, **settings):
        return sample_mixup(seed, step, alpha, batch_size, **settings)
