"""The page of measured results."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parent.parent / "benchmarks" / "results.py"
spec = importlib.util.spec_from_file_location("results", PATH)
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def test_a_benchmark_rewrites_its_own_section(tmp_path):
    page = tmp_path / "RESULTS.md"
    for name, text in [("a", "one"), ("b", "two"), ("a", r"three \1")]:
        results.write_section(name, text, page)
    text = page.read_text()
    assert text.startswith("# Measured")
    assert "one" not in text
    assert text.index("<!-- a -->\nthree \\1\n<!-- /a -->") < text.index("<!-- b -->\ntwo\n<!-- /b -->")


def test_tables():
    assert results.table(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert "numpy" in results.machine("numpy", "not-a-package")
