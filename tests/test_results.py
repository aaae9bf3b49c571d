"""docs/about/results.md says what the result files of the experiments say."""

import importlib.util
import json
import pathlib
import re

import numpy as np
import pytest

pytestmark = pytest.mark.alike

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = ROOT / "examples" / "experiments"
FILES = sorted((EXPERIMENTS / "results").glob("*.json"))

spec = importlib.util.spec_from_file_location("tables", EXPERIMENTS / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


def missing(result, text):
    """Lines of the table of a result, and its command, that a page lacks."""
    table = tables.markdown(result)
    return [*(line for line in table.splitlines() if line not in text.splitlines())] + (
        [] if result["command"] in text and table in text else ["the command or the whole table"]
    )


def numbers(value):
    """All dictionaries with `values` in a result."""
    if isinstance(value, dict):
        if "values" in value:
            yield value
        for one in value.values():
            yield from numbers(one)


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "about" / "results.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_page_says_what_the_result_file_says(path, page):
    assert missing(json.loads(path.read_text()), page) == []


def test_there_are_results_and_the_page_has_no_other_tables(page):
    assert FILES
    lines = {line for result in tables.read().values() for line in tables.markdown(result).splitlines()}
    others = page[page.index("## What the papers report") :] if "## What the papers report" in page else ""
    assert [line for line in page.replace(others, "").splitlines() if line[:1] == "|" and line not in lines] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_means_and_differences_are_those_of_the_seeds(path):
    result = json.loads(path.read_text())
    assert len(result["seeds"]) >= 5
    assert {"python", "kmix", "keras", "numpy"} <= set(result["versions"])
    for one in numbers(result["cases"]):
        assert len(one["values"]) == len(result["seeds"])
        np.testing.assert_allclose(one["mean"], np.mean(one["values"]), atol=2e-6)
        np.testing.assert_allclose(one["std"], np.std(one["values"], ddof=1), atol=2e-6)
    assert path.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_changed_number_is_noticed(path, page):
    result = json.loads(path.read_text())
    found = list(numbers(result["cases"]))
    shown = [one for one in found if "mean" in one]
    shown[0]["mean"] += 0.01
    assert missing(result, page) != []

    result = json.loads(path.read_text())
    number = re.search(r"\d+\.\d", tables.markdown(result))[0]
    assert missing(result, page.replace(number, "98.76")) != []
