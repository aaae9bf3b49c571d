"""The scripts of the gallery can be built: their form, without running them, which the build of the site does."""

import ast
import pathlib
import re

import pytest

import kmix

GALLERY = pathlib.Path(__file__).parent.parent / "examples" / "gallery"
SCRIPTS = sorted(GALLERY.rglob("plot_*.py"))
WIDTH = 79

pytestmark = [pytest.mark.slow, pytest.mark.alike]


def imported(tree):
    """The dotted names that a script imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_scripts_in_sections_with_headers():
    assert len(SCRIPTS) >= 14
    for folder in {script.parent for script in SCRIPTS} | {GALLERY}:
        header = (folder / "GALLERY_HEADER.rst").read_text()
        assert re.match(r"\S.*\n([=-])\1+\n\n\S", header), f"{folder.name} has no title and sentence"


def test_the_names_of_scripts_differ():
    """The build writes `<name>.rst`, and readers link to it."""
    names = [script.stem for script in SCRIPTS]
    assert len(set(names)) == len(names)


def test_the_site_orders_every_section():
    text = (GALLERY.parent.parent / "docs" / "conf.py").read_text()
    (listed,) = re.findall(r'"subsection_order": \[(.*?)\],', text, flags=re.DOTALL)
    sections = {folder.name for folder in GALLERY.iterdir() if (folder / "GALLERY_HEADER.rst").exists()}
    assert set(re.findall(r'"(\w+)"', listed)) == sections


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_well_formed(path):
    text = path.read_text()
    tree = ast.parse(text)
    compile(tree, path.name, "exec")
    docstring = ast.get_docstring(tree)
    title, line, *rest = docstring.splitlines()
    assert line == "=" * len(title), "the docstring must begin with a title underlined as far as it goes"
    assert any(rest), "a short paragraph follows the title"
    for number, line in enumerate(text.splitlines(), 1):
        assert len(line) <= WIDTH, f"{path.name}:{number} is too long for the column"
    assert "`" not in re.sub(r"`[^`]+`_{0,2}", "", docstring)
    assert text.count("plt.show()") == 1
    assert "\n# %%\n" in text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_uses_no_download_and_public_names(path):
    text = path.read_text()
    names = list(imported(ast.parse(text)))
    allowed = {"keras", "kmix", "matplotlib", "numpy", "sklearn"}
    assert {name.split(".")[0] for name in names} <= allowed
    assert not [name for name in names if ".fetch_" in name or name.startswith("keras.datasets")]
    assert not re.search(r"keras\.(datasets|applications|utils\.get_file)|https?://(?!creativecommons)", text)
    for name in re.findall(r"\bkmix((?:\.[A-Za-z_]\w*)+)", text):
        owner = kmix
        for part in name.split(".")[1:]:
            assert part in getattr(owner, "__all__", [part]), f"kmix{name} is not public"
            owner = getattr(owner, part)
    if "load_sample_images" in text:
        for words in ("danielbuechele", "vultilion", "CC BY 2.0"):
            assert words in text, "the photographs need their attribution"
