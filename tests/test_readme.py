"""The README fits on a page, and what it says is true. Its code runs with that of the other pages (`test_pages.py`)."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.alike

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_it_fits_on_a_page():
    assert len(README.splitlines()) <= 130


def test_the_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_times_are_those_of_the_benchmark():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    row = next(line for line in results.splitlines() if line.startswith("| MixUp 128 x 224 x 224 x 3 float32, 2 calls"))
    medians = {f"{float(number):.1f}" for number in re.findall(r"(\d+\.\d+) \(", row)}
    shown = re.findall(r"(\d+\.\d) ms", README)
    assert len(shown) == 4
    assert set(shown) <= medians
