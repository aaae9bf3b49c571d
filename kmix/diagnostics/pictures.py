"""The pictures of a comparison, each drawn into axes or figures that are given."""

import numpy as np

from kmix import plots
from kmix.diagnostics.scores import METRICS

COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]


def colors(names, reference):
    """`{name: colour}`: grey for the reference.

    Example:
    >>> from kmix.diagnostics.pictures import colors
    >>> colors(["mixup", "plain"], "plain")
    {'plain': '#666666', 'mixup': '#0072b2'}
    """
    others = [name for name in names if name != reference]
    return {reference: "#666666", **{name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}}


def reliability(ax, y, probabilities, scores, n_bins, colors):
    """One line for each model, over the predictions of all its seeds."""
    for name, seeds in probabilities.items():
        label = f"{name}: ECE {100 * np.mean(scores[name]['ece']):.1f} %"
        plots.reliability_diagram(
            np.concatenate([y] * len(seeds)), np.concatenate(seeds), n_bins, ax=ax, label=label, color=colors[name]
        )
    ax.set_title("Reliability: below the diagonal is overconfident", fontsize="medium")
    ax.legend(loc="upper left", fontsize="small")


def confidence(ax, probabilities, outside, n_bins, colors):
    """How sure each model is, over all its seeds; dashed for the inputs from elsewhere."""
    parts = [(probabilities, "{}", "-"), (outside or {}, "{}, x_out", "--")]
    for models, text, style in parts:
        for name, seeds in models.items():
            values = np.concatenate([p.max(axis=1) for p in seeds])
            weights = np.full(len(values), 100 / len(values))
            ax.hist(
                values,
                np.linspace(0, 1, n_bins + 1),
                weights=weights,
                histtype="step",
                linewidth=1.5,
                linestyle=style,
                color=colors[name],
                label=text.format(name),
            )
    ax.set(xlim=(0, 1), xlabel="confidence", ylabel="share of predictions (%)")
    ax.set_title("Confidence", fontsize="medium")
    ax.legend(loc="upper left", fontsize="small")


def differences(figure, found, reference, columns, colors):
    """A small diagram for each metric: the differences to the reference with their intervals, and each seed.

    `found` is `{name: {metric: Difference}}`.
    """
    metrics = list(next(iter(found.values())))
    columns = min(columns, len(metrics))
    axes = figure.subplots(-(-len(metrics) // columns), columns, squeeze=False).ravel()
    for ax in axes[len(metrics) :]:
        ax.remove()
    for number, (ax, metric) in enumerate(zip(axes, metrics, strict=False)):
        _difference(ax, metric, [one[metric] for one in found.values()], [colors[name] for name in found])
        labels = list(found) if number % columns == 0 else []
        ax.set_yticks(range(len(found)), labels or [""] * len(found))
    figure.suptitle(f"Difference to {reference}, 95 % interval; shaded: better", fontsize="medium")


def _difference(ax, metric, found, colors):
    kind = METRICS[metric]
    for i, (one, color) in enumerate(zip(found, colors, strict=True)):
        ax.plot(one.values * kind.factor, np.full(len(one.values), i + 0.18), ".", color=color, alpha=0.4)
        if one.low is None:
            ax.plot(one.mean * kind.factor, i, "o", color=color)
        else:
            ends = np.array([[one.mean - one.low], [one.high - one.mean]]) * kind.factor
            ax.errorbar(one.mean * kind.factor, i, xerr=ends, fmt="o", capsize=3, color=color)
    ax.axvline(0, color="0.6", linewidth=1, linestyle="--")
    low, high = ax.get_xlim()
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    if kind.better:
        ax.axvspan(*((0, high) if kind.better > 0 else (low, 0)), color="#e5f2ec", zorder=0)
    ax.set(xlim=(low, high), ylim=(len(found) - 0.4, -0.6))
    ax.set_title(kind.title, fontsize="small")
    ax.tick_params(labelsize="small")
    ax.locator_params(axis="x", nbins=4)
