"""What CONTRIBUTING.md says to write works: its target and its mixer, within a copy of kmix, keep the contract."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
STRONG = """
import numpy as np
from contract import check_mixer

from kmix.layers import Strong


def test_strong_keeps_the_contract():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    check_mixer(Strong(1.0, num_classes=5, seed=1), (x, np.arange(6) % 5))
"""


def files(page):
    """The code of each file that the page says to write, by its path."""
    found = re.findall(
        r"Write `([\w/]+\.py)`(?:(?!Write `).)*?```python\n(.*?)^ *```", page, flags=re.DOTALL | re.MULTILINE
    )
    return {path: textwrap.dedent(code) for path, code in found}


def export(path, module, name):
    """Do what the page says of the import and of `__all__`."""
    line = f"from {module} import {name}"
    path.write_text(f'{path.read_text()}\n{line}\n\n__all__ = sorted([*__all__, "{name}"])\n')


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for name in ("kmix", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "test_*", "golden"))
    for name in ("conftest.py", "pyproject.toml", "tests/test_project.py", "tests/test_types.py"):
        shutil.copy(ROOT / name, root / name)
    for path, code in files(PAGE).items():
        (root / path).write_text(code)
    (line,) = re.findall(r"`kmix/plan/streams\.py`: `(.+?)`", PAGE)
    with open(root / "kmix" / "plan" / "streams.py", "a") as streams:
        streams.write(f"{line}\n")
    package = root / "kmix"
    export(package / "targets" / "__init__.py", "kmix.targets.hours", "Hours")
    export(package / "layers" / "__init__.py", "kmix.layers.strong", "Strong")
    export(package / "__init__.py", "kmix.layers", "Strong")
    (root / "tests" / "test_strong.py").write_text(STRONG)
    return root


@pytest.mark.alike
def test_the_page_names_its_files():
    assert list(files(PAGE)) == ["kmix/targets/hours.py", "tests/test_hours.py", "kmix/layers/strong.py"]


@pytest.mark.alike
@pytest.mark.slow
def test_the_target_and_the_mixer_keep_the_contract(root):
    new = "tests/test_hours.py", "tests/test_strong.py", "kmix/targets/hours.py", "kmix/layers/strong.py"
    # Those of the tests of all names that are about these two: their types and docstrings.
    new += "tests/test_project.py", "tests/test_types.py"
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "hours or strong", *new]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert "13 passed" in result.stdout, result.stdout + result.stderr
