"""A comparison as the columns, rows and notes of a table."""

from kmix.diagnostics.scores import METRICS

NOTES = {
    "seeds": (
        "In brackets: the 95 % t interval of the mean difference over the seeds, paired by position. Each is for one "
        "score alone: of twenty, one is expected to miss."
    ),
    "samples": (
        "One seed each: no interval over seeds. That of the error is over the test samples: how these two models "
        "differ on new samples, and nothing about another training."
    ),
    "fgsm": (
        "FGSM moved each input by eps = {:g}, in one step. It is a weak attack: a small error under it is no proof of "
        "robustness."
    ),
}


def table(comparison):
    """The columns, the rows (a line for each score and model), and the notes that belong to them.

    Example:
    >>> from kmix.diagnostics import Comparison
    >>> from kmix.diagnostics.rows import table
    >>> p = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> table(Comparison(np.eye(2), {"a": [p, p], "b": [p, p]}, reference="a"))[1][:2]
    [['error (%)', 'a', '50.00 ± 0.00', '', ''], ['', 'b', '50.00 ± 0.00', '+0.00 [+0.00, +0.00]', 'undecided']]
    """
    columns = ["score", "model", "mean ± std" if comparison.seeds > 1 else "value"]
    columns += ["difference [95 %]", "is"]
    rows = []
    for metric in comparison.scores[comparison.reference]:
        title = METRICS[metric].title
        for name, found in comparison.scores.items():
            rows.append([title, name, _value(metric, found[metric]), *_change(comparison, metric, name)])
            title = ""
    notes = [NOTES[comparison.interval]]
    if comparison.eps is not None:
        notes.append(NOTES["fgsm"].format(comparison.eps))
    return columns, rows, notes


def _value(metric, values):
    show = METRICS[metric].show
    return show(values.mean()) + (f" ± {show(values.std(ddof=1))}" if len(values) > 1 else "")


def _change(comparison, metric, name):
    if name == comparison.reference:
        return "", ""
    kind, one = METRICS[metric], comparison.differences[name][metric]
    text = kind.show(one.mean, "+")
    if one.low is None:
        return text, ""
    text += f" [{kind.show(one.low, '+')}, {kind.show(one.high, '+')}]"
    return text, {0: "undecided", 1: "better", -1: "worse"}[one.direction * kind.better] if kind.better else ""
