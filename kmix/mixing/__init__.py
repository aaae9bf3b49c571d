"""How arrays follow a plan: pure functions without randomness."""

import keras

from kmix import _backend
from kmix.mixing.blend import blend, check_blendable, combine
from kmix.mixing.mosaic import mosaic
from kmix.mixing.paste import paste, spatial_axes
from kmix.plan import Tiles

set_num_threads = _backend.set_num_threads

__all__ = ["check_blendable", "combine", "mix_inputs", "set_num_threads", "spatial_axes"]


def mix_inputs(x, plan, *, data_format="channels_last", dtype=None):
    """Mix one batch of inputs: blend it, or paste if the plan has boxes or a region.

    Args:
        x: Tensor `(B, ...)`, float or uint8. For a plan with boxes or a region, a tensor of any dtype with the
            spatial axes that the plan was drawn for.
        plan: A `MixPlan` for a batch of `B`.
        data_format: `"channels_last"` or `"channels_first"`: where the spatial axes are. Only matters
            for a paste.
        dtype: Name of the dtype of the result. Defaults to the dtype of `x`, or float32 for uint8. A paste
            always keeps the dtype of `x`.

    Returns:
        A new tensor of the same shape, `lam * x + (1 - lam) * x[permutation]`. With boxes,
        `x[permutation]` inside the box and `x` outside. A sample with `lam = 1` comes back exactly.

    Example:
    >>> from kmix.mixing import mix_inputs
    >>> plan = kmix.MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_inputs(np.array([[4.0], [8.0]]), plan)
    array([[5.],
           [8.]])
    """
    xp = _backend.namespace(x, plan.lam)
    x = xp.asarray(x)
    axes = spatial_axes(len(x.shape), data_format) if plan.pastes else range(0)
    if isinstance(plan.region, Tiles):
        known = _backend.namespace(plan.lam)
        size = known.stack([known.cast(xp.size(x, axis), "int32") for axis in axes])
        # The window of the sample itself; all of it if it is not mixed.
        centre = known.where(
            known.along(plan.lam, plan.region.window[:, 0, 2:]) == 1.0, size, plan.region.window[:, 0, 2:]
        )
        sources = known.stack([part.source for part in plan.parts()])
        return mosaic(xp, x, centre, sources, axes=axes)
    if plan.region is not None:
        region = keras.tree.map_structure(xp.asarray, plan.region)
        pasted = region.paste(xp, x, xp.asarray(plan.permutation), axes)
        return xp.where(xp.along(xp.asarray(plan.lam) == 1.0, x), x, pasted)
    if plan.box is not None:
        return paste(xp, x, plan.permutation, plan.box, axes=axes)
    given = _backend.dtype(x)
    check_blendable(given)
    dtype = dtype or ("float32" if given == "uint8" else given)
    return blend(xp, x, plan.permutation, plan.lam, dtype=dtype, bijective=plan.bijective)
