"""What enters the network."""

import numpy as np

from kmix import _backend, _checks
from kmix.plots import overlays
from kmix.plots.canvas import pyplot


def mixed_batch(
    x,
    y=None,
    class_names=None,
    count=8,
    columns=None,
    figure=None,
    *,
    masks=None,
    boxes=None,
    bounding_box_format=None,
):
    """Show the images of a batch, each with its label mixture as the title, and its mask and boxes drawn.

    Args:
        x: Images `(B, H, W)`, `(B, H, W, 1)` or `(B, H, W, 3)` of any framework and any range of values:
            the smallest value of the shown images is black, the largest is white. Or a dictionary batch, whose
            `"labels"`, `"segmentation_masks"` and `"bounding_boxes"` are drawn.
        y: Their labels: soft `(B, C)`, or class ids `(B,)` or `(B, 1)`. A title such as "3: 0.71 / 8: 0.29" shows at
            most the three largest shares, and none that rounds to 0.00. None for no titles.
        class_names: Names of the C classes. Defaults to the class ids. Without labels, those of the boxes.
        count: Number of images to show, from the start of the batch. Defaults to 8, or to the batch size
            if that is smaller.
        columns: Number of images in a row. Defaults to all images in one row, but at most 8.
        figure: Matplotlib `Figure` or `SubFigure` to draw into. Defaults to a new figure.
        masks: Segmentation masks: class ids `(B, H, W)` or `(B, H, W, 1)`, or shares `(B, H, W, C)`. Class 0, the
            ground, is not drawn.
        boxes: Bounding boxes, a dictionary as for `kmix.targets.BoundingBoxes`. The weight of a box is written beside
            it, if it is not 1.
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
    masks = None if masks is None else overlays.shares(masks, x.shape)
    boxes = None if boxes is None else overlays.corners(boxes, bounding_box_format, x.shape)
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
            overlays.draw_mask(ax, masks[i])
        if boxes is not None:
            edges, labels, weights = boxes
            overlays.draw_boxes(ax, edges[i], labels[i], weights[i], class_names if y is None else None)
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
    soft = y.ndim == 2 and y.shape[1] > 1
    if y.ndim not in (1, 2) or len(y) != len(x) or not (soft or "int" in y.dtype.name):
        _checks.fail(
            "`y` must hold a label for each image: soft (B, C), or integer class ids (B,) or (B, 1).",
            f"y of shape {y.shape} and dtype {y.dtype.name} with x of shape {x.shape}",
        )
    classes = y.shape[1] if soft else int(y.max()) + 1
    if class_names is not None and (len(class_names) != classes if soft else len(class_names) < classes):
        _checks.fail("`class_names` must name each class.", f"{len(class_names)} names for {classes} classes")
    names = range(classes) if class_names is None else class_names
    return [_mixture(label, names) if soft else str(names[int(label.item())]) for label in y[:count]]


def _mixture(label, names):
    """A label mixture in words: the largest shares first; only the name if the label is a single class."""
    classes = [c for c in np.argsort(-label, kind="stable")[:3] if label[c] >= 0.005]
    if len(classes) == 1 and label[classes[0]] >= 0.995:
        return str(names[classes[0]])
    return " / ".join(f"{names[c]}: {label[c]:.2f}" for c in classes)
