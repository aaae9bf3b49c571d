"""How well the confidence of a model is calibrated."""

import numpy as np

from kmix import _backend, _checks
from kmix.metrics import ExpectedCalibrationError, confidence_and_accuracy
from kmix.plots.canvas import pyplot


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
    plt = pyplot()
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
