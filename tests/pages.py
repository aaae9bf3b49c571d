"""The Python blocks of a page of the documentation, or of the README, run in order in one fresh namespace.

The front matter of a page says what it needs:

    ---
    needs: [tensorflow, grain]   # packages beyond keras, numpy and scikit-learn
    backends: [jax, tensorflow]  # where it runs; by default everywhere
    ---

A `text` block that follows a `python` block is what it prints. Other blocks, such as `console`, are not run. Numbers of
epochs are cut to 1, and pretrained weights are not loaded.
"""

import contextlib
import io
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).parent.parent
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
    """The Python blocks of a page: `(first line, code, output)`, where a `text` block that follows is the output."""
    fence = r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?"
    for found in re.finditer(fence, text, flags=re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n"), found[1], found[2]


def run(path):
    """Run a page, and compare what it prints with what it shows. A traceback shows the line of the page."""
    names = {"__name__": "__main__"}
    for line, code, output in blocks(path.read_text()):
        for pattern, smaller in SMALLER:
            code = re.sub(pattern, smaller, code)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(path), "exec"), names)
        if output is not None:
            shown = [row.rstrip() for row in output.rstrip().splitlines()]
            assert [row.rstrip() for row in printed.getvalue().rstrip().splitlines()] == shown, f"{path.name}:{line}"
    return names
