"""docs/about/errors.md has a family for every error that kmix raises, and shows each message as it is printed."""

import ast
import fnmatch
import pathlib
import re
import textwrap

import keras
import pages
import pytest

import kmix

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are alike on every backend")

PACKAGE = pathlib.Path(kmix.__file__).parent
PAGE = pages.DOCS / "about" / "errors.md"

# The heading of a family, and what it takes: a pattern of modules, and one of the text of the call that raises, with
# the strings that it names. A new error goes to the family with its remedy, or begins a family of its own.
FAMILIES = {
    "An argument has the wrong type or value": [
        ("_checks.py", "must be a finite number|name}` must be|`probabilities` must|`{name}` must be a list|error=TypeError"),
        ("callbacks/alpha_scheduler.py", "`layers` must|`schedule` must"),
        ("data/mixed_batches.py", "must be callable"),
        ("layers/base.py", "float dtype|`training` must|`inputs_key` must"),
        ("layers/random_choice.py", "."),
        ("layers/cutmix.py", "`axes` must name"),
    ],
}


def strings(tree):
    """The strings that names stand for, and the functions they are of: `{(function, name): text}`."""
    found = {}
    for function in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        nodes = tree.body if function is tree else ast.walk(function)
        for node in nodes:
            if isinstance(node, (ast.Assign, ast.AugAssign)):
                for target in getattr(node, "targets", None) or [node.target]:
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            key = (function, name.id)
                            found[key] = found.get(key, "") + " " + ast.unparse(node.value)
    return found


def raises():
    """Every `raise X(...)` and `_checks.fail(...)` of kmix: `(module, line, text)`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        known, within = strings(tree), {}
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            within.update(dict.fromkeys(ast.walk(function), function))
        for node in ast.walk(tree):
            call = node.func if isinstance(node, ast.Call) else None
            fails = getattr(call, "attr", getattr(call, "id", None)) == "fail"
            if fails or (isinstance(node, ast.Raise) and node.exc is not None):
                names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
                parts = [known.get((scope, name), "") for name in names for scope in (within.get(node), tree)]
                text = " ".join([ast.unparse(node), *parts])
                yield path.relative_to(PACKAGE).as_posix(), node.lineno, text


def families_of(module, text):
    return [
        family
        for family, rules in FAMILIES.items()
        if any(fnmatch.fnmatchcase(module, where) and re.search(words, text) for where, words in rules)
    ]
