"""Scores of several methods, seed by seed: the tables and the panels of `segmentation.py` and `detection.py`."""

import numpy as np
from rich.table import Table
from scipy import stats


def print_tables(console, scores, names, decimals, title):
    """The scores, and what mixing changes, seed by seed, from {method: scores (seeds, training and test, names)}."""
    seeds = len(scores["none"])
    table = Table("method", *(f"{name}, {part}" for part in ("training", "test") for name in names), title=title)
    table.caption = "mean ± standard deviation over the seeds; training scenes are not mixed here"
    changes = Table("minus none", *(f"{name}, test" for name in names))
    changes.caption = "mean over the seeds ± half of its 95 % interval"
    quantile = stats.t.ppf(0.975, seeds - 1)
    for method, values in scores.items():
        columns = zip(values.reshape(seeds, -1).T, 2 * decimals, strict=True)
        table.add_row(method, *(f"{v.mean():.{d}f} ± {v.std(ddof=1):.{d}f}" for v, d in columns))
        if method != "none":
            columns = zip((values - scores["none"])[:, 1].T, decimals, strict=True)
            changes.add_row(method, *(f"{c.mean():+.{d}f} ± {quantile * stats.sem(c):.{d}f}" for c, d in columns))
    console.print(table, changes)


def draw(figure, scores, titles, colors, markers):
    """The scores on the test scenes, seed by seed."""
    for column, (ax, title) in enumerate(zip(figure.subplots(1, len(titles)), titles, strict=True)):
        for place, (method, values) in enumerate(scores.items()):
            values = values[:, 1, column]
            shifts = np.linspace(-0.2, 0.2, len(values))
            ax.plot(place + shifts, values, color=colors[method], marker=markers[method], linestyle="", ms=8)
            ax.hlines(values.mean(), place - 0.35, place + 0.35, color="black", lw=2)
        ax.set_xticks(range(len(scores)), scores)
        ax.set(title=title, xlim=(-0.6, len(scores) - 0.4))
        ax.grid(axis="y", alpha=0.3)
    figure.suptitle("Test scenes. Markers: seeds, from the left. Line: mean.")
