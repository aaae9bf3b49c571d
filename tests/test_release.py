"""`make release` takes only a version that is newer, and writes it wherever it stands."""

import importlib.util
import pathlib
import shutil
import subprocess

import pytest

import kmix

ROOT, PACKAGE = pathlib.Path(__file__).parent.parent, pathlib.Path(kmix.__file__).parent
pytestmark = pytest.mark.alike

spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)


@pytest.fixture
def copy(tmp_path):
    """A repository with the files that hold a version, and a tag."""
    for name in [*release.PLACES, "CHANGELOG.md"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PACKAGE / "__init__.py" if name.startswith("kmix/") else ROOT / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"  # right after a release there is nothing new
    changelog.write_text(changelog.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- An entry.\n"))
    git = "git", "-c", "user.name=kmix", "-c", "user.email=kmix@kmix.example"
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"], ["tag", "v0.7.0"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("version", ["0.8.0", "0.8.0rc1", "1.0.0"])
def test_a_newer_version_is_taken(copy, version):
    assert release.check_version(version, copy) == version


@pytest.mark.parametrize("version", ["", "new", "v0.8.0", "0.08", "0.8.0.dev1", "0.8.0+here", "0.7.0", "0.1.0"])
def test_another_is_refused(copy, version):
    with pytest.raises(SystemExit, match="VERSION"):
        release.check_version(version, copy)


def test_the_version_is_written_wherever_it_stands(copy):
    release.write_version("0.8.0", copy)
    assert '__version__ = "0.8.0"\n' in (copy / "kmix" / "__init__.py").read_text()
    assert "\nversion: 0.8.0\n" in (copy / "CITATION.cff").read_text()
    text = (copy / "CHANGELOG.md").read_text()
    assert text.index("## [Unreleased]\n") < text.index("## [0.8.0] - 20") < text.index("## [0.1.0]")


def test_the_versions_agree():
    assert f"\nversion: {kmix.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("changelog", ["# Changelog\n", "## [Unreleased]\n\n## [0.1.0]\n- An entry.\n"])
def test_without_news_there_is_no_release(changelog):
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md"):
        release.dated(changelog, "0.8.0", "2026-01-01")
