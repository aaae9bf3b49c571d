"""One sentence on what a comparison shows, which claims no more than its intervals allow."""

from kmix.diagnostics.scores import METRICS


def sentence(name, reference, differences, gaps, samples):
    """What the differences of a model to the reference show.

    A metric is called better or worse only if its 95 % interval over the seeds excludes 0. With one seed each, only
    the error has an interval, over the test samples, and nothing is said about the others.

    Args:
        name, reference: The names of the two.
        differences: `{metric: Difference}`.
        gaps: The confidence gaps of the model, seed by seed.
        samples: Number of test samples.

    Example:
    >>> from kmix.diagnostics.scores import difference
    >>> from kmix.diagnostics.verdict import sentence
    >>> errors = difference([0.10, 0.12, 0.11], [0.13, 0.14, 0.14])
    >>> sentence("mixup", "plain", {"error": errors}, [-0.1, 0.0, 0.1], 500)
    'mixup against plain: lower error on 3 of 3 seeds, by 1.2 to 4.1 points.'
    """
    seeds = len(differences["error"].values)
    parts = [_error(differences["error"], seeds, samples)]
    if seeds > 1:
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
    else:
        parts.append("one seed each, so nothing is known about another training, nor about the other scores")
    return f"{name} against {reference}: {'; '.join(parts)}."


def _error(one, seeds, samples):
    if one.direction:
        ends = sorted(abs(100 * end) for end in (one.low, one.high))
        count = sum(one.values * one.direction > 0)
        where = f"{count} of {seeds} seeds" if seeds > 1 else f"these {samples} samples"
        return (
            f"{'lower' if one.direction < 0 else 'higher'} error on {where}, by {ends[0]:.1f} to {ends[1]:.1f} points"
        )
    if not one.has_width:
        return "error undecided (the same difference on every seed, so no interval)"
    lower = f"lower on {sum(one.values < 0)} of {seeds} seeds, " if seeds > 1 else ""
    return f"error undecided ({lower}{100 * one.low:+.1f} to {100 * one.high:+.1f} points)"
