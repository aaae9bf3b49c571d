"""The site: `make docs` builds it, without a network, into docs/_build/html."""

import configparser
import inspect
import os
import pathlib
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

import kmix

metadata = configparser.ConfigParser()
metadata.read(ROOT / "setup.cfg")
links = dict(line.split(" = ") for line in metadata["metadata"]["project_urls"].strip().splitlines())

project, author, release = "kmix", "the authors of kmix", kmix.__version__
copyright = author
nitpicky = True
toc_object_entries_show_parents = "hide"
# MyST's own checks hold anchors; functions in the settings cannot be pickled, and need not be.
suppress_warnings = ["config.cache"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
    "notfound.extension",
    "measured",
    "mathml",
]
FAST = bool(os.environ.get("DOCS_FAST"))
if FAST:
    gallery = ROOT / "docs" / "gallery"
    gallery.mkdir(exist_ok=True)
    (gallery / "index.rst").write_text("Gallery\n=======\n\nLeft out of a fast build.\n")
else:
    extensions += ["sphinx_gallery.gen_gallery"]
extensions += ["sphinx_llm.txt"]

exclude_patterns = ["_build", "gallery/*.py", "gallery/*.ipynb", "pictures"]
templates_path = ["_templates"]
default_role = "code"

# Markdown.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3

# The API.
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = True
autosummary_imported_members = False
autosummary_filename_map = {"kmix.diagnostics.Interpolation": "kmix.diagnostics.Interpolation-class"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style"), ("Reference", "References")]

# The theme.
html_theme = "pydata_sphinx_theme"
html_title = "kmix"
html_baseurl = links["Documentation"]
html_static_path = ["_static"]
html_css_files = ["kmix.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}
html_sidebars = {"index": [], "explorer": [], "404": []}
pygments_style = "tango"
notfound_urls_prefix = None

# Pictures of pages.
plot_formats = [("png", 110)]
plot_html_show_source_link = False
plot_html_show_formats = False
plot_working_directory = str(ROOT / "docs" / "pictures")
plot_rcparams = {"figure.constrained_layout.use": True}
plot_apply_rcparams = True

# The gallery.
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "subsection_order": [
        f"../examples/gallery/{name}" for name in ("photographs", "targets", "series", "plans", "training")
    ],
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "backreferences_dir": "api/backreferences",
    "doc_module": ("kmix",),
    "reference_url": {"kmix": None},
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1000,
    "plot_gallery": True,
    "remove_config_comments": True,
}

# For language models.
llms_txt_full_build = True
llms_txt_suppress_unknown_node_warnings = True
llms_txt_exclude = ["gallery/*", "gallery/*/*"]
llms_txt_description = (
    "Mixup-type training for Keras 3, on TensorFlow, JAX and PyTorch. Conventions: lam is the share of the sample "
    "itself, and 1 - lam that of its partner. Labels come out as float32, and class ids are one-hot encoded with "
    "num_classes. Batch before you mix. at_step(step, batch) is a pure function of seed, step and alpha; a call "
    "without a step counts. Under plain fit, mix in the pipeline; to mix in the training step, wrap the model in "
    "kmix.MixTrainer. Expected on validation data: plain inputs and class ids, with the same loss."
)

warnings.filterwarnings("ignore", message=".*np.object.*")


def show_signature(app, what, name, obj, options, signature, return_annotation):
    """The signature of `__init__`: Keras' `__new__` would hide it behind `*args, **kwargs`."""
    if what == "class" and signature is not None:
        parameters = [
            each.replace(annotation=inspect.Parameter.empty) for each in inspect.signature(obj).parameters.values()
        ]
        return str(inspect.Signature(parameters)), None
    return None


def members_of(name):
    """The public members of a class that kmix defines, in the order of the code: what its page lists."""
    module, _, short = name.rpartition(".")
    owner = sys.modules["kmix"]
    for part in module.split(".")[1:]:
        owner = getattr(owner, part)
    cls = getattr(owner, short)
    if hasattr(cls, "_fields"):
        own = [member for member in vars(cls) if member not in cls._fields]
    else:
        kept = [each for each in cls.__mro__ if each.__module__.startswith("kmix.")]
        own = [member for each in kept for member in vars(each)]
    documented = [member for member in dict.fromkeys(own) if not member.startswith("_")]
    if any(issubclass(cls, base) and cls is not base for base in (kmix.targets.Target, kmix.pairing.Pairing)):
        # What a subclass overrides is on the page of its base.
        documented = ["replace"] if hasattr(cls, "replace") else []
    return [
        member
        for member in documented
        if isinstance(inspect.getattr_static(cls, member), (property, classmethod, staticmethod))
        or inspect.isroutine(inspect.getattr_static(cls, member))
        if member != "alpha" or getattr(cls, "_has_alpha", True)
        if inspect.getdoc(inspect.getattr_static(cls, member)) and not _is_of_keras(cls, member)
    ]


def _is_of_keras(cls, member):
    """Whether Keras defines the member, too, so that it is no news to a reader."""
    return any(member in vars(each) for each in cls.__mro__ if each.__module__.split(".")[0] == "keras")


autosummary_context = {"members_of": members_of, "with_gallery": not FAST}


def begin_with_conventions(app, error):
    """Put the conventions at the start of llms-full.txt, as they are in llms.txt."""
    path = pathlib.Path(app.outdir) / "llms-full.txt"
    if error is None and path.exists():
        path.write_text(f"> {llms_txt_description}\n\n{path.read_text()}")


def setup(app):
    app.connect("autodoc-process-signature", show_signature)
    # After sphinx-llm, which writes the file at 101.
    app.connect("build-finished", begin_with_conventions, priority=900)
