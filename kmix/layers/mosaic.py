"""Mosaic: four images in one."""

import keras

from kmix import _backend, _checks
from kmix.layers.batch_layer import BatchLayer
from kmix.mixing import Quadrants
from kmix.plan import sample_mosaic
from kmix.targets import Pasted
from kmix.targets.pasted import check_data_format, check_spatial_shape

_NOT_HERE = ("alpha", "per", "dominant", "derange", "pairing", "bandwidth", "pairing_by", "axes", "padding_id")


class Tiled(Pasted):
    """Images of which four show in each mixed one."""

    images_shown = 4

    def pasted(self, x):
        for shape in map(_backend.static_shape, keras.tree.flatten(x)):
            if shape is not None:
                _check_images(len(shape) - 2, f"x of shape {shape}")
        return super().pasted(x)


@keras.saving.register_keras_serializable(package="kmix")
class Mosaic(BatchLayer):
    """Puts four images around a random centre, and weights their labels by their shares of the pixels.

    The sample lies at the top left, and three partners lie at the top right, the bottom left and the bottom right. No
    image is resized: each shows the corner that meets the centre. Segmentation masks move along; bounding boxes move,
    and are clipped to the part of their image that shows. Labels and sample weights are weighted by the exact shares.

    A Mosaic has no alpha: the centre is uniform in the middle half of the height and of the width.

    Args:
        num_classes: Number of classes, or a structure, see `MixUp`. Needed if the labels are integer class ids.
        labels: Only `"dense"`: pairs have no room for four classes.
        target: What `y` is, see `MixUp`.
        rate: Probability in [0, 1] that a sample is mixed at all.
        class_weight: Weights of the classes, see `MixUp`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting.
        keep_clean: Whether to return the clean samples before the mixed ones, see `MixUp`.
        passthrough: Keys of a dictionary batch to pass through unmixed.
        seed: Integer in `[0, 2**32)`. Drawn from Python's `random` by default.
        **kwargs: The arguments that kinds of targets add, see `MixUp`; `name` and `dtype`, as for every Keras layer.

    Call arguments:
        x: Images `(B, H, W, C)` of any dtype, or a structure of such images with the same height and width. Instead of
            x and y, pass one tuple, or a dictionary with `"images"` and its targets.
        y, sample_weight, training: As for `MixUp`.

    Attributes:
        fuse: Whether the mixing may be compiled and use several threads, see `MixUp`.

    Returns:
        The batch in the same structure: images in their own dtype, labels and sample weights in float32.

    Raises:
        ValueError: if x holds no images, if labels are pairs, if `y` is a kind of target that is not made for
            several partners; and as for `MixUp`, except that integer images are allowed.
        TypeError: if an argument is of the wrong type, or belongs to another mixer, such as `alpha`.

    Reference:
        A. Bochkovskiy, C.-Y. Wang, H.-Y. M. Liao, "YOLOv4: Optimal Speed and Accuracy of Object Detection",
        https://arxiv.org/abs/2004.10934

    Example:
    >>> layer = kmix.Mosaic(num_classes=4, data_format="channels_last", seed=1)
    >>> x = np.eye(4, dtype="float32")[:, None, None] * np.ones((4, 8, 8, 1), "float32")
    >>> x, y = layer(x, np.arange(4))
    >>> bool(np.allclose(x.mean(axis=(1, 2)), y))
    True
    """

    def __init__(
        self,
        *,
        num_classes=None,
        labels="dense",
        target=None,
        rate=1.0,
        class_weight=None,
        data_format=None,
        passthrough=(),
        keep_clean=False,
        seed=None,
        **kwargs,
    ):
        for name in _NOT_HERE:
            if name in kwargs:
                _checks.fail(
                    f"A Mosaic has no `{name}`.", f"{name}={kwargs[name]!r}", f"Leave it out. {_CENTRE}", TypeError
                )
        if labels == "pair":
            _checks.fail(
                "A Mosaic mixes the labels of four images, and a pair has room for two.",
                'labels="pair"',
                "Leave it out: dense labels `(B, num_classes)`.",
            )
        settings = {"num_classes": num_classes, "labels": labels, "target": target, "class_weight": class_weight}
        super().__init__(keep_clean=keep_clean, passthrough=passthrough, seed=seed, **settings, **kwargs)
        self.rate = _checks.real(rate, "rate", 0.0, 1.0)
        self.data_format = check_data_format(data_format)

    @property
    def alpha(self):
        """Not available: a Mosaic draws no lam."""
        raise AttributeError(f"A Mosaic has no alpha. {_CENTRE}")

    @alpha.setter
    def alpha(self, value):
        self.check_alpha(value)

    def check_alpha(self, value):
        """Raise: a Mosaic has no alpha to set."""
        _checks.fail("A Mosaic has no alpha.", f"alpha={value!r}", _CENTRE)

    @property
    def inputs(self):
        return Tiled(self.data_format)

    def sample_plan(self, xp, key, batch_size, spatial_shape=None):
        size = check_spatial_shape(spatial_shape)
        _check_images(len(size), f"spatial_shape={spatial_shape}")
        settings = {"rate": 0.0 if key.clean else self.rate, "replica": key.replica, "shards": key.shards, "xp": xp}
        plan = sample_mosaic(key.seed_of(self), key.step, batch_size, size, **settings)
        centre, partners = plan.region
        return plan._replace(region=Quadrants(centre, partners, size))

    def alphas(self, xp, key, leaf):
        return {}

    def arguments(self):
        return {**super().arguments(), "rate": self.rate, "data_format": self.data_format}


_CENTRE = "Its centre is uniform in the middle half of each axis, and `rate` says how many samples are mixed."


def _check_images(axes, received):
    if axes != 2:
        _checks.fail("A Mosaic puts images (B, H, W, C) together.", received)
