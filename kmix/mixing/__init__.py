"""How arrays follow a plan: pure functions without randomness."""

import math
from typing import Any

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.mixing.blend import blend, check_blendable
from kmix.mixing.mosaic import mosaic
from kmix.mixing.objects import Objects
from kmix.mixing.paste import paste, spatial_axes
from kmix.mixing.waves import weighted_sum
from kmix.plan import MixPlan, Tiles

set_num_threads = _backend.set_num_threads

__all__ = ["mix_inputs", "set_num_threads"]


def mix_inputs(x: Any, plan: MixPlan, *, data_format: str = "channels_last", dtype: str | None = None) -> Any:
    """Mix one batch of inputs: blend it, or paste if the plan has boxes or a region.

    Args:
        x: Tensor `(B, ...)`, float or uint8. For a plan with boxes or a region, a tensor of any dtype with the
            spatial axes that the plan was drawn for.
        plan: A `MixPlan` for a batch of `B`.
        data_format: `"channels_last"` or `"channels_first"`: where the spatial axes are. Only matters
            for a paste.
        dtype: Name of the dtype of the result, a float dtype. Defaults to the dtype of `x`, or float32 for uint8. A
            paste always keeps the dtype of `x`.

    Returns:
        A new tensor of the same shape, `lam * x + (1 - lam) * x[permutation]`. With boxes,
        `x[permutation]` inside the box and `x` outside. Of several partners the sum by `shares`, or by `gains` if the
        plan has them. A sample with `lam = 1` comes back exactly.

    Raises:
        ValueError: if the sizes of `x` and of the plan do not match, `x` cannot be blended, or an option is unknown.
        TypeError: if `plan` is not a `MixPlan`.

    Example:
        >>> from kmix.mixing import mix_inputs
        >>> plan = kmix.MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
        >>> mix_inputs(np.array([[4.0], [8.0]]), plan)
        array([[5.],
               [8.]])
    """
    if not isinstance(plan, MixPlan):
        _checks.fail("`plan` must be a `kmix.MixPlan`.", f"plan={plan!r}", "Draw one: `layer.plan(...)`.", TypeError)
    _checks.one_of(data_format, "data_format", ("channels_last", "channels_first"))
    xp = _backend.namespace(x, plan.lam)
    x = xp.asarray(x)
    _check_sizes(x, plan)
    axes = spatial_axes(len(x.shape), data_format) if plan.pastes else range(0)
    if isinstance(plan.permutation, np.ndarray) and None not in (sizes := [x.shape[axis] for axis in axes]):
        _check_values(plan, sizes)
    if isinstance(plan.region, Tiles):
        known = _backend.namespace(plan.lam)
        size = known.stack([known.cast(xp.size(x, axis), "int32") for axis in axes])
        # The window of the sample itself; all of it if it is not mixed.
        centre = known.where(
            known.along(plan.lam, plan.region.window[:, 0, 2:]) == 1.0, size, plan.region.window[:, 0, 2:]
        )
        sources = known.stack(plan._sources())
        return mosaic(xp, x, centre, sources, axes=axes)
    if plan.region is not None:
        region = keras.tree.map_structure(xp.asarray, plan.region)
        pasted = region.paste(xp, x, xp.asarray(plan.permutation), axes)
        # Where no objects are pasted, their region is empty.
        if isinstance(region, Objects):
            return pasted
        return xp.where(xp.along(xp.asarray(plan.lam) == 1.0, x), x, pasted)
    if plan.box is not None:
        return paste(xp, x, plan.permutation, plan.box, axes=axes)
    given = _backend.dtype(x)
    check_blendable(given)
    dtype = keras.backend.standardize_dtype(dtype or ("float32" if given == "uint8" else given))
    if "float" not in dtype:
        _checks.fail("`dtype` must be a float dtype.", f"dtype={dtype!r}", 'For example `dtype="float16"`.')
    if plan.gains is not None or plan.partners is not None:
        return add_sources(xp, x, plan, dtype)
    return blend(xp, x, plan.permutation, plan.lam, dtype=dtype, bijective=plan.bijective)


def add_sources(xp: _backend.Namespace, x: Any, plan: MixPlan, dtype: str) -> Any:
    """The sum of each sample and its partners by the gains of the plan, or by its shares if it has no gains.

    Args:
        xp: Array namespace of `x`.
        x: Float `(B, ...)`.
        plan: A `MixPlan`.
        dtype: Name of the dtype of the result.
    """
    known = _backend.namespace(plan.lam)
    gains = known.stack([part.share for part in plan.parts()]) if plan.gains is None else plan.gains
    # One partner as the plan has it: within its shard.
    partners = [plan.permutation] if plan.partners is None else known.unstack(plan.partners)
    return weighted_sum(xp, x, gains, *partners, dtype=dtype)


def _check_sizes(x, plan):
    """Raise unless the static shapes of inputs and of a plan match."""
    arrays = {name: getattr(plan, name) for name in ("lam", "permutation", "box") if getattr(plan, name) is not None}
    for name, array in arrays.items():
        if not hasattr(array, "shape"):
            _checks.fail(f"`plan.{name}` must be an array.", f"a {type(array).__name__}", error=TypeError)
        if name != "lam" and "int" not in _backend.dtype(array):
            _checks.fail(f"`plan.{name}` must hold integers.", f"dtype {_backend.dtype(array)}")
    if not (plan.region is None or isinstance(plan.region, Tiles) or hasattr(plan.region, "paste")):
        _checks.fail("`plan.region` must be `Tiles`, or have a method `paste`.", f"{plan.region!r}", error=TypeError)
    shape, lam, permutation = map(_backend.static_shape, (x, plan.lam, plan.permutation))
    if shape is None or lam is None or permutation is None:
        return
    rows, partners = None if not shape else shape[0], None if None in permutation else math.prod(permutation)
    if not shape or len(lam) != 1 or not permutation or len({rows, *lam, partners} - {None}) > 1:
        received = f"x of shape {shape}, lam of shape {lam}, permutation of shape {permutation}"
        _checks.fail("Inputs and plan must have one row for each sample.", received)
    if plan.pastes and not 3 <= len(shape) <= 5:
        _checks.fail("A plan that pastes is for inputs with one to three spatial axes.", f"x of shape {shape}")
    box, expected = None if plan.box is None else _backend.static_shape(plan.box), (lam[0], 2 * (len(shape) - 2))
    if box is not None and (len(box) != 2 or box[1] != expected[1] or len({box[0], lam[0]} - {None}) > 1):
        _checks.fail(f"`plan.box` must have the shape {expected}.", f"shape {box} for x of shape {shape}")
    if isinstance(plan.region, Tiles) and len(shape) != 4:
        _checks.fail("A Mosaic puts images (B, H, W, C) together.", f"x of shape {shape}")


def _check_values(plan, sizes):
    """Raise if a plan of NumPy arrays names other samples than those of its batch, or tiles for other sizes."""
    partners, count = plan.permutation, plan.permutation.shape[-1]
    if ((partners < 0) | (partners >= count)).any():
        _checks.fail("The partners of a plan are samples of its batch.", f"indices outside [0, {count})")
    if isinstance(plan.region, Tiles) and count:
        drawn_for = tuple(plan.region.window[..., 2:].max(axis=(0, 1)).tolist())
        if drawn_for != tuple(sizes):
            _checks.fail(
                "The tiles of a Mosaic must be drawn for the spatial sizes of x.",
                f"tiles for {drawn_for} and sizes {tuple(sizes)}",
                f"Write `layer.plan(step, batch_size, spatial_shape={tuple(sizes)})`.",
            )
