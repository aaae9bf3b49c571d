"""The Python blocks of a page of the documentation (the README is one), run in order in one fresh namespace, as a reader would run them.

The front matter of a page says what it needs:

    ---
    needs: [tensorflow, grain]   # packages beyond keras, numpy and scikit-learn
    backends: [jax, tensorflow]  # where it runs; everywhere by default
    slow: true                   # only in `make test-all`
    ---

A block whose fence has another name than `python`, such as `text` or `console`, is not run. Numbers of epochs are cut
to 1, and pretrained weights are not loaded.
"""

import pathlib
import re

import yaml

import kmix

ROOT = pathlib.Path(kmix.__file__).parent.parent
DOCS = ROOT / "docs"
WIDTH = 79

SMALLER = [
    (r"epochs=\d+", "epochs=1"),
    (r'weights="imagenet"', "weights=None"),
]


def pages():
    """The written pages."""
    generated = {"_build", "gallery", "generated", "backreferences", "pictures"}
    return sorted(path for path in DOCS.rglob("*.md") if not generated.intersection(path.relative_to(DOCS).parts))


def front_matter(text):
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def blocks(text):
    """The Python blocks of a page: `(first line, code)`."""
    for found in re.finditer(r"^```\{?(?:python|code-block\} python)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n"), found[1]


def run(path):
    """Run a page. A traceback shows the line of the page."""
    names = {"__name__": "__main__"}
    for line, code in blocks(path.read_text()):
        for pattern, smaller in SMALLER:
            code = re.sub(pattern, smaller, code)
        exec(compile("\n" * line + code, str(path), "exec"), names)
    return names
