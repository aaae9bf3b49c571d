"""docs/check.py notices what is wrong with a site."""

import importlib.util
import pathlib

import pytest

pytestmark = pytest.mark.alike

spec = importlib.util.spec_from_file_location("check", pathlib.Path(__file__).parent.parent / "docs" / "check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

HEAD = "<html><head><title>A page</title></head><body><h1 id='top'>A page</h1>"


@pytest.fixture
def site(tmp_path):
    """A site without a fault."""
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "index.html").write_text(f"{HEAD}<a href='../index.html#top'>Home</a>")
    (tmp_path / "index.html").write_text(f"{HEAD}<a href='guides/'>Guides</a> <a href='https://keras.io'>Keras</a>")
    for name in ("llms.txt", "llms-full.txt"):
        (tmp_path / name).write_text(f"# kmix\n\n> Conventions: {check.CONVENTION} itself.\n")
    return tmp_path


def faults(site, body, pattern="*"):
    (site / "page.html").write_text(HEAD + body)
    return list(check.site_faults(site, pattern))


@pytest.mark.parametrize(
    "body",
    [
        "<a href='index.html'>a</a> <a href='#top'>b</a> <a href='guides/index.html?q=1#top'>c</a>",
        "<img src='data:image/png;base64,' alt='Two samples and their mix'>",
        "<pre>&gt;&gt;&gt; 1</pre> <code>{ref}`a` :::</code> <script>`a`</script> <style>a{b:c}</style>",
        "<div class='sphx-glr-thumbcontainer'><img src='data:,' alt=''></div>",
        "<svg><title>b</title></svg> <br> a dictionary {1: 2}, x_i -> y",
    ],
)
def test_a_good_page_has_no_fault(site, body):
    assert faults(site, body) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<a href='missing.html'>a</a>", "broken link: missing.html"),
        ("<a href='guides/index.html#away'>a</a>", "no such anchor: guides/index.html#away"),
        ("<a href='#away'>a</a>", "no such anchor: #away"),
        ("<img src='missing.png' alt='A picture'>", "broken link: missing.png"),
        ("<script src='https://cdn.example/a.js'></script>", "loads https://cdn.example/a.js"),
        ("<link rel='stylesheet' href='//cdn.example/a.css'>", "loads //cdn.example/a.css"),
        ("<img src='https://cdn.example/a.png' alt='A picture'>", "loads https://cdn.example/a.png"),
        ("<img src='data:,'>", "a picture without alt text: data:,"),
        ("<img src='data:,' alt=' '>", "a picture without alt text: data:,"),
        ("<p>::: note</p>", "markup shown as text: '::: note'"),
        ("<p>Example: &gt;&gt;&gt; 1</p>", "markup shown as text: 'Example: >>> 1'"),
        ("<p>see {ref}<code>a</code></p>", "markup shown as text: 'see {ref}'"),
        ("<p>see {py:class}`kmix.MixUp`</p>", "markup shown as text: 'see {py:class}`kmix.MixUp`'"),
        ("<p>see {doc}`a`</p>", "markup shown as text: 'see {doc}`a`'"),
        ("<p>{.note} text</p>", "markup shown as text: '{.note} text'"),
        ("<p>[a](b.md)</p>", "markup shown as text: '[a](b.md)'"),
        ("<span class='problematic'>a</span>", "an error message of Sphinx"),
        ("<h1>Another</h1>", "2 h1 headings"),
    ],
)
def test_a_fault_is_noticed(site, body, fault):
    assert faults(site, body) == [("page.html", fault)]
    assert faults(site, body, "guides/*") == []


def test_a_page_needs_a_title_and_a_heading(site):
    (site / "page.html").write_text("<html><body>text</body></html>")
    assert list(check.site_faults(site)) == [("page.html", "no title"), ("page.html", "0 h1 headings")]


def test_links_of_404_are_absolute(site):
    (site / "404.html").write_text(f"{HEAD}<a href='/index.html'>Home</a>")
    assert list(check.site_faults(site)) == []


def test_styles_load_nothing_from_elsewhere(site):
    (site / "style.css").write_text("a { background: url('https://cdn.example/a.png') } b { background: url(b.png) }")
    assert list(check.site_faults(site)) == [("style.css", "loads https://cdn.example/a.png")]


def test_files_for_language_models_begin_with_the_conventions(site):
    (site / "llms.txt").unlink()
    (site / "llms-full.txt").write_text("# kmix\n" + 2000 * " " + check.CONVENTION)
    assert list(check.site_faults(site)) == [
        ("llms.txt", "missing"),
        ("llms-full.txt", "does not begin with the conventions"),
    ]


def test_a_site_that_was_not_built(tmp_path):
    assert (str(tmp_path), "no pages: run `make docs` first") in list(check.site_faults(tmp_path))


def test_the_exit_code_says_whether_there_are_faults(site, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check.py", "--no-browser", "--site", str(site)])
    assert check.main() == 0
    assert capsys.readouterr().out == "No faults.\n"
    (site / "guides" / "index.html").unlink()
    assert check.main() == 1
    assert "index.html: broken link: guides/" in capsys.readouterr().out


def test_without_a_browser_it_says_what_to_install(site, monkeypatch):
    pytest.importorskip("playwright")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="apt install chromium"):
        list(check.browser_faults(site))
