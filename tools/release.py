"""Prepare a release, and upload nothing: `make release VERSION=0.2.0`, with `DRY=1` to leave the repository as it is.

Everything happens in a clone. Only when all checks hold, its commit and tag come back, and its files into `dist/`.
"""

import argparse
import datetime
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from packaging.version import InvalidVersion, Version

ROOT = pathlib.Path(__file__).parent.parent
# Where the version stands: the file, and the line around it.
PLACES = {"kmix/__init__.py": r'(?m)^(__version__ = ")[^"]+(")$', "CITATION.cff": r"(?m)^(version: )\S+()$"}
UNRELEASED = "## [Unreleased]\n"
TESTS = ["-m", "not slow", "-q", "-n", "2", "-p", "no:cacheprovider"]


def run(*command, cwd):
    """Run a command; its failure is the end."""
    print("$", *map(str, command), flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def output(*command, cwd):
    """What a command prints."""
    return subprocess.run(command, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def refuse(expected, received):
    """End with a message."""
    raise SystemExit(f"{expected} Received: {received}")


def check_version(text, root):
    """Return the version to release, or end if it is not newer than every version so far."""
    try:
        version = Version(text)
    except InvalidVersion:
        refuse("VERSION must be a version such as 0.2.0.", text)
    if str(version) != text or version.is_devrelease or version.local:
        refuse("VERSION must be written as in the package index, such as 0.2.0 or 0.2.0rc1.", text)
    sections = re.findall(r"(?m)^## \[(\d\S*)\]", (root / "CHANGELOG.md").read_text())
    released = [tag.removeprefix("v") for tag in output("git", "tag", "--list", "v[0-9]*", cwd=root).split()] + sections
    newest = max(map(Version, released), default=None)
    if newest is not None and version <= newest:
        refuse(f"VERSION must be newer than {newest}, the newest tag or section of CHANGELOG.md.", text)
    return text


def dated(changelog, version, today):
    """The changelog with its unreleased section under the version and the date."""
    _, found, rest = changelog.partition(UNRELEASED)
    section = re.split(r"(?m)^## \[", rest)[0]
    if not found or not re.search(r"(?m)^(- |\| )", section):
        refuse("CHANGELOG.md must say under [Unreleased] what is new.", "an empty section")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {today}\n", 1)


def write_version(version, root):
    """Write the version where it stands, and date the changelog."""
    for name, pattern in PLACES.items():
        path = root / name
        text, count = re.subn(pattern, rf"\g<1>{version}\g<2>", path.read_text())
        if count != 1:
            refuse(f"{name} must hold the version once.", f"{count} times")
        path.write_text(text)
    path = root / "CHANGELOG.md"
    path.write_text(dated(path.read_text(), version, datetime.datetime.now(datetime.UTC).date()))


def test(files, scratch):
    """Run the fast tests of the source distribution against the installed wheel."""
    wheel, source = (next(file for file in files if file.name.endswith(end)) for end in (".whl", ".tar.gz"))
    shutil.unpack_archive(source, scratch / "source", filter="data")
    (unpacked,) = (scratch / "source").iterdir()
    shutil.rmtree(unpacked / "kmix")
    bin = scratch / "installed" / "bin"
    run(sys.executable, "-m", "venv", bin.parent, cwd=scratch)
    run(bin / "pip", "install", "-q", "pip>=25.1", cwd=scratch)
    run(bin / "pip", "install", "-q", f"{wheel}[tensorflow,diagnostics,examples]", "--group", "test", cwd=unpacked)
    run(bin / "python", "-m", "pytest", *TESTS, "tests", cwd=unpacked)


def main():
    """Read the arguments and prepare the release."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--dry", action="store_true", help="leave the repository as it is")
    options = parser.parse_args()
    if changed := output("git", "status", "--porcelain", cwd=ROOT):
        refuse("The working tree must have no changes.", changed)
    version = check_version(options.version, ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        copy, tag = scratch / "kmix", f"v{version}"
        run("git", "clone", "-q", ROOT, copy, cwd=scratch)
        write_version(version, copy)
        run("git", "commit", "-aqm", f"Version {version}", cwd=copy)
        run("git", "tag", "-a", tag, "-m", f"kmix {version}", cwd=copy)
        run("make", "dist", f"PYTHON={sys.executable}", cwd=copy)
        files = sorted((copy / "dist").iterdir())
        test(files, scratch)
        if not options.dry:
            run("git", "pull", "-q", "--ff-only", copy, tag, cwd=ROOT)
            run("git", "fetch", "-q", copy, "tag", tag, cwd=ROOT)
            shutil.copytree(copy / "dist", ROOT / "dist", dirs_exist_ok=True)
        print(*(f"{file.name}, {file.stat().st_size / 1000:.0f} kB" for file in files), sep="\n")
    print("The repository is as it was." if options.dry else f"Look at dist/, then: git push origin main {tag}")


if __name__ == "__main__":
    main()
