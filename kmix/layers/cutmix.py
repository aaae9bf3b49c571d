"""CutMix: paste boxes of the partners."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.batch import Batch
from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import InputMixing, Paste, check_data_format
from kmix.plan import MixPlan, sample_cutmix
from kmix.typing import DataFormat, PairingLike, Per, ScalarOrSchedule, TargetLike


@keras.saving.register_keras_serializable(package="kmix")
class CutMix(MixLayer):
    """Pastes a box of the partner into each sample, and weights the labels by the share of kept pixels.

    The weight of a label is the exact share of the pixels kept after the box is clipped at the borders. If
    each image is painted with its own one-hot label, the mean of a mixed image is its mixed label.

    Args:
        alpha: Parameter of `lam ~ Beta(alpha, alpha)`, a float >= 0 or a schedule (a callable of the
            step); the box has `1 - lam` of the area. 0 is the identity. Defaults to 1.0, as in the paper.
        num_classes, target: What `y` is, see `MixUp`.
        pairing, per, rate, lam_at_least_half, include_clean: See `MixUp`. `per="batch"` draws one box for all samples.
        axes: The axes of x to cut, an int or ints >= 1: `axes=1` cuts spectrograms `(B, T, F, 1)` in time alone, and
            `axes=(2, 3)` video `(B, T, H, W, C)` in space alone. By default, all spatial axes. If they name the axis
            where the channels would be, x has no channels: waves and token ids `(B, T)` with `axes=1`, images
            `(B, H, W)` with `axes=(1, 2)`.
        padding_id: For token ids `(B, T)`, the id of padding: the label weight is then the share of the real tokens
            that are the sample's own. `plan` does not read them, and gives the share of the positions.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting. Set it to confirm
            that float inputs of rank 3 are sequences `(B, T, C)`.
        inputs_key, jit_compile, seed, name, dtype: See `MixUp`.

    Call arguments:
        x: Inputs of any dtype with one to three spatial axes: sequences `(B, T, C)`, images
            `(B, H, W, C)`, volumes and video `(B, D, H, W, C)`. The box cuts every spatial axis, unless `axes` says
            otherwise. Clips `(B, T, C, H, W)` have their channels in neither place: transpose them. The tensors of a
            nested structure must share their spatial sizes.
        y, sample_weight, training: As for `MixUp`.

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
        alpha: ScalarOrSchedule = 1.0,
        *,
        num_classes: int | None = None,
        target: TargetLike | None = None,
        pairing: PairingLike = "random",
        per: Per = "sample",
        rate: ScalarOrSchedule = 1.0,
        lam_at_least_half: bool = False,
        include_clean: bool = False,
        axes: int | Sequence[int] | None = None,
        padding_id: int | None = None,
        data_format: DataFormat | None = None,
        inputs_key: str | Sequence[str] = "images",
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        padding_id = None if padding_id is None else _checks.integer(padding_id, "padding_id", -(2**31))
        self._store(_axes=_check_axes(axes), padding_id=padding_id, data_format=check_data_format(data_format))
        self._store(axes=list(axes) if isinstance(axes, tuple) else axes)
        super().__init__(
            alpha,
            num_classes=num_classes,
            target=target,
            pairing=pairing,
            per=per,
            rate=rate,
            lam_at_least_half=lam_at_least_half,
            include_clean=include_clean,
            inputs_key=inputs_key,
            jit_compile=jit_compile,
            seed=seed,
            name=name,
            dtype=dtype,
        )

    @property
    def input_mixing(self) -> InputMixing:
        # To set the format or the axes confirms that sequences (B, T, C) are meant, not images without channels.
        return Paste(self.data_format, self.data_format is not None or self._axes is not None, self._axes)

    def sample(self, seed: int, step: Any, alpha: Any, batch_size: Any, spatial_shape: Any, **settings: Any) -> MixPlan:
        cut = None
        if self._axes is not None and isinstance(spatial_shape, (list, tuple)):
            (cut,) = self.input_mixing.cut_axes()
            if max(cut) >= len(spatial_shape):
                _checks.fail("`axes` must be spatial axes.", f"axes={self.axes} for spatial_shape={spatial_shape}")
        return sample_cutmix(seed, step, alpha, batch_size, spatial_shape, cut=cut, **settings)

    def resolve(self, plan: MixPlan, batch: Batch) -> MixPlan:
        """Weigh the labels by the real tokens, not by all positions, with `padding_id`."""
        if self.padding_id is None:
            return plan
        ids, xp = _token_ids(batch.inputs), _backend.namespace(plan.lam)
        if xp is _backend.NUMPY:
            # The plan of an eager batch is drawn on the host, and stays there.
            ids = _backend.values(ids)
        real = xp.asarray(ids) != self.padding_id
        position = xp.reshape(xp.cast(xp.arange(xp.size(real, 1)), "int32"), (1, -1))
        start, stop = (xp.reshape(xp.cast(plan.box[:, i], "int32"), (-1, 1)) for i in (0, 1))
        inside = (position >= start) & (position < stop)
        kept = xp.sum(xp.cast(real & ~inside, "float32"), axis=1)
        added = xp.sum(xp.cast(xp.take(real, plan.permutation) & inside, "float32"), axis=1)
        nothing = (kept + added == 0) | (plan.lam == 1) | (plan.lam != plan.lam)
        total = xp.where(nothing, xp.cast(1.0, "float32"), kept + added)
        return plan._replace(lam=xp.where(nothing, plan.lam, kept / total))


def _token_ids(x):
    """The token ids among the inputs, or raise."""
    leaves = keras.tree.flatten(x)
    found = [leaf for leaf in leaves if "int" in _backend.dtype(leaf) and len(leaf.shape) == 2]
    if len(found) != 1:
        _checks.fail(
            "`padding_id` counts the tokens of one array of ids (B, T), of an integer dtype.",
            f"x of {[(_backend.dtype(leaf), tuple(leaf.shape)) for leaf in leaves]}",
            "Cast masks to bool, or leave it out.",
        )
    return found[0]


def _check_axes(axes):
    """Return the axes to cut as a tuple, or None, or raise."""
    if axes is None:
        return None
    axes = tuple(_checks.integer(axis, "axes", 1) for axis in (axes if isinstance(axes, (list, tuple)) else [axes]))
    if not axes or len(set(axes)) < len(axes):
        _checks.fail("`axes` must name axes of x, each once.", f"axes={axes}", "For example `axes=1`.")
    return axes
