"""Bad calls raise a ValueError or TypeError that names the argument; `make fuzz` shows those that do not."""

import fuzz
import pytest


@pytest.mark.slow
def test_bad_calls_raise_clear_errors():
    counts, faults = fuzz.run()
    assert faults == []
    assert counts["clear"] > 2500


def unclear(alpha):
    raise ValueError("math domain error, somewhere deep")


def another(alpha):
    return {}[alpha]


def silent(alpha):
    return alpha


@pytest.mark.parametrize(
    ("function", "verdict"), [(unclear, "unclear"), (another, "other error"), (silent, "returned")]
)
def test_faults_are_found(function, verdict):
    assert fuzz.verdict_of(function, {"alpha": -1}, "alpha")[0] == verdict
