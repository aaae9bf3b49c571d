"""Masks and boxes over images."""

import numpy as np

from kmix import _backend, _checks
from kmix.targets.box_formats import FORMATS, to_corners


def shares(masks, shape):
    """Masks as shares of the classes `(B, H, W, C)`, or raise if they do not match images of a shape."""
    masks = _backend.values(masks)
    soft = masks.ndim == 4 and masks.shape[-1] > 1
    if masks.ndim not in (3, 4) or masks.shape[:3] != shape[:3]:
        _checks.fail("`masks` must have the size of the images.", f"masks of shape {masks.shape}, images {shape}")
    if soft:
        return masks.astype("float32")
    ids = masks.reshape(masks.shape[:3]).astype(int)
    # Pixels without a class have none of the shares.
    return (ids[..., None] == np.arange(max(2, ids[ids < 255].max(initial=0) + 1))).astype("float32")


def corners(boxes, name, shape):
    """Corners `(B, N, 4)`, top, left, bottom, right, labels and weights `(B, N)` of boxes, or raise."""
    if name is None:
        _checks.fail(
            "To draw boxes, their format must be known.",
            "boxes without `bounding_box_format`",
            f"Write it: one of {', '.join(map(repr, FORMATS))}.",
        )
    _checks.one_of(name, "bounding_box_format", FORMATS)
    labels = _backend.values(boxes["labels"] if "labels" in boxes else boxes["classes"])
    array = _backend.values(boxes["boxes"])
    if array.shape != (shape[0], *labels.shape[1:], 4) or labels.ndim != 2:
        _checks.fail(
            "`boxes` must hold (B, N, 4) boxes and (B, N) labels for the images.",
            f"boxes of shape {array.shape}, labels of shape {labels.shape}, and {shape[0]} images",
        )
    edges = np.stack(to_corners(_backend.NUMPY, array.astype("float32"), name, shape[1:3]), axis=-1)
    weights = _backend.values(boxes["weights"]) if "weights" in boxes else np.ones(labels.shape)
    return edges, labels, weights


def draw_mask(ax, mask):
    """Colour the classes of a mask `(H, W, C)` but the first, and outline them, so that they show in greyscale, too."""
    height, width, classes = mask.shape
    for one in range(1, classes):
        share = mask[..., one]
        if share.max() > 0:
            colored = np.zeros((height, width, 4))
            colored[..., :3] = _color(one)
            colored[..., 3] = 0.5 * np.clip(share, 0, 1)
            ax.imshow(colored)
            # Padded, so that outlines close at the borders; of small shares, too.
            padded = np.pad((share > 0.01).astype(float), 1)
            x, y = np.arange(-1, width + 1), np.arange(-1, height + 1)
            ax.contour(x, y, padded, levels=[0.5], colors="black", linewidths=1.8)
            ax.contour(x, y, padded, levels=[0.5], colors="white", linewidths=0.8)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_boxes(ax, edges, labels, weights, names=None):
    """Draw the real boxes with their labels."""
    from matplotlib.patches import Rectangle

    for (top, left, bottom, right), label, weight in zip(edges - 0.5, labels, weights, strict=True):
        if label < 0:
            continue
        size = right - left, bottom - top
        ax.add_patch(Rectangle((left, top), *size, fill=False, edgecolor="black", linewidth=2.6))
        ax.add_patch(Rectangle((left, top), *size, fill=False, edgecolor="white", linewidth=1.2, gid="kmix-box"))
        text = str(int(label) if names is None else names[int(label)])
        text = text if weight > 0.995 else f"{text} {weight:.2f}"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        ax.text(left, top, text, va="top", fontsize=6, color="black", bbox=background, clip_on=True)


def _color(one):
    import matplotlib

    return matplotlib.colormaps["tab10"]((one - 1) % 10)[:3]
