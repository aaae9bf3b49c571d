"""How findings are shown: one table as text, as HTML for a notebook, and as a page with pictures."""

import base64
import html
import io
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kmix import plots
from kmix.diagnostics.scores import METRICS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem;
       max-width: 70rem; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0.5rem 0; }
.finding { font-size: 1.1rem; border-left: 4px solid #0072b2; padding-left: 0.75rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; text-align: left; white-space: nowrap; }
tr.first { border-top: 1px solid #d8d8d8; }
td.number { text-align: right; }
.better { color: #006d4e; font-weight: 600; }
.worse { color: #a33c00; font-weight: 600; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.pictures img { display: block; max-width: 100%; height: auto; }
@media (max-width: 40rem) { th, td { padding: 0.2rem 0.35rem; font-size: 0.8rem; } h1 { font-size: 1.2rem; } }
.note { color: #555; font-size: 0.9rem; }
"""
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]


class Report(NamedTuple):
    """A table with what there is to say about it.

    Attributes:
        title: What it is about.
        columns: The names of the columns.
        rows: Rows of texts, as many as there are columns. An empty first cell continues the row above.
        findings: Sentences, the most important first.
        notes: What a reader should know of the table.

    Example:
        >>> from kmix.diagnostics.report import Report
        >>> print(Report("Scores", ["metric", "mean"], [["error", "0.12"]], ["One seed."]).text())
        Scores
         metric  mean
         ────────────
         error   0.12
        One seed.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def _are_numbers(self):
        """For each column whether it holds numbers, which stand at the right."""
        columns = [[cell for cell in column if cell.strip()] for column in zip(*self.rows, strict=True)]
        return [bool(cells) and all(cell[0] in "+-0123456789" for cell in cells) for cells in columns]

    def text(self) -> str:
        """The report for a terminal, without a line break at its end."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        aligns = [str.rjust if number else str.ljust for number in self._are_numbers()]
        lines = [
            " " + "  ".join(align(cell, width) for align, cell, width in zip(aligns, line, widths, strict=True))
            for line in (self.columns, *self.rows)
        ]
        lines.insert(1, " " + "─" * (sum(widths) + 2 * len(widths) - 2))
        screen = shutil.get_terminal_size((100, 24)).columns
        paragraphs = [textwrap.fill(paragraph, screen) for paragraph in (*self.findings, *self.notes)]
        return "\n".join([self.title, *(line.rstrip() for line in lines), *paragraphs])

    def html(self, pictures: Iterable[tuple[str, Any]] = ()) -> str:
        """All but the title as a fragment of HTML. `pictures` are descriptions and Matplotlib figures.

        Example:
            >>> from kmix.diagnostics.report import Report
            >>> "<td>a &lt; b</td>" in Report("Scores", ["name"], [["a < b"]]).html()
            True
        """
        numbers, escape = self._are_numbers(), html.escape

        def cell(text, number):
            name = text if text in ("better", "worse") else "number" if number else ""
            return f'<td class="{name}">{escape(text)}</td>' if name else f"<td>{escape(text)}</td>"

        lines = ["".join(f"<th>{escape(column)}</th>" for column in self.columns)]
        lines += ["".join(map(cell, row, numbers)) for row in self.rows]
        # A line above each row that names what it and the rows below it are about.
        starts = ["", *(' class="first"' if row[0] else "" for row in self.rows)]
        table = "".join(f"<tr{start}>{line}</tr>\n" for start, line in zip(starts, lines, strict=True))
        findings = "".join(f'<p class="finding">{escape(text)}</p>\n' for text in self.findings)
        images = "".join(_image(*picture) for picture in pictures)
        images = f'<div class="pictures">\n{images}</div>\n' if images else ""
        notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in self.notes)
        table = f'<div class="scroll">\n<table>\n{table}</table>\n</div>\n'
        return f"{findings}{table}{images}{notes}"

    def page(self, pictures: Iterable[tuple[str, Any]] = ()) -> str:
        """A page that holds all it shows: no script, no style sheet, no picture from elsewhere."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<h1>{html.escape(self.title)}</h1>\n{self.html(pictures)}</body>\n</html>\n"
        )


class Reported:
    """Shows the `Report` that `report()` of a subclass returns, in a terminal and in a notebook."""

    def report(self) -> Report:
        """What is shown."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.report().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        report = self.report()
        return f"<h3>{html.escape(report.title)}</h3>\n{report.html()}"


def _image(description, figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=160)
    width = round(96 * figure.get_figwidth())
    source = base64.b64encode(data.getvalue()).decode()
    return f'<img width="{width}" alt="{html.escape(description)}" src="data:image/png;base64,{source}">\n'


def colors_of(names: Iterable[str], reference: str) -> dict[str, str]:
    """`{name: colour}`: grey for the reference.

    Example:
        >>> from kmix.diagnostics.report import colors_of
        >>> colors_of(["mixup", "plain"], "plain")
        {'plain': '#666666', 'mixup': '#0072b2'}
    """
    others = [name for name in names if name != reference]
    return {reference: "#666666", **{name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}}


def draw_comparison(found: Any, left: Any, right: Any, below: Any, *, columns: int) -> None:
    """Draw a `Comparison`: reliability and confidence into two axes, and the differences into a figure.

    Args:
        found: The `Comparison`.
        left, right: Matplotlib `Axes`.
        below: A Matplotlib `Figure` or `SubFigure`.
        columns: Number of diagrams of differences in a row.
    """
    colors = colors_of(found.probabilities, found.reference)
    _draw_reliability(left, found, colors)
    _draw_confidence(right, found, colors)
    metrics = list(found.scores[found.reference])
    columns = min(columns, len(metrics))
    axes = below.subplots(-(-len(metrics) // columns), columns, squeeze=False).ravel()
    for ax in axes[len(metrics) :]:
        ax.remove()
    names = list(found.differences)
    for number, (ax, metric) in enumerate(zip(axes, metrics, strict=False)):
        _draw_difference(ax, METRICS[metric], {name: found.differences[name][metric] for name in names}, colors)
        ax.set_yticks(range(len(names)), names if number % columns == 0 else [""] * len(names))
    below.suptitle(f"Difference to {found.reference}, 95 % interval; shaded: better", fontsize="medium")


def _draw_reliability(ax, found, colors):
    """One line for each model, over the predictions of all its seeds."""
    for name, seeds in found.probabilities.items():
        plots.reliability_diagram(
            np.concatenate([found.y] * len(seeds)),
            np.concatenate(seeds),
            sample_weight=None if found.sample_weight is None else np.tile(found.sample_weight, len(seeds)),
            num_bins=found.num_bins,
            ax=ax,
            label=f"{name}: ECE {100 * np.mean(found.scores[name]['ece']):.1f} %",
            color=colors[name],
        )
    ax.set_title("Reliability: below the diagonal is overconfident", fontsize="medium")
    ax.legend(loc="upper left", fontsize="small")


def _draw_confidence(ax, found, colors):
    """How sure each model is, over all its seeds; dashed for the inputs from elsewhere."""
    parts = [(found.probabilities, found.sample_weight, "{}", "-"), (found.outside or {}, None, "{}, x_out", "--")]
    edges = np.linspace(0, 1, found.num_bins + 1)
    for models, weights, text, style in parts:
        for name, seeds in models.items():
            values = np.concatenate([p.max(axis=1) for p in seeds])
            counts = np.ones(len(values)) if weights is None else np.tile(weights, len(seeds))
            shown = {"histtype": "step", "linewidth": 1.5, "linestyle": style, "color": colors[name]}
            ax.hist(values, edges, weights=100 * counts / counts.sum(), label=text.format(name), **shown)
    ax.set(xlim=(0, 1), xlabel="confidence", ylabel="share of predictions (%)")
    ax.set_title("Confidence", fontsize="medium")
    ax.legend(loc="upper left", fontsize="small")


def _draw_difference(ax, metric, found, colors):
    """The differences of one score with their intervals, and each seed. `found` is `{name: Difference}`."""
    for i, (name, one) in enumerate(found.items()):
        color = colors[name]
        ax.plot(one.values * metric.factor, np.full(len(one.values), i + 0.18), ".", color=color, alpha=0.4)
        if one.low is None:
            ax.plot(one.mean * metric.factor, i, "o", color=color)
        else:
            ends = np.array([[one.mean - one.low], [one.high - one.mean]]) * metric.factor
            ax.errorbar(one.mean * metric.factor, i, xerr=ends, fmt="o", capsize=3, color=color)
    ax.axvline(0, color="0.6", linewidth=1, linestyle="--")
    low, high = ax.get_xlim()
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    if metric.better:
        ax.axvspan(*((0, high) if metric.better > 0 else (low, 0)), color="#e5f2ec", zorder=0)
    ax.set(xlim=(low, high), ylim=(len(found) - 0.4, -0.6))
    ax.set_title(metric.title, fontsize="small")
    ax.tick_params(labelsize="small")
    ax.locator_params(axis="x", nbins=4)
