"""Generated batches are mixed right; `make soak` makes as many of them as one likes."""

import pytest
import soak
from helpers import every_path
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = {"numpy": 100, "native": 6, "tfdata": 4}


@pytest.mark.fast("numpy")
@every_path
def test_generated_batches(path):
    @settings(max_examples=EXAMPLES[path], deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 10**9))
    def check(number):
        soak.check(soak.case(number), path)

    check()


def test_a_case_is_a_function_of_its_number():
    one, again, other = soak.case(5), soak.case(5), soak.case(6)
    assert one.layer.get_config() | {"name": ""} == again.layer.get_config() | {"name": ""}
    soak.assert_same(one.batch, again.batch)
    assert one.layer.get_config() != other.layer.get_config()


@pytest.mark.parametrize("fault", ["values", "labels", "given batch"])
def test_a_fault_is_found(fault, monkeypatch):
    at_step = soak.at_step

    def wrong(path, layer, step, batch):
        x, y, *weight = at_step(path, layer, step, batch)
        if fault == "given batch":
            batch[0][0] += 1
        return (2 * x if fault == "values" else x), (y[::-1] if fault == "labels" else y), *weight

    one = next(one for one in map(soak.case, range(1000)) if is_plain(one))
    soak.check(one, "numpy")
    monkeypatch.setattr(soak, "at_step", wrong)
    monkeypatch.setattr(soak.contract, "at_step", wrong)
    with pytest.raises(AssertionError):
        soak.check(one, "numpy")


def is_plain(one):
    """Whether a case has images, and labels that differ."""
    x, y, *_ = one.batch
    return type(one.layer).__name__ == "MixUp" and getattr(x, "dtype", "") == "float32" and getattr(y, "ndim", 0) == 2
