"""Small functions against their formulas, where no test of a whole batch would notice a slip."""

import numpy as np
import pytest

import kmix
from kmix import _backend
from kmix.plan import streams

LABELS = {
    "numbers": np.array([0.0, 1.0, 4.0, 4.0]),
    "columns": np.array([[0.0, 10.0], [1.0, 30.0], [4.0, 20.0], [4.0, -5.0]]),
    "a constant column": np.array([[0.0, 2.0], [1.0, 2.0], [4.0, 2.0], [4.0, 2.0]]),
}


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_score_of_similar_labels_is_gaussian_in_standard_deviations(labels, bandwidth):
    y = labels.reshape(len(labels), -1)
    deviation = y.std(axis=0)
    z = (y - y.mean(axis=0)) / np.where(deviation > 0, deviation, 1) / bandwidth
    expected = -((z[:, None] - z[None]) ** 2).sum(axis=-1) / 2
    rule = kmix.pairing.SimilarLabels(bandwidth)
    score = rule.score(_backend.NUMPY, {"labels": labels.astype("float32")})
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-6)
    assert kmix.pairing.SimilarLabels().bandwidth == 0.5


@pytest.fixture
def reserved(monkeypatch):
    """No streams are reserved but those of the owner."""
    monkeypatch.setattr(streams, "_RESERVED", {})
    assert kmix.plan.reserve("owner", 1000, 10) == 1000


@pytest.mark.parametrize(("first", "count"), [(990, 10), (1010, 10), (1010, 1), (0, 1000)])
def test_streams_may_touch(reserved, first, count):
    assert kmix.plan.reserve("other", first, count) == first
    streams.check(first, count)
    streams.check(first + count - 1, 1)
    with pytest.raises(ValueError, match="reserved"):
        streams.check(first, count + 1 if first > 1000 else 2 * count + 11)


@pytest.mark.parametrize(("first", "count"), [(990, 11), (1009, 1), (1000, 10), (1004, 2), (900, 500), (995, 16)])
def test_streams_may_not_overlap(reserved, first, count):
    with pytest.raises(ValueError, match="only one owner"):
        kmix.plan.reserve("other", first, count)
    assert kmix.plan.reserve("owner", first, count) == first


def test_16_streams_are_reserved_below_the_end(reserved):
    assert kmix.plan.reserve("last", 2**16 - 16) == 2**16 - 16
    streams.check(2**16 - 16, 16)
    for first in (2**16 - 15, 2**16):
        with pytest.raises(ValueError, match="below 65536"):
            kmix.plan.reserve("late", first)
    with pytest.raises(ValueError, match="count"):
        kmix.plan.reserve("none", 5000, 0)


def test_the_partners_of_audio_mix_follow_each_other_in_a_cycle():
    plan = kmix.plan.sample_audio_mix(seed=3, step=5, alpha=1.0, batch_size=6, num_sources=4)
    first, second, third = plan.partners
    np.testing.assert_array_equal(second, first[first])
    np.testing.assert_array_equal(third, first[second])
    np.testing.assert_array_equal(first, [4, 0, 5, 2, 3, 1])


def test_a_schedule_shows_its_arguments():
    linear = kmix.schedules.Linear(0.25, 0.5, 10)
    assert repr(linear) == "Linear(init_value=0.25, end_value=0.5, transition_steps=10, transition_begin=0)"
