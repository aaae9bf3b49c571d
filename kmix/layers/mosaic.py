"""Mosaic: four images in one."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _checks
from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import InputMixing, PasteImages, check_data_format
from kmix.pairing import Pairing
from kmix.plan import MixPlan, sample_mosaic
from kmix.typing import DataFormat, PairingLike, Per, ScalarOrSchedule, TargetLike


@keras.saving.register_keras_serializable(package="kmix")
class Mosaic(MixLayer):
    """Puts four images around a random centre, and weights their labels by their shares of the pixels.

    The sample lies at the top left, and three partners lie at the top right, the bottom left and the bottom right. No
    image is resized: each shows the corner that meets the centre. Segmentation masks move along; bounding boxes move,
    and are clipped to the part of their image that shows. Labels and sample weights are weighted by the exact shares.
    A sample that is its own partner shows in several quarters, and so do its boxes.

    A Mosaic has no alpha: the centre is uniform in the middle half of the height and of the width.

    Args:
        num_classes, target: What `y` is, see `MixUp`. Pairs of labels have no room for four classes.
        pairing: A rule without a score, see `kmix.pairing`: it is asked for each of the three partners.
        rate: Probability in [0, 1] that a sample is mixed at all, a float or a schedule (a callable of the step): one
            that falls to 0 ends the Mosaic before training does.
        include_clean, inputs_key: See `MixUp`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting.
        jit_compile, seed, name, dtype: See `MixUp`.

    Call arguments:
        x: Images `(B, H, W, C)` of any dtype, or a structure of such images with the same height and width.
        y, sample_weight, training: As for `MixUp`.

    Returns:
        The batch in the same structure: images in their own dtype, labels and sample weights in float32.

    Raises:
        ValueError: if x holds no images; if a target or a rule of pairing is not made for several partners; and as for
            `MixUp`, except that integer images are allowed.
        TypeError: if an argument is of the wrong type.

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

    _partners, _has_alpha = 3, False

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        pairing: PairingLike = "random",
        rate: ScalarOrSchedule = 1.0,
        include_clean: bool = False,
        inputs_key: str | Sequence[str] = "images",
        data_format: DataFormat | None = None,
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self._store(data_format=check_data_format(data_format))
        super().__init__(
            num_classes=num_classes,
            target=target,
            pairing=pairing,
            rate=rate,
            include_clean=include_clean,
            inputs_key=inputs_key,
            jit_compile=jit_compile,
            seed=seed,
            name=name,
            dtype=dtype,
        )
        if type(self._pairing).partners is Pairing.partners:
            _checks.fail(
                "A Mosaic draws three partners for each sample, so it takes no rule with a score.",
                f"pairing={pairing!r}",
                "Write `pairing=kmix.pairing.RandomPairs()`, or a rule that has `partners`.",
            )

    @property
    def input_mixing(self) -> InputMixing:
        return PasteImages(self.data_format)

    def sample(
        self,
        seed: int,
        step: Any,
        alpha: Any,
        batch_size: Any,
        spatial_shape: Any,
        *,
        per: Per,
        lam_at_least_half: bool,
        **settings: Any,
    ) -> MixPlan:
        return sample_mosaic(seed, step, batch_size, spatial_shape, **settings)

    def _without_alpha(self):
        return "Its centre is uniform in the middle half of each axis, and `rate` says how many samples are mixed."
