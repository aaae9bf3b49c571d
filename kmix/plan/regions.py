"""Which part of a sample its partner takes."""


def boxes(xp, lam, centres, spatial_shape, cut=None):
    """Boxes with `1 - lam` of the area around uniform centres, clipped at the borders.

    Args:
        xp: Array namespace.
        lam: float32 `(B,)`.
        centres: Uniforms `(B,)` for each spatial axis.
        spatial_shape: Sizes of the spatial axes.
        cut: Indices of the spatial axes to cut; a box spans the others. None for all.

    Returns:
        The boxes, int32 `(B, 2 * k)`, and the share of the pixels outside each, float32 `(B,)`.
    """
    cut = range(len(spatial_shape)) if cut is None else cut
    # Slightly larger, so that lam = 0 up to rounding cuts the whole image on every framework.
    edge = xp.power(1.0 - lam, 1.0 / len(cut)) * (1.0 + 1e-6)
    starts, stops, removed = [], [], 1.0
    for axis, size in enumerate(spatial_shape):
        if axis not in cut:
            starts.append(xp.cast(0 * lam, "int32"))
            stops.append(starts[-1] + xp.cast(size, "int32"))
            continue
        length = xp.cast(size, "float32")
        centre = xp.cast(xp.math.floor(centres[axis] * length), "int32")
        half = xp.cast(xp.math.floor(edge * length), "int32") // 2
        starts.append(xp.math.maximum(centre - half, 0))
        stops.append(xp.math.minimum(centre + half, xp.cast(size, "int32")))
        removed = removed * portion(xp, xp.cast(stops[-1] - starts[-1], "float32"), length)
    return xp.stack(starts + stops, axis=1), 1.0 - removed


def portion(xp, part, whole):
    """`part / whole`, exactly 1 if they are equal: XLA multiplies by the reciprocal of a constant `whole`."""
    return xp.where(part == whole, xp.cast(1.0, "float32"), part / whole)


def centre(xp, u, size):
    """Positions along an axis, int32, uniform in its middle half."""
    return xp.cast(xp.math.floor((0.25 + 0.5 * u) * xp.cast(size, "float32") + 0.5), "int32")
