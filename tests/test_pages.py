"""The documentation: its code runs, its lines fit, its API is the public one."""

import ast
import configparser
import importlib
import inspect
import re

import keras
import pages
import pytest

import kmix

BACKEND = keras.backend.backend()
DOCS = pages.DOCS
README = pages.ROOT / "README.md"
PAGES = [README, *pages.pages()]
HAS_CODE = [path for path in PAGES if list(pages.blocks(path.read_text()))]


def name_of(path):
    return str(path.relative_to(pages.ROOT))


# README and the first pages run on every backend, and the others on one: what they call is tested everywhere.
def backends_of(path):
    matter = pages.front_matter(path.read_text())
    allowed = matter.get("backends", ["tensorflow", "jax", "torch"])
    if path == README or path.parent.name == "start":
        return allowed
    if set(matter.get("needs", [])) - {"tensorflow"}:
        # `make test-tensorflow` runs without other packages.
        allowed = [name for name in allowed if name != "tensorflow"]
    # PyTorch compiles nothing, so pages run fastest there.
    return allowed[-1:]


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in HAS_CODE if BACKEND in backends_of(path)], ids=name_of)
def test_the_code_of_a_page_runs(path, tmp_path, monkeypatch):
    for package in pages.front_matter(path.read_text()).get("needs", []):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    pages.run(path)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_are_well_formed(path):
    text = path.read_text()
    assert re.search(r"^# \S", re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    assert set(pages.front_matter(text)) <= {"needs", "backends"}
    for first, code, _ in pages.blocks(text):
        ast.parse(code)
        for number, line in enumerate(code.splitlines(), first + 1):
            assert len(line) <= pages.WIDTH, f"{path.name}:{number} is too long for the column"


def public_names():
    """Every public name once, by its shortest address: `kmix.MixUp`, `kmix.targets.Labels`."""
    top = {name for name in kmix.__all__ if not inspect.ismodule(getattr(kmix, name))}
    yield from (f"kmix.{name}" for name in top)
    for module in kmix.__all__:
        if inspect.ismodule(getattr(kmix, module)):
            yield from (f"kmix.{module}.{name}" for name in getattr(kmix, module).__all__ if name not in top)


def test_the_api_lists_every_public_name_once():
    text = (DOCS / "api" / "index.md").read_text()
    listed = re.findall(r"^ +(kmix(?:\.\w+)+)$", text, flags=re.MULTILINE)
    types = [f"kmix.typing.{name}" for name in kmix.typing.__all__]
    listed += re.findall(r"^:::\{py:data\} (kmix\.typing\.\w+)", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(public_names())
    assert set(types) <= set(listed)


@pytest.mark.alike
def test_links_of_the_readme_go_to_the_site():
    setup = configparser.ConfigParser()
    setup.read(pages.ROOT / "setup.cfg")
    site = dict(line.split(" = ") for line in setup["metadata"]["project_urls"].strip().splitlines())["Documentation"]
    links = re.findall(r"(?:\]\(|src=\"|srcset=\")(\S+?)[)\"]", README.read_text())
    assert len(links) > 5
    for link in links:
        if link.startswith(f"{site}_static/"):
            assert (DOCS / link.removeprefix(site)).exists(), link
        elif link.startswith(site):
            page = link.removeprefix(site).partition("#")[0]
            source = DOCS / (page.removesuffix(".html") + ".md" if page else "index.md")
            assert source.exists() or page.startswith("gallery/"), link
        else:
            assert link.startswith("https://"), f"{link} works neither on the site nor in an index"


def test_a_measured_table_is_that_of_the_file(monkeypatch):
    pytest.importorskip("docutils", reason="the packages of the site are not installed")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    measured = importlib.import_module("measured")
    text = "a\n\n| method | x | y |\n| --- | --- | --- |\n| plain | 1 | 2 |\n| mixup | 3 | 4 |\n"
    assert measured.table(text, ["mixup"], ["method", "y"]) == ["| method | y |", "| --- | --- |", "| mixup | 4 |"]
    with pytest.raises(ValueError, match="cutmix"):
        measured.table(text, ["cutmix"])


@pytest.mark.alike
@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_measured_numbers_come_from_result_files(path):
    """No page but the results, whose test compares each table, has a mean and its spread by hand."""
    if path.name == "results.md":
        return
    outside = re.sub(r"^:::\{measured\}.*?^:::$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^.*\d ± \d.*$", outside, flags=re.MULTILINE) == []
