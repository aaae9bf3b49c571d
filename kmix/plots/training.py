"""How training goes: alpha, and what the logs say."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kmix import _backend, _checks
from kmix.plots.canvas import pyplot

# Lines that differ without colours, too.
_STYLES = ("-", "--", ":", "-.")


def alpha_schedule(schedule: Callable[[int], Any] | float, steps: int, *, figure: Any = None) -> Any:
    """Plot a schedule of alpha, and the density of lam that it implies, step by step.

    Args:
        schedule: A callable of the step, from `kmix.schedules` or your own, or a number.
        steps: Number of steps (or epochs) to plot.
        figure: Matplotlib `Figure` or `SubFigure` to draw into. Defaults to a new figure.

    Returns:
        The Matplotlib figure: on the left alpha, on the right the share of lam in each twentieth of [0, 1].

    Raises:
        ValueError: if `steps` is less than 1, or the schedule returns a negative number.
        ImportError: if Matplotlib or SciPy is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from kmix import plots
        >>> figure = plots.alpha_schedule(kmix.schedules.Linear(0.0, 1.0, 10), steps=20)
        >>> float(figure.axes[0].lines[0].get_ydata()[-1])
        1.0
    """
    with _checks.installed("SciPy", "diagnostics"):
        from scipy import stats

    steps = _checks.integer(steps, "steps", 1)
    every = range(steps)
    values = [_backend.values(schedule(step) if callable(schedule) else schedule).item() for step in every]
    alphas = np.array([_checks.real(value, "alpha") for value in values])
    figure = figure or pyplot().figure(figsize=(9.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(every, alphas, color="black")
    left.set(xlabel="step", ylabel="alpha", title="alpha", ylim=(0, None))
    edges = np.linspace(0.0, 1.0, 21)
    # With an alpha of 0, lam is 1.
    shares = [np.diff(stats.beta.cdf(edges, a, a)) if a > 0 else np.eye(20)[-1] for a in alphas]
    image = right.imshow(
        np.transpose(shares),
        "gray_r",
        vmin=0,
        vmax=0.3,
        origin="lower",
        aspect="auto",
        extent=(-0.5, steps - 0.5, 0, 1),
    )
    right.set(xlabel="step", ylabel="lam", title="share of the samples")
    figure.colorbar(image, ax=right, extend="max")
    return figure


def training_curves(histories: Any, *, metrics: Sequence[str] | None = None, figure: Any = None) -> Any:
    """Plot logs of one training or of several, a panel for each metric, with validation as a second line.

    Args:
        histories: A `History` as `fit` returns it, its dictionary, or `{name: history}` to compare.
        metrics: Names of the metrics, without `val_`. Defaults to all that are logged.
        figure: Matplotlib `Figure` or `SubFigure` to draw into. Defaults to a new figure.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if there is nothing to plot, or a metric is not logged.
        ImportError: if Matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from kmix import plots
        >>> logs = {"loss": [1.0, 0.5], "val_loss": [1.2, 0.9]}
        >>> figure = plots.training_curves({"plain": logs, "mixup": logs})
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['plain', 'plain, validation', 'mixup', 'mixup, validation']
    """
    logs = {name: getattr(history, "history", history) for name, history in _by_name(histories).items()}
    logged = list(dict.fromkeys(name.removeprefix("val_") for each in logs.values() for name in each))
    metrics = logged if metrics is None else _checks.names(metrics, "metrics")
    missing = [name for name in metrics if name not in logged]
    if missing or not metrics:
        _checks.fail("`metrics` must be logged.", f"{missing or 'no logs'}", f"Logged are {logged}.")
    figure = figure or pyplot().figure(figsize=(4.2 * len(metrics), 3.4), layout="constrained")
    for ax, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for i, (name, each) in enumerate(logs.items()):
            color = f"C{i}"
            for key, text, width in ((metric, name, 1.2), (f"val_{metric}", f"{name}, validation".lstrip(", "), 2.2)):
                if key in each:
                    epochs = range(1, len(each[key]) + 1)
                    style = {"color": color, "linestyle": _STYLES[i % len(_STYLES)], "linewidth": width}
                    ax.plot(epochs, each[key], label=text or "training", **style)
        ax.set(xlabel="epoch", title=metric)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    return figure


def _by_name(histories):
    """`{name: history}`, with one history under an empty name."""
    if hasattr(histories, "history"):
        return {"": histories}
    if not isinstance(histories, dict) or not histories:
        _checks.fail(
            "`histories` must be a History, its dictionary, or a dictionary of them by name.",
            f"a {type(histories).__name__}" if not isinstance(histories, dict) else "an empty dictionary",
        )
    first = next(iter(histories.values()))
    return histories if hasattr(first, "history") or isinstance(first, dict) else {"": histories}
