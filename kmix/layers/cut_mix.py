"""CutMix: paste a box of one example into another."""

import keras

from kmix import _backend, _checks, mixing, plan
from kmix.layers.base import MixLayer


@keras.saving.register_keras_serializable(package="kmix")
class CutMix(MixLayer):
    """Pastes a box of one example into another and weighs the labels by the share of kept pixels.

    The weight of a label is the exact share of the pixels that stay after the box is clipped at the
    borders: an image painted with its own one-hot label has the mixed label as its mean.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step); the box has `1 - lam` of the area. 0 is the identity. Defaults to 1.0, as in the paper.
        num_classes: Number of classes. Needed if the labels are integer class ids.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`.
        per: `"sample"` draws one box for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting.
        passthrough: Keys of a dictionary batch to pass through unmixed.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: `name` and `dtype`, as for every Keras layer.

    Call arguments:
        x: Inputs of any dtype with one to three spatial axes: sequences `(B, T, C)`, images
            `(B, H, W, C)`, volumes and video `(B, D, H, W, C)`. A nested structure must share its spatial
            sizes. Instead of x and y also one tuple, or a dictionary with `"images"` and `"labels"`.
        y, sample_weight, training: As for `MixUp`.

    Attributes:
        fuse: Whether XLA may compile the mixing in tf.data, see `MixUp`.

    Returns:
        The batch in the same structure: inputs in their own dtype, labels and sample weights in float32.

    Raises:
        ValueError: if the inputs have no spatial axis, or more than three; and as `MixUp`, except that
            integer inputs are welcome.
        TypeError: if an argument is of the wrong type.

    Reference:
        S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", ICCV 2019, https://arxiv.org/abs/1905.04899

    Example:
    >>> layer = kmix.CutMix(num_classes=2, data_format="channels_last", seed=1)
    >>> x = np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))])
    >>> x, y = layer(x, np.array([0, 1]))
    >>> x.mean(axis=(1, 2, 3)) == y[:, 1]
    array([ True,  True])
    """

    def __init__(
        self,
        alpha=1.0,
        *,
        num_classes=None,
        labels="dense",
        per="sample",
        rate=1.0,
        data_format=None,
        passthrough=(),
        seed=None,
        **kwargs,
    ):
        settings = {"num_classes": num_classes, "labels": labels, "per": per, "rate": rate}
        super().__init__(alpha, passthrough=passthrough, seed=seed, **settings, **kwargs)
        self.data_format = _checks.one_of(
            data_format or keras.config.image_data_format(), "data_format", ("channels_last", "channels_first")
        )

    def _check(self, x):
        shapes = [_backend.static_shape(leaf) for leaf in keras.tree.flatten(x)]
        for shape in shapes:
            _checks.spatial(shape)
        _checks.same_spatial([[shape[a] for a in self._axes(shape)] for shape in shapes])

    def _axes(self, shape):
        return mixing.spatial_axes(len(shape), self.data_format)

    def _spatial_shape(self, xp, x):
        leaves = keras.tree.flatten(x)
        for axes in zip(*(self._axes(leaf.shape) for leaf in leaves), strict=True):
            xp.require_equal_sizes(list(zip(leaves, axes, strict=True)), _checks.SAME_SPATIAL)
        return [xp.size(leaves[0], axis) for axis in self._axes(leaves[0].shape)]

    def _mix_input(self, leaf, plan):
        return mixing.mix_inputs(leaf, plan, data_format=self.data_format)

    def _dtype_of(self, leaf):
        return _backend.dtype(leaf)

    def _draw(self, seed, step, alpha, batch_size, spatial_shape, **settings):
        spatial_shape = _checks.spatial_shape(spatial_shape)
        return plan.sample_cutmix(seed, step, alpha, batch_size, spatial_shape, **settings)

    def _arguments(self):
        return {**super()._arguments(), "data_format": self.data_format}
