"""What predictions are worth: scores of a model, how two differ over their seeds, and what that allows to say."""

from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.metrics import ExpectedCalibrationError

# An interval that is shorter has none.
NO_WIDTH = 1e-9


class Metric(NamedTuple):
    """How a score is shown, and how the verdict calls it: `better` is 1 where more is better, -1 where less is."""

    title: str
    noun: str
    better: int
    factor: float = 1.0

    def show(self, value: float, sign: str = "") -> str:
        """A value, or a difference with its sign, as text in the unit of the metric."""
        return f"{value * self.factor:{sign}.{2 if self.factor > 1 else 3}f}"


METRICS = {
    "error": Metric("error (%)", "error", -1, 100),
    "nll": Metric("NLL (nats)", "likelihood", -1),
    "brier": Metric("Brier score", "Brier score", -1),
    "ece": Metric("ECE (%)", "calibration", -1, 100),
    "confidence_gap": Metric("overconfidence (%)", "confidence", 0, 100),
    "worst_recall": Metric("worst recall (%)", "worst-class recall", 1, 100),
    "auroc_out": Metric("AUROC, x_out", "detection of x_out", 1),
    "error_fgsm": Metric("FGSM error (%)", "error under FGSM", -1, 100),
}


def label_shares(y: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Labels of one class a sample, ids `(B,)` or `(B, 1)` or soft labels `(B, C)`, as float64 shares `(B, C)`.

    Args:
        y: The labels. Others raise.
        classes: The number of classes C of the predictions; None if it is not known yet, then `y` comes back.

    Example:
        >>> from kmix.diagnostics.scores import label_shares
        >>> label_shares(np.array([2, 0]), 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    known = f" for the {classes} classes of the outputs" if classes else ""
    soft = y.ndim == 2 and y.shape[1] > 1
    fits = y.ndim in (1, 2) and (not soft or y.shape[1] == (classes or y.shape[1]))
    if y.dtype.kind not in "biuf" or not y.size or not fits:
        received = f"y of shape {y.shape} and dtype {y.dtype.name}"
        _checks.fail(f"`y` must hold class ids (B,) or (B, 1), or soft labels (B, C){known}.", received)
    received = f"y from {y.min():g} to {y.max():g}"
    if soft and not (y.min() >= 0 and np.allclose(y.sum(axis=1), 1.0, atol=1e-3)):
        _checks.fail(
            "Soft labels must be shares >= 0 that sum to 1.",
            f"{received}, and sums of rows {_range(y.sum(axis=1))}",
            "These scores are for one class a sample, not for tags (multi-hot labels): score each column by itself.",
        )
    if not soft and not (y.min() >= 0 and y.max() < (classes or np.inf) and np.all(y == np.floor(y))):
        top = f" to {classes - 1}{known}" if classes else ""
        _checks.fail(f"Class ids must be whole numbers from 0{top}.", received)
    if classes is None:
        return y
    return y.astype("float64") if soft else np.eye(classes)[y.reshape(-1).astype(int)]


def probabilities(outputs: Any, name: str, from_logits: bool = False) -> np.ndarray:
    """Outputs `(B, C)` of a model as float64 probabilities; a single column is that of the second of two classes.

    Example:
        >>> from kmix.diagnostics.scores import probabilities
        >>> probabilities(np.array([[0.25]]), "a").tolist()
        [[0.75, 0.25]]
    """
    if keras.tree.is_nested(outputs):
        received = f"{len(keras.tree.flatten(outputs))} outputs in a {type(outputs).__name__} for {name!r}"
        hint = "Choose one of them: `keras.Model(model.inputs, model.outputs[0])`."
        _checks.fail("A model must have one output, an array of probabilities (B, C).", received, hint)
    p = _backend.values(outputs)
    if p.ndim != 2 or not p.size or p.dtype.kind not in "biufV":
        received = f"an array of shape {p.shape} and dtype {p.dtype.name} for {name!r}"
        _checks.fail("Predictions must have the shape (B, C), or (B, 1) for a single sigmoid column.", received)
    p = p.astype("float64")
    if not np.isfinite(p).all():
        _checks.fail("Predictions must be finite.", f"NaN or infinite predictions for {name!r}")
    if p.shape[1] == 1:
        p = np.concatenate([np.zeros_like(p) if from_logits else 1.0 - p, p], axis=1)
    if from_logits:
        p = np.exp(p - p.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)
    # Half precision sums to 1 within a percent.
    inside, sums = p.min() >= -1e-3 and p.max() <= 1 + 1e-3, p.sum(axis=1)
    if not (inside and np.allclose(sums, 1.0, rtol=0, atol=1e-2)):
        tags = "Each column seems to be a probability of its own, as of tags: these scores are for one class a sample."
        _checks.fail(
            "Outputs must be probabilities, whose rows sum to 1.",
            f"values {_range(p)}, and sums of rows {_range(sums)}, for {name!r}",
            tags if inside else "If they are logits, write `from_logits=True`.",
        )
    return np.clip(p, 0.0, 1.0)


def _range(values):
    return f"from {values.min():.3g} to {values.max():.3g}"


def wrong(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """For each sample whether the predicted class is not that of the label, which is its largest share."""
    return p.argmax(axis=1) != y.argmax(axis=1)


def scores(
    y: Any, p: Any, weights: Any = None, *, out: Any = None, attacked: Any = None, num_bins: int = 15
) -> dict[str, float]:
    """The scores of one model.

    Args:
        y: Labels as shares `(B, C)`.
        p: Probabilities `(B, C)`.
        weights: Sample weights `(B,)`, or None.
        out: Probabilities for inputs from elsewhere, or None.
        attacked: Probabilities for the inputs after an attack, or None.
        num_bins: Number of bins of the calibration error.

    Returns:
        `{name: float}` in the order of `METRICS`.

    Example:
        >>> from kmix.diagnostics.scores import scores
        >>> scores(np.eye(2), np.array([[0.9, 0.1], [0.4, 0.6]]))["error"]
        0.0
    """
    with _checks.installed("scikit-learn", "diagnostics"):
        from sklearn.metrics import recall_score, roc_auc_score
    weights = np.ones(len(y)) if weights is None else weights
    classes, predicted, confidence = y.argmax(axis=1), p.argmax(axis=1), p.max(axis=1)
    counted = np.unique(classes[weights > 0])
    recalls = recall_score(classes, predicted, labels=counted, average=None, sample_weight=weights)
    # As in kmix's metrics, the accuracy that goes with a confidence is the share of the predicted class in the label.
    accuracy = np.take_along_axis(y, predicted[:, None], axis=1)[:, 0]
    each = {
        "error": wrong(y, p),
        # By their formulas, for scikit-learn takes no soft labels. Clipped as it does.
        "nll": -(y * np.log(np.maximum(p, np.finfo("float64").eps))).sum(axis=1),
        "brier": ((p - y) ** 2).sum(axis=1) / (2 if p.shape[1] == 2 else 1),
    }
    if attacked is not None:
        each["error_fgsm"] = wrong(y, attacked)
    found = {name: np.average(values, weights=weights) for name, values in each.items()}
    found["confidence_gap"] = np.average(confidence, weights=weights) - np.average(accuracy, weights=weights)
    found |= {"ece": ExpectedCalibrationError(num_bins)(y, p, weights), "worst_recall": recalls.min()}
    if out is not None:
        inside = np.repeat([1, 0], [len(p), len(out)])
        largest = np.concatenate([confidence, out.max(axis=1)])
        found["auroc_out"] = roc_auc_score(inside, largest, sample_weight=np.concatenate([weights, np.ones(len(out))]))
    return {name: float(found[name]) for name in METRICS if name in found}


class Difference(NamedTuple):
    """A paired difference to the reference: `low` and `high` are the ends of its 95 % interval, or None."""

    mean: float
    low: float | None
    high: float | None
    values: np.ndarray

    @property
    def direction(self) -> int:
        """-1 or 1 if the interval leaves no doubt about the sign, else 0."""
        low, high = self.low or 0.0, self.high or 0.0
        # Discrete scores that differ by the same on each seed are a coincidence, and no proof: width 0 tells nothing.
        return 0 if high - low < NO_WIDTH else int(low > 0) - int(high < 0)


def difference(values: Any, reference: Any) -> Difference:
    """The difference of two lists of scores, paired by position, with its t interval over the seeds.

    Example:
        >>> from kmix.diagnostics.scores import difference
        >>> [round(float(end), 3) for end in difference([0.1, 0.3, 0.2], [0.3, 0.4, 0.3])[:3]]
        [-0.133, -0.277, 0.01]
    """
    values = np.subtract(values, reference)
    mean = float(values.mean())
    if len(values) == 1:
        return Difference(mean, None, None, values)
    with _checks.installed("scipy", "diagnostics"):
        from scipy.stats import t
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Difference(mean, mean - half, mean + half, values)


def difference_of_errors(wrong: Any, reference: Any, weights: Any = None) -> Difference:
    """The difference of the errors of two models, with an interval over the test samples both were asked about.

    Args:
        wrong: For each sample whether the model is wrong.
        reference: The same of the reference.
        weights: Sample weights `(B,)`, or None. They count as `(sum w)^2 / sum w^2` samples (Kish).

    Returns:
        A `Difference` with the adjusted Wald interval of paired proportions (Bonett and Price 2012), which is honest
        for few samples and for models that never disagree, where the plain one has no width.

    Example:
        >>> from kmix.diagnostics.scores import difference_of_errors
        >>> [round(end, 3) for end in difference_of_errors(np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1]))[:3]]
        [-0.25, -0.717, 0.383]
    """
    change = np.subtract(wrong, reference, dtype="float64")
    weights = np.ones(len(change)) if weights is None else weights
    count = weights.sum() ** 2 / (weights**2).sum()
    worse, better = ((count * np.average(c, weights=weights) + 1) / (count + 2) for c in (change > 0, change < 0))
    center, half = worse - better, 1.96 * np.sqrt((worse + better - (worse - better) ** 2) / (count + 2))
    mean = np.average(change, weights=weights)
    low, high = max(-1.0, float(center - half)), min(1.0, float(center + half))
    return Difference(float(mean), low, high, np.array([mean]))


def verdict(name: str, reference: str, differences: dict[str, Difference], gaps: Any, samples: int) -> str:
    """One sentence on what the differences of a model to the reference show, which claims no more than they allow.

    A metric is called better or worse only if its 95 % interval over the seeds excludes 0. With one seed each, only
    the error has an interval, over the test samples, and nothing is said about the others.

    Args:
        name, reference: The names of the two.
        differences: `{metric: Difference}`.
        gaps: The confidence gaps of the model, seed by seed.
        samples: Number of test samples.

    Example:
        >>> from kmix.diagnostics.scores import difference, verdict
        >>> errors = difference([0.10, 0.12, 0.11], [0.13, 0.14, 0.14])
        >>> verdict("mixup", "plain", {"error": errors}, [-0.1, 0.0, 0.1], 500)
        'mixup against plain: lower error on 3 of 3 seeds, by 1.2 to 4.1 points.'
    """
    seeds = len(differences["error"].values)
    parts = [_of_error(differences["error"], seeds, samples)]
    if seeds == 1:
        parts.append("one seed each, so nothing is known about another training, nor about the other scores")
    else:
        found: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for metric, one in differences.items():
            better = METRICS[metric].better
            if better and metric != "error":
                word = {0: "undecided", better: "better", -better: "worse"}[one.direction]
                found[word].append(METRICS[metric].noun)
        parts += [f"{', '.join(nouns)} {word}" for word, nouns in found.items() if nouns]
        decided = "ece" in differences and differences["ece"].direction
        if decided and len({gap > 0 for gap in gaps}) == 1:
            parts.append(f"{'over' if gaps[0] > 0 else 'under'}confident on {seeds} of {seeds} seeds")
    return f"{name} against {reference}: {'; '.join(parts)}."


def _of_error(one, seeds, samples):
    if one.direction:
        ends = sorted(abs(100 * end) for end in (one.low, one.high))
        word = "lower" if one.direction < 0 else "higher"
        count = f"{sum(one.values * one.direction > 0)} of {seeds} seeds" if seeds > 1 else f"these {samples} samples"
        return f"{word} error on {count}, by {ends[0]:.1f} to {ends[1]:.1f} points"
    if one.high - one.low < NO_WIDTH:
        return "error undecided (the same difference on every seed, so no interval)"
    lower = f"lower on {sum(one.values < 0)} of {seeds} seeds, " if seeds > 1 else ""
    return f"error undecided ({lower}{100 * one.low:+.1f} to {100 * one.high:+.1f} points)"
