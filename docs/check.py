"""Checks of the built site: `make docs-check`, after `make docs`.

    python docs/check.py                         all checks, in headless Chromium
    python docs/check.py --no-browser            links, anchors, titles, alt texts, markup shown as text
    python docs/check.py --pages "guides/*"      some pages only
    python docs/check.py --screenshots FOLDER    keep a picture of each page at both widths, light and dark

Prints `page: fault` for each fault, and exits with 1 if there are any.
"""

import argparse
import contextlib
import fnmatch
import functools
import http.server
import pathlib
import re
import shutil
import sys
import threading
import urllib.parse
from html.parser import HTMLParser

SITE = pathlib.Path(__file__).parent / "_build" / "html"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
# Markdown and reStructuredText that were not understood: directives, prompts, roles, attributes, backticks, links.
MARKUP = re.compile(r":::|>>>|`|\{[.#]?[a-z]+(?:[:-][a-z]+)*\}|\]\(")
CONVENTION = "lam is the share of the sample"
SETTINGS = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]
# What is searched for, and a part of the address of the page that must be among the first results.
SEARCHES = {"MixTrainer": "kmix.MixTrainer", "segmentation": "guides/segmentation", "Numbering": "kmix.data.Numbering"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Page(HTMLParser):
    """What the checks need to know of a page, and the faults that it shows by itself."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.faults = set(), [], [], []
        self.title, self.headings, self.open = "", 0, []
        self.feed(text)
        self.close()
        if not self.title.strip():
            self.faults.append("no title")
        if self.headings != 1:
            self.faults.append(f"{self.headings} h1 headings")

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        classes = set(attributes.get("class", "").split())
        self.ids.update(attributes[name] for name in ("id", "name") if name in attributes)
        self.headings += tag == "h1"
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if LOADS.get(tag) in attributes and attributes.get("rel") != "canonical":
            self.loads.append(attributes[LOADS[tag]])
        if tag == "img":
            self._check_alt(attributes)
        if classes & {"problematic", "system-message"}:
            self.faults.append("an error message of Sphinx")
        if tag not in VOID:
            self.open.append((tag, classes))

    def handle_endtag(self, tag):
        if any(tag == name for name, _ in self.open):
            while self.open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        inside = {tag for tag, _ in self.open}
        if "title" in inside and "svg" not in inside:
            self.title += data
        found = MARKUP.search(data)
        if found and not inside & {"pre", "code", "script", "style"}:
            shown = data[max(0, found.start() - 30) : found.end() + 30]
            self.faults.append(f"markup shown as text: {' '.join(shown.split())!r}")

    def _check_alt(self, attributes):
        if any("sphx-glr-thumbcontainer" in classes for _, classes in self.open):
            return  # Its title stands beside it.
        text, source = attributes.get("alt", "").strip(), attributes.get("src", "")
        if not text or text in source or source.endswith(text):
            self.faults.append(f"a picture without alt text: {source}")


def target_of(page, link):
    """The file and the anchor that a link on a page leads to; None for a link to another site."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = urllib.parse.unquote(parts.path)
    target = (page.parent / path).resolve() if path else page
    if target.is_dir():
        target /= "index.html"
    return target, urllib.parse.unquote(parts.fragment)


def link_faults(file, page, pages):
    """Links of a page to files and anchors that do not exist, and parts of it that come from another host."""
    for link in dict.fromkeys([*page.links, *page.loads]):
        target = target_of(file, link)
        if target is None:
            if link in page.loads and not link.startswith("data:"):
                yield f"loads {link}"
        elif not target[0].is_file():
            yield f"broken link: {link}"
        elif target[1] and target[0] in pages and target[1] not in pages[target[0]].ids:
            yield f"no such anchor: {link}"


def site_faults(site, pattern="*"):
    """Faults that need no browser, as (page, fault)."""
    files = [file for file in sorted(site.rglob("*.html")) if "_static" not in file.parts]
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in files}
    if not pages:
        yield str(site), "no pages: run `make docs` first"
    for file, page in pages.items():
        name = file.relative_to(site.resolve()).as_posix()
        if fnmatch.fnmatch(name, pattern):
            yield from ((name, fault) for fault in dict.fromkeys(page.faults))
            if name != "404.html":  # Its links are absolute, as it is shown at any address.
                yield from ((name, fault) for fault in link_faults(file, page, pages))
    for style in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import )\s*['\"]?((?:https?:)?//[^'\")]+)", style.read_text("utf-8")):
            yield style.relative_to(site).as_posix(), f"loads {address}"
    for name in ("llms.txt", "llms-full.txt"):
        text = (site / name).read_text(encoding="utf-8") if (site / name).exists() else ""
        if CONVENTION not in text[:2000]:
            yield name, "does not begin with the conventions" if text else "missing"


