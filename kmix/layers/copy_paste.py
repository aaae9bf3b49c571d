"""CopyPaste: paste objects of the partners."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.batch import Batch
from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import InputMixing, PasteImages, check_data_format
from kmix.mixing.objects import Objects, areas, union
from kmix.plan import MixPlan, sample_copy_paste
from kmix.plan.samplers import MOST_INSTANCES
from kmix.targets.bounding_boxes import BoundingBoxes
from kmix.targets.instance_masks import InstanceMasks
from kmix.typing import DataFormat, PairingLike, Per, ScalarOrSchedule, TargetLike


@keras.saving.register_keras_serializable(package="kmix")
class CopyPaste(MixLayer):
    """Pastes objects of the partner into each image, along their masks.

    Each object of the partner is pasted with probability `instance_rate`, at the place where it lies. What it covers is
    cut off the masks of the image, and an object of which too little is left goes. Segmentation masks follow the pasted
    pixels; other labels and the sample weights are weighted by the share of the pixels that is kept. An image into
    which nothing is pasted stays as it came.

    A CopyPaste has no alpha: how much is pasted, say the objects.

    Args:
        rate: Probability in [0, 1] that a sample is mixed at all, a float or a schedule (a callable of the step).
        instance_rate: Probability in [0, 1] that an object of the partner is pasted, a float.
        num_classes, target: What `y` is, see `MixUp`. One part of it are the `kmix.targets.InstanceMasks`, which in a
            dictionary batch are known by the key `"instances"`. Boxes are an entry of these.
        pairing, include_clean, inputs_key: See `MixUp`.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting.
        jit_compile, seed, name, dtype: See `MixUp`.

    Call arguments:
        x: Images `(B, H, W, C)` of any dtype, or a structure of such images with the same height and width.
        y: Instance masks, or a structure of targets with instance masks in it.
        sample_weight, training: As for `MixUp`.

    Returns:
        The batch in the same structure: images in their own dtype, instance masks as `kmix.targets.InstanceMasks` says,
        labels and sample weights in float32.

    Raises:
        ValueError: if x holds no images; if there are no instance masks, or two; if there are bounding boxes apart from
            them; if there are more than 496 objects; and as for `MixUp`, except that integer images are allowed.
        TypeError: if an argument is of the wrong type.

    Reference:
        G. Ghiasi, Y. Cui, A. Srinivas, R. Qian, T.-Y. Lin, E. D. Cubuk, Q. V. Le, B. Zoph, "Simple Copy-Paste is a
        Strong Data Augmentation Method for Instance Segmentation", CVPR 2021, https://arxiv.org/abs/2012.07177

    Example:
        Two images, with an object in the upper half of the first and in the left half of the second.

        >>> masks = np.zeros((2, 1, 4, 4), bool)
        >>> masks[0, 0, :2], masks[1, 0, :, :2] = True, True
        >>> images = np.array([10, 20], "uint8").reshape(2, 1, 1, 1) * np.ones((1, 4, 4, 1), "uint8")
        >>> layer = kmix.CopyPaste(instance_rate=1.0, data_format="channels_last", seed=2)
        >>> mixed = layer({"images": images, "instances": {"masks": masks, "labels": np.array([[3], [5]])}})
        >>> mixed["images"][0, :, :, 0]
        array([[20, 20, 10, 10],
               [20, 20, 10, 10],
               [20, 20, 10, 10],
               [20, 20, 10, 10]], dtype=uint8)
        >>> mixed["instances"]["labels"]
        array([[3, 5],
               [5, 3]])
        >>> mixed["instances"]["masks"].sum(axis=(2, 3))
        array([[4, 8],
               [4, 8]])
    """

    _has_alpha = False

    def __init__(
        self,
        *,
        rate: ScalarOrSchedule = 1.0,
        instance_rate: float = 0.5,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        pairing: PairingLike = "random",
        include_clean: bool = False,
        inputs_key: str | Sequence[str] = "images",
        data_format: DataFormat | None = None,
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self._store(
            instance_rate=_checks.real(instance_rate, "instance_rate", 0.0, 1.0),
            data_format=check_data_format(data_format),
        )
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
        return sample_copy_paste(seed, step, batch_size, instance_rate=self.instance_rate, **settings)

    def _check_targets(self, batch):
        super()._check_targets(batch)
        found = [type(entry.target) for entry in batch.entries if isinstance(entry.target, InstanceMasks)]
        if len(found) != 1:
            _checks.fail(
                "A CopyPaste needs to know the masks of the objects, once.",
                f"{len(found)} instance masks",
                'Write `{"images": x, "instances": {"masks": masks, "labels": labels}}`, or for `(x, y)` '
                "`target=kmix.targets.InstanceMasks()`.",
            )
        if any(isinstance(entry.target, BoundingBoxes) for entry in batch.entries):
            _checks.fail(
                "A CopyPaste moves the boxes that belong to the instance masks.",
                "bounding boxes beside them",
                'Write `InstanceMasks("xyxy")` for `{"boxes": boxes, "masks": masks, "labels": labels}`.',
            )
        count = _backend.static_shape(_instances(batch)[1]["labels"])[1]
        # Of a number that is not known, TensorFlow compares the shapes.
        if count is not None and count > MOST_INSTANCES:
            _checks.fail(
                f"A CopyPaste tells at most {MOST_INSTANCES} objects of an image apart.",
                f"labels for {count}",
                "Leave out padding that no image needs.",
            )

    def resolve(self, plan: MixPlan, batch: Batch) -> MixPlan:
        """Paste the objects that the masks hold, and weigh labels by the pixels that are kept."""
        # Here, the masks are as large as the batch, so that the plan goes to them.
        xp, plan = batch.xp, plan.as_arrays(batch.xp).without_own_partners()
        target, y = _instances(batch)
        count = xp.size(y["labels"], 1)
        mixed = plan.lam < 1.0
        area = areas(xp, y["masks"], y["labels"] >= 0)
        pasted = target._pasted(xp, y, area, plan.region.chosen[:, :count] & mixed[:, None], plan.permutation)
        mask = union(xp, y["masks"], xp.rows(plan.permutation), pasted)
        covered, total = xp.sum(xp.sum(xp.cast(mask, "int32"), 2), 1), xp.size(mask, 1) * xp.size(mask, 2)
        share = xp.cast(total - covered, "float32") / xp.cast(total, "float32")
        # Less than 1 even if one pixel of millions is covered.
        share = xp.where(covered > 0, xp.math.minimum(share, xp.cast(1.0 - 2.0**-24, "float32")), 1.0)
        return plan._replace(lam=xp.where(plan.lam == plan.lam, share, plan.lam), region=Objects(mask, pasted, area))

    def _without_alpha(self):
        return "`rate` says how many samples are mixed, and `instance_rate` how many objects are pasted."


def _instances(batch):
    """The `InstanceMasks` of a batch, and their value."""
    pairs = zip(batch.entries, batch.targets, strict=True)
    return next((entry.target, value) for entry, value in pairs if isinstance(entry.target, InstanceMasks))
