"""CutMix: paste a box of one example into another."""

import keras

from kmix import _checks
from kmix.layers.mix_layer import MixLayer
from kmix.plan import sample_cutmix
from kmix.targets import Pasted
from kmix.targets.pasted import check_data_format, check_spatial_shape


@keras.saving.register_keras_serializable(package="kmix")
class CutMix(MixLayer):
    """Pastes a box of one example into another and weights the labels by the share of kept pixels.

    The weight of a label is the exact share of the pixels kept after the box is clipped at the borders. If
    each image is painted with its own one-hot label, the mean of a mixed image is its mixed label.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step); the box has `1 - lam` of the area. 0 is the identity. Defaults to 1.0, as in the paper.
        num_classes: Number of classes, or a structure, see `MixUp`. Needed if the labels are integer class ids.
        labels: `"dense"`, or `"pair"` for very many classes, see `MixUp`.
        target: What `y` is, see `MixUp`. Labels with the spatial axes of the inputs raise an error, unless `target`
            says that they are masks.
        per: `"sample"` draws one box for each sample, `"batch"` one for the whole batch.
        rate: Probability in [0, 1] that a sample (or a batch, with `per="batch"`) is mixed at all.
        pairing, bandwidth, pairing_by, derange: How to choose partners, see `MixUp`.
        dominant: Whether to take `max(lam, 1 - lam)` for lam, see `MixUp`.
        keep_clean: Whether to return the clean samples before the mixed ones, see `MixUp`.
        class_weight: Weights of the classes, see `MixUp`.
        axes: The axes of x to cut, an int or ints >= 1: `axes=1` cuts spectrograms `(B, T, F, 1)` in time alone, and
            `axes=(2, 3)` video `(B, T, H, W, C)` in space alone. By default, all spatial axes. If they name the axis
            where the channels would be, x has no channels: waves and token ids `(B, T)` with `axes=1`, images
            `(B, H, W)` with `axes=(1, 2)`.
        padding_id: For token ids `(B, T)`, the id of padding: the label weight is then the share of the real tokens
            that are the sample's own. `plan` does not see them, and gives the share of the positions.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting. Set it to confirm
            that float inputs of rank 3 are sequences `(B, T, C)`.
        passthrough: Keys of a dictionary batch to pass through unmixed.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: The arguments that kinds of targets add, see `MixUp`; `name` and `dtype`, as for every Keras layer.

    Call arguments:
        x: Inputs of any dtype with one to three spatial axes: sequences `(B, T, C)`, images
            `(B, H, W, C)`, volumes and video `(B, D, H, W, C)`. The box cuts every spatial axis, unless `axes` says
            otherwise. Clips `(B, T, C, H, W)` have their channels in neither place: transpose them. The tensors of a
            nested structure must share their spatial sizes. Instead of x and y, pass one tuple, or a dictionary with
            `"images"` and `"labels"`.
        y, sample_weight, training: As for `MixUp`.

    Attributes:
        fuse: Whether the mixing may be compiled and use several threads, see `MixUp`.

    Returns:
        The batch in the same structure: inputs in their own dtype, labels and sample weights in float32.

    Raises:
        ValueError: if the inputs have no spatial axis, or more than three; and as for `MixUp`, except that
            integer inputs are allowed.
        TypeError: if an argument is of the wrong type.

    Warns:
        UserWarning: if float inputs of rank 3 have more than 4 channels and `data_format` is not set: images
            without a channel axis would be cut in full-width stripes.

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
        axes=None,
        padding_id=None,
        data_format=None,
        passthrough=(),
        seed=None,
        **kwargs,
    ):
        settings = {"num_classes": num_classes, "labels": labels, "target": target, "class_weight": class_weight}
        partners = {"pairing": pairing, "bandwidth": bandwidth, "pairing_by": pairing_by, "derange": derange}
        settings |= {**partners, "dominant": dominant, "keep_clean": keep_clean}
        super().__init__(alpha, per=per, rate=rate, passthrough=passthrough, seed=seed, **settings, **kwargs)
        # Setting it also confirms that sequences (B, T, C) are meant, not images without channels.
        self._confirmed = data_format is not None or axes is not None
        self.axes = _check_axes(axes)
        self.padding_id = None if padding_id is None else _checks.integer(padding_id, "padding_id", -(2**31))
        self.data_format = check_data_format(data_format)

    @property
    def inputs(self):
        return Pasted(self.data_format, self._confirmed, self.axes, self.padding_id)

    def sample(self, seed, step, alpha, batch_size, spatial_shape, **settings):
        sizes, cut = check_spatial_shape(spatial_shape), None
        if self.axes is not None:
            # The first spatial axis follows the batch, or the channels if they come first and are there.
            first = 2 if self.data_format == "channels_first" and 1 not in self.axes else 1
            cut = [axis - first for axis in self.axes]
            if max(cut) >= len(sizes):
                _checks.fail("`axes` must be spatial axes.", f"axes={self.axes} for spatial_shape={spatial_shape}")
        return sample_cutmix(seed, step, alpha, batch_size, sizes, cut=cut, **settings)

    def arguments(self):
        own = {"axes": None if self.axes is None else list(self.axes), "padding_id": self.padding_id}
        return {**super().arguments(), **own, "data_format": self.data_format}


def _check_axes(axes):
    """Return the axes to cut as a tuple, or None, or raise."""
    if axes is None:
        return None
    axes = tuple(_checks.integer(axis, "axes", 1) for axis in (axes if isinstance(axes, (list, tuple)) else [axes]))
    if not axes or len(set(axes)) < len(axes):
        _checks.fail("`axes` must name axes of x, each once.", f"axes={axes}", "For example `axes=1`.")
    return axes
