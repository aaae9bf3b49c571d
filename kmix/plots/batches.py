"""What enters the network: images with their labels, masks and boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kmix import _backend, _checks
from kmix.label_forms import LabelForm
from kmix.plots.canvas import pyplot
from kmix.targets.box_formats import FORMATS, to_corners


def mixed_batch(
    x: Any,
    y: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    count: int = 8,
    columns: int | None = None,
    figure: Any = None,
    masks: Any = None,
    boxes: Any = None,
    bounding_box_format: str | None = None,
) -> Any:
    """Show the images of a batch, each with its label mixture as the title, and its mask and boxes drawn.

    Args:
        x: Images `(B, H, W)`, `(B, H, W, 1)` or `(B, H, W, 3)` of any framework and any range of values:
            the smallest value of the shown images is black, the largest is white. Or a dictionary batch, whose
            `"labels"`, `"segmentation_masks"` and `"bounding_boxes"` are drawn.
        y: Their labels: soft `(B, C)`, class ids `(B,)` or `(B, 1)`, or pairs `(B, 3)`. A title such as
            "3: 0.71 / 8: 0.29" shows at most the three largest shares, and none that rounds to 0.00. None for no
            titles.
        class_names: Names of the C classes. Defaults to the class ids. Without labels, those of the boxes.
        count: Number of images to show, from the start of the batch. Defaults to 8, or to the batch size
            if that is smaller.
        columns: Number of images in a row. Defaults to all images in one row, but at most 8.
        figure: Matplotlib `Figure` or `SubFigure` to draw into. Defaults to a new figure.
        masks: Segmentation masks: class ids `(B, H, W)` or `(B, H, W, 1)`, or shares `(B, H, W, C)`. Class 0, the
            background, is not drawn.
        boxes: Bounding boxes, a dictionary as for `kmix.targets.BoundingBoxes`. The weight of a box is written next
            to it, if it is not 1.
        bounding_box_format: The format of the boxes.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `x` does not hold images, `y` does not hold a label for each, or `class_names` does not hold
            C names; if masks or boxes do not match the images, or boxes come without a format; if `count` or
            `columns` is less than 1.
        ImportError: if Matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from kmix import plots
        >>> x, y = np.random.rand(4, 8, 8, 1), np.array([0, 1, 1, 0])
        >>> figure = plots.mixed_batch(*kmix.MixUp(0.4, num_classes=2, seed=2)(x, y), class_names=["cat", "dog"])
        >>> [ax.get_title() for ax in figure.axes]
        ['dog', 'cat: 0.87 / dog: 0.13', 'cat: 0.76 / dog: 0.24', 'cat']
    """
    if isinstance(x, dict):
        x, y, masks, boxes = (x.get(key) for key in ("images", "labels", "segmentation_masks", "bounding_boxes"))
    x = _images(x)
    count = min(_checks.integer(count, "count", 1), len(x))
    columns = min(8, count) if columns is None else _checks.integer(columns, "columns", 1)
    titles = [""] * count if y is None else _titles(x, _backend.values(y), class_names, count)
    masks = None if masks is None else _mask_shares(masks, x.shape)
    boxes = None if boxes is None else _box_corners(boxes, bounding_box_format, x.shape)
    rows = -(-count // columns)
    figure = figure or pyplot().figure(figsize=(1.7 * columns, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    images = x[:count].astype("float32")
    images = (images - images.min()) / (np.ptp(images) or 1.0)
    for i, (ax, image, title) in enumerate(zip(axes, images, titles, strict=False)):
        ax.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        ax.set_title(title, fontsize="small")
        ax.set(xticks=[], yticks=[])
        if masks is not None:
            _draw_mask(ax, masks[i])
        if boxes is not None:
            edges, labels, weights = boxes
            _draw_boxes(ax, edges[i], labels[i], weights[i], class_names if y is None else None)
    for ax in axes[count:]:
        ax.remove()
    return figure


def _images(x):
    x = _backend.values(x)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)) or not x.size:
        _checks.fail(
            "`x` must hold images (B, H, W), (B, H, W, 1) or (B, H, W, 3).",
            f"x of shape {x.shape}",
            "With channels first, write `np.moveaxis(x, 1, -1)`.",
        )
    return x


def _titles(x, y, class_names, count):
    form = LabelForm.from_values(y) if y.ndim in (1, 2) and len(y) == len(x) else None
    if form is None or form.kind == "numbers":
        _checks.fail(
            "`y` must hold a label for each image: soft (B, C), integer class ids (B,) or (B, 1), or pairs (B, 3).",
            f"y of shape {y.shape} and dtype {y.dtype.name} with x of shape {x.shape}",
        )
    names = range(form.num_classes) if class_names is None else class_names
    # Ids and pairs need not hold the last class.
    if len(names) < form.num_classes or (form.kind == "soft" and len(names) > form.num_classes):
        _checks.fail("`class_names` must name each class.", f"{len(names)} names for {form.num_classes} classes")
    return [_mixture(label, names) for label in form.dense()[:count]]


def _mixture(label, names):
    """A label mixture in words: the largest shares first; only the name if the label is a single class."""
    classes = [c for c in np.argsort(-label, kind="stable")[:3] if label[c] >= 0.005]
    if len(classes) == 1 and label[classes[0]] >= 0.995:
        return str(names[classes[0]])
    return " / ".join(f"{names[c]}: {label[c]:.2f}" for c in classes)


def _mask_shares(masks, shape):
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


def _box_corners(boxes, name, shape):
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


def _draw_mask(ax, mask):
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


def _draw_boxes(ax, edges, labels, weights, names=None):
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
