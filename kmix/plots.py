"""Plots of what enters the network, and of how well its confidence is calibrated.

A plot imports Matplotlib when it is drawn; importing kmix does not.
"""

import numpy as np

from kmix import _backend, _checks
from kmix.metrics import ExpectedCalibrationError, confidence_and_accuracy

__all__ = ["mixed_batch", "reliability_diagram"]


def mixed_batch(x, y, class_names=None, count=8, columns=None, figure=None):
    """Show the images of a batch, each with its label mixture as the title: "3: 0.71 / 8: 0.29".

    Args:
        x: Images `(B, H, W)`, `(B, H, W, 1)` or `(B, H, W, 3)` of any framework and any range of values:
            the smallest value of the shown images is black, the largest is white.
        y: Their labels: soft `(B, C)`, or class ids `(B,)` or `(B, 1)`. Titles show at most the three largest
            shares, and none that rounds to 0.00.
        class_names: Names of the C classes. Defaults to the class ids.
        count: Number of images to show, from the start of the batch. Defaults to 8, or to the batch size
            if that is smaller.
        columns: Number of images in a row. Defaults to all images in one row, but at most 8.
        figure: Matplotlib `Figure` or `SubFigure` to draw into. Defaults to a new figure.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `x` does not hold images, `y` does not hold a label for each, or `class_names` does not hold
            C names; if `count` or `columns` is less than 1.
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
    plt = _pyplot()
    x, y = _backend.values(x), _backend.values(y)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)) or not x.size:
        _checks.fail(
            "`x` must hold images (B, H, W), (B, H, W, 1) or (B, H, W, 3).",
            f"x of shape {x.shape}",
            "With channels first, write `np.moveaxis(x, 1, -1)`.",
        )
    soft = y.ndim == 2 and y.shape[1] > 1
    if y.ndim not in (1, 2) or len(y) != len(x) or not (soft or "int" in y.dtype.name):
        _checks.fail(
            "`y` must hold a label for each image: soft (B, C), or integer class ids (B,) or (B, 1).",
            f"y of shape {y.shape} and dtype {y.dtype.name} with x of shape {x.shape}",
        )
    count = min(_checks.integer(count, "count", 1), len(x))
    columns = min(8, count) if columns is None else _checks.integer(columns, "columns", 1)
    classes = y.shape[1] if soft else int(y.max()) + 1
    if class_names is not None and (len(class_names) != classes if soft else len(class_names) < classes):
        _checks.fail("`class_names` must name each class.", f"{len(class_names)} names for {classes} classes")
    names = range(classes) if class_names is None else class_names
    rows = -(-count // columns)
    figure = figure or plt.figure(figsize=(1.7 * columns, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    images = x[:count].astype("float32")
    images = (images - images.min()) / (np.ptp(images) or 1.0)
    for ax, image, label in zip(axes, images, y, strict=False):
        ax.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        ax.set_title(_mixture(label, names) if soft else str(names[int(label.item())]), fontsize="small")
        ax.set(xticks=[], yticks=[])
    for ax in axes[count:]:
        ax.remove()
    return figure


def reliability_diagram(y_true, y_pred, num_bins=15, ax=None, label=None, **kwargs):
    """Plot accuracy against confidence: below the diagonal a model is overconfident, above it underconfident.

    The predictions are sorted into bins of confidence, as in `kmix.metrics.ExpectedCalibrationError`. Each point
    shows the mean confidence and the accuracy of one bin, and its area grows with the share of predictions
    in the bin. Bins without predictions have no point. To compare models, call it again with the same `ax`.

    Args:
        y_true: Labels: class ids `(...)` or `(..., 1)`, or soft labels `(..., C)`. For soft labels, accuracy is the
            label mass at the predicted class.
        y_pred: Predicted probabilities `(..., C)`. A single column is the probability of the positive class.
        num_bins: Number of bins `(lo, hi]` of equal width on [0, 1]. Defaults to 15.
        ax: Matplotlib `Axes` to draw into. Defaults to a new figure.
        label: Text for the legend. Defaults to the calibration error, such as "ECE 0.050".
        **kwargs: Passed to `ax.plot`, such as `color`.

    Returns:
        The Matplotlib `Axes`.

    Raises:
        ValueError: if `num_bins < 1`; if the shapes of `y_true` and `y_pred` do not match; if `y_pred`
            is empty or does not hold probabilities.
        ImportError: if Matplotlib is not installed.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example: four predictions with a confidence of 0.8, three of them correct.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from kmix import plots
    >>> ax = plots.reliability_diagram(np.array([0, 0, 0, 1]), np.array([[0.8, 0.2]] * 4), num_bins=10)
    >>> ax.get_legend_handles_labels()[1]
    ['ECE 0.050']
    """
    plt = _pyplot()
    y_true, y_pred = _backend.values(y_true), _backend.values(y_pred).astype("float32")
    if not y_pred.size or not (y_pred.min() >= 0 and y_pred.max() <= 1 + 1e-3):
        _checks.fail(
            "`y_pred` must hold probabilities.",
            f"values from {y_pred.min():g} to {y_pred.max():g}" if y_pred.size else "no predictions",
            "First take the softmax of logits: `keras.ops.softmax(logits)`.",
        )
    error = ExpectedCalibrationError(num_bins)
    if label is None:
        label = f"ECE {float(error(y_true, y_pred)):.3f}"
    confidence, accuracy = (_backend.values(part).ravel() for part in confidence_and_accuracy(y_true, y_pred))
    # The same bins as the metric, in float32 arithmetic like its own.
    index = np.clip(np.ceil(confidence * np.float32(error.num_bins)).astype(int) - 1, 0, error.num_bins - 1)
    size, confidence, accuracy = (
        np.bincount(index, weights, error.num_bins) for weights in (np.ones_like(confidence), confidence, accuracy)
    )
    filled = size > 0
    confidence, accuracy, share = confidence[filled] / size[filled], accuracy[filled] / size[filled], size[filled]
    if ax is None:
        ax = plt.figure(figsize=(5.0, 5.0), layout="constrained").subplots()
    if not any(line.get_gid() == "kmix-diagonal" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", gid="kmix-diagonal")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    (line,) = ax.plot(confidence, accuracy, **{"linewidth": 1.2, **kwargs, "label": label})
    area = 12 + 150 * np.sqrt(share / share.sum())
    ax.scatter(confidence, accuracy, area, color=line.get_color(), alpha=0.7, zorder=3, clip_on=False, linewidths=0)
    return ax


def _pyplot():
    """Matplotlib's pyplot, or an error that says how to get it."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError("kmix.plots needs Matplotlib. Install it: `pip install matplotlib`.") from error
    return matplotlib.pyplot


def _mixture(label, names):
    """A label mixture in words: the largest shares first; only the name if the label is a single class."""
    classes = [c for c in np.argsort(-label, kind="stable")[:3] if label[c] >= 0.005]
    if len(classes) == 1 and label[classes[0]] >= 0.995:
        return str(names[classes[0]])
    return " / ".join(f"{names[c]}: {label[c]:.2f}" for c in classes)