# In the browser: what sticks out of the screen, and text whose contrast is below 4.5 (large text: 3).
WIDE = """() => {
  // The theme lets the article scroll when it is too wide for its column: a fault as well.
  const article = document.querySelector(".bd-article-container") ?? document.body;
  const screen = document.documentElement.clientWidth, over = article.scrollWidth - article.clientWidth;
  if (document.documentElement.scrollWidth <= screen && over <= 0) return null;
  const end = over > 0 ? article.getBoundingClientRect().right : screen;
  const scrolls = e => e && e !== article && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const wide = [...(over > 0 ? article : document.body).querySelectorAll("*")].filter(
    e => e.getBoundingClientRect().right > end + 1 && e.checkVisibility() && !scrolls(e.parentElement));
  const name = e => e.tagName.toLowerCase() + (e.className ? "." + String(e.className).split(" ")[0] : "");
  const width = screen + Math.max(over, document.documentElement.scrollWidth - screen);
  return `${width} pixels wide: ${[...new Set(wide.map(name))].slice(-3).join(", ")}`;
}"""
CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true}), known = {};
  const rgba = css => known[css] ??= (() => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = css; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].map((v, i) => i < 3 ? v : v / 255);
  })();
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = e => {
    if (!e) return document.documentElement.dataset.theme === "dark" ? [0, 0, 0] : [255, 255, 255];
    const colour = rgba(getComputedStyle(e).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(e.parentElement));
  };
  const light = colour => colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const opacity = e => e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1;
  const faults = new Map(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walk.nextNode();) {
    const e = node.parentElement, style = getComputedStyle(e);
    if (!node.data.trim() || e.closest("svg, script, style, noscript, :disabled") || !e.checkVisibility(
        {opacityProperty: true, visibilityProperty: true}) || e.getBoundingClientRect().width < 2) continue;
    const below = ground(e), ink = [...rgba(style.color)];
    ink[3] *= opacity(e);
    const [a, b] = [light(over(ink, below)), light(below)], ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const key = style.color + " on " + below.map(Math.round);
    if (ratio < (large ? 3 : 4.5) && !faults.has(key))
      faults.set(key, `contrast ${ratio.toFixed(2)}: "${node.data.trim().slice(0, 30)}", ${key}`);
  }
  return [...faults.values()];
}"""
DRAWING = """() => [...document.querySelectorAll("main canvas, main svg")].map(
  e => e.tagName === "CANVAS" ? e.toDataURL() : e.outerHTML).join()"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(site):
    """The address of the site, on a free port of the loopback interface."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def watched(browser, base, width, scheme):
    """A tab, and the list to which its errors and its requests to other hosts are added."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    seen = []
    tab.on("console", lambda message: message.type == "error" and seen.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: seen.append(f"error: {error}"))
    local = (base, "data:", "blob:")
    tab.on("request", lambda request: request.url.startswith(local) or seen.append(f"requests {request.url}"))
    return tab, seen


def look(tab, seen, address, picture=None):
    """The faults of a page in one setting."""
    seen.clear()
    tab.goto(address)
    tab.evaluate("document.fonts.ready")
    wide = tab.evaluate(WIDE)
    if picture:
        picture.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=picture, full_page=True)
    return [*seen, *([wide] if wide else []), *tab.evaluate(CONTRAST)]


def search_faults(tab, base):
    """Searches that do not find their page among the first ten results."""
    for words, page in SEARCHES.items():
        tab.goto(f"{base}search.html?q={words}")
        tab.wait_for_function(
            "() => !/^(Searching|$)/.test(document.querySelector('.search-summary')?.innerText ?? '')"
        )
        found = tab.eval_on_selector_all("ul.search li a", "links => links.slice(0, 10).map(link => link.href)")
        if not any(page in link for link in found):
            yield f"{words!r} does not find {page}: {found}"


def explorer_faults(tab, base):
    """Controls of the plan explorer that change nothing in the drawing, and an address that does not keep the state."""
    tab.goto(f"{base}explorer.html")
    main = tab.get_by_role("main")
    controls = [control for role in ("slider", "spinbutton", "combobox") for control in main.get_by_role(role).all()]
    if not controls:
        yield "no controls"
    for control in controls:
        before = tab.evaluate(DRAWING)
        control.focus()
        tab.keyboard.press("ArrowDown" if control.evaluate("e => e.tagName") == "SELECT" else "ArrowUp")
        tab.wait_for_timeout(200)
        if tab.evaluate(DRAWING) == before:
            yield f"a control changes nothing: {control.evaluate('e => e.labels?.[0]?.innerText || e.outerHTML')}"
    after = tab.evaluate(DRAWING)
    tab.goto("about:blank")
    tab.go_back()
    tab.wait_for_timeout(200)
    if tab.evaluate(DRAWING) != after:
        yield "the address does not bring the drawing back"


def browser_faults(site, pattern="*", pictures=None):
    """Faults that a browser shows, as (page, fault), the settings named in the fault."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"docs/check.py needs a browser: one of {', '.join(BROWSERS)}. On Debian: apt install chromium")
    names = [file.relative_to(site).as_posix() for file in sorted(site.rglob("*.html")) if "_static" not in file.parts]
    names = [name for name in names if fnmatch.fnmatch(name, pattern)]
    found = {}
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with served(site) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for width, scheme in SETTINGS:
            tab, seen = watched(browser, base, width, scheme)
            for name in names:
                picture = pictures and pictures / f"{name.removesuffix('.html')}-{width}-{scheme}.png"
                for fault in look(tab, seen, base + name, picture):
                    found.setdefault((name, fault.replace(base, "")), []).append(f"{width} {scheme}")
        for name, check in {"search.html": search_faults, "explorer.html": explorer_faults}.items():
            if name in names:
                found.update({(name, fault): ["1280 light"] for fault in check(tab, base)})
        browser.close()
    for (name, fault), settings in sorted(found.items()):
        yield name, f"{fault} ({', '.join(settings)})"


def main():
    """Print the faults of the site; the exit code is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=pathlib.Path, default=SITE, help="the folder of the built site")
    parser.add_argument("--no-browser", action="store_true", help="only the checks that read the files")
    parser.add_argument("--pages", default="*", metavar="PATTERN", help='such as "guides/*"')
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="FOLDER")
    options = parser.parse_args()
    faults = list(site_faults(options.site, options.pages))
    if not options.no_browser and options.site.exists():
        faults += browser_faults(options.site, options.pages, options.screenshots)
    for page, fault in faults:
        print(f"{page}: {fault}")
    print(f"{len(faults)} faults" if faults else "No faults.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
