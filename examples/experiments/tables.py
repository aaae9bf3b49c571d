"""The tables of docs/about/results.md, made from the result files: `python examples/experiments/tables.py`."""

import json
import pathlib

RESULTS = pathlib.Path(__file__).parent / "results"
# Score: its title, the factor of its unit, and the decimals.
SCORES = {"error": ("error (%)", 100, 1), "nll": ("NLL (nats)", 1, 2), "ece": ("ECE (%)", 100, 1)}
MINUS = "\N{MINUS SIGN}"


def spread(one, score):
    """Mean ± standard deviation over the seeds."""
    _, factor, decimals = SCORES[score]
    std = "" if one["std"] is None else f" ± {factor * one['std']:.{decimals}f}"
    return f"{factor * one['mean']:.{decimals}f}{std}"


def change(one, score):
    """The paired difference to plain, with its 95 % interval."""
    if "difference" not in one:
        return ""
    _, factor, decimals = SCORES[score]
    mean, *ends = (one["difference"][key] for key in ("mean", "low", "high"))
    mean, *ends = (None if v is None else f"{factor * v:+.{decimals}f}".replace("-", MINUS) for v in (mean, *ends))
    return mean if None in ends else f"{mean} [{', '.join(ends)}]"


def lower(one, plain):
    """On how many seeds a method has a lower score than plain training."""
    wins = sum(a < b for a, b in zip(one["values"], plain["values"], strict=True))
    return f"{wins} of {len(one['values'])}"


def noisy_labels(result):
    """The table of `noisy_labels.py`."""
    differences = "best, minus plain [95 %]", "last, minus plain [95 %]"
    yield "labels replaced", "method", "best epoch", "last epoch", *differences, "last is lower on", "fits (%)"
    for noise, case in result["cases"].items():
        for method, fits in case["fits"].items():
            both = [case[part][method]["error"] for part in ("best", "last")]
            wins = "" if method == "plain" else lower(both[1], case["last"]["plain"]["error"])
            cells = [cell(one, "error") for cell in (spread, change) for one in both]
            yield noise, method, *cells, wins, spread(fits, "error")


def by_case(first):
    """A table with the scores of each method on each training set, whose names the column `first` holds."""

    def table(result):
        pairs = (part for title, *_ in SCORES.values() for part in (title, "minus plain [95 %]"))
        yield first, "method", *pairs, "fits (%)"
        for name, case in result["cases"].items():
            for method, scores in case.items():
                cells = (cell(scores[score], score) for score in SCORES for cell in (spread, change))
                yield name, method, *cells, f"{100 * result['fits'][name][method]:.1f}"

    return table


def regularisers(result):
    """The table of `regularisers.py`: next to the difference to plain training, the one to training without MixUp."""
    parts = ("minus plain [95 %]", "MixUp adds [95 %]")
    yield "method", *(part for title, *_ in SCORES.values() for part in (title, *parts)), "fits (%)"
    ((name, case),) = result["cases"].items()
    for method, scores in case.items():
        added = result["added"].get(method, {})
        cells = (
            cell
            for score in SCORES
            for cell in (
                spread(scores[score], score),
                change(scores[score], score),
                change({"difference": added[score]}, score) if added else "",
            )
        )
        yield method, *cells, f"{100 * result['fits'][name][method]:.1f}"


# Title: the part of a case, the score, and the score of `SCORES` with its factor and decimals.
BORDERLINE = {
    "error, all (%)": ("all", "error", "error"),
    "error, overlapping (%)": ("overlapping", "error", "error"),
    "ECE, all (%)": ("all", "ece", "ece"),
    "AUROC, out of scope (%)": ("all", "auroc_out", "error"),
    "between: neither (%)": ("between", "neither", "error"),
    "between: gradient": ("between", "gradient", "nll"),
}


def borderline_intents(result):
    """The table of `borderline_intents.py`."""
    cases = result["cases"]
    yield "score", "method", *(title for encoder in cases for title in (encoder, "minus plain [95 %]"))
    for title, (part, score, unit) in BORDERLINE.items():
        for method in next(iter(cases.values()))[part]:
            found = [case[part][method][score] for case in cases.values()]
            yield title, method, *(cell(one, unit) for one in found for cell in (spread, change))


RENDER = {
    "noisy_labels": noisy_labels,
    "few_samples": by_case("images"),
    "where_to_mix": by_case("images"),
    "pairing_rules": by_case("images"),
    "regularisers": regularisers,
    "alphas": by_case("images"),
    "borderline_intents": borderline_intents,
}


def rows(result):
    """The rows of the table of a result, the first with the names of the columns."""
    return list(RENDER[result["experiment"]](result))


def markdown(result):
    """A result as a table in Markdown."""
    head, *body = rows(result)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def read():
    """All result files, by name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


if __name__ == "__main__":
    for name, result in read().items():
        print(f"{name}\n\n{markdown(result)}\n")
