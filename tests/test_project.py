"""The shape of the library: rooms, doors, documentation, lightness."""

import ast
import configparser
import importlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import keras
import mutants
import numpy as np
import pytest

import kmix

ROOT = pathlib.Path(kmix.__file__).parent
BACKEND = keras.backend.backend()

# From the top room to the bottom one. An import may only point down.
ROOMS = [
    {"kmix"},
    {"kmix.callbacks"},
    {"kmix.callbacks.watching"},
    {"kmix.callbacks.alpha_scheduler", "kmix.callbacks.pictures"},
    {"kmix.diagnostics"},
    {"kmix.diagnostics.between", "kmix.diagnostics.comparison", "kmix.diagnostics.inspection"},
    {"kmix.diagnostics.drawn", "kmix.diagnostics.faults"},
    {"kmix.diagnostics.arguments", "kmix.diagnostics.outputs", "kmix.diagnostics.pictures", "kmix.diagnostics.seen"},
    {"kmix.diagnostics.rows", "kmix.diagnostics.verdict"},
    {"kmix.diagnostics.page", "kmix.diagnostics.scores", "kmix.diagnostics.screen"},
    {"kmix.training.trainer"},
    {"kmix.training.training_step"},
    {"kmix.training.placement"},
    {"kmix.training.manifold", "kmix.training.output_labels"},
    {"kmix.training.graph", "kmix.training.hard_label_metrics", "kmix.training.state"},
    {"kmix.training.paired_loss"},
    {"kmix.training"},
    {"kmix.data", "kmix.plots"},
    {"kmix.plots.batches", "kmix.plots.boundary", "kmix.plots.calibration", "kmix.plots.training"},
    {"kmix.plots.canvas", "kmix.plots.overlays"},
    {"kmix.data.mixed_batches", "kmix.data.numbering"},
    {"kmix.data.numbered"},
    {"kmix.layers"},
    {"kmix.layers.cut_mix", "kmix.layers.embedding_mixup", "kmix.layers.mix_up", "kmix.layers.random_choice"},
    {"kmix.layers.keras_masks", "kmix.layers.mix_layer"},
    {"kmix.layers.batch_layer"},
    {"kmix.layers.stepped"},
    {"kmix.layers.partners"},
    {"kmix.layers.config", "kmix.layers.step"},
    {"kmix.losses", "kmix.metrics", "kmix.schedules"},
    {"kmix.batch"},
    {"kmix.targets"},
    {"kmix.targets.assign", "kmix.targets.labels"},
    {"kmix.targets.custom", "kmix.targets.keep", "kmix.targets.pasted"},
    {"kmix.targets.inputs"},
    {"kmix.targets.forms", "kmix.targets.label_forms", "kmix.targets.padding_masks", "kmix.targets.target"},
    {"kmix.targets.missing", "kmix.targets.sample_weights"},
    {"kmix.targets.box_formats", "kmix.targets.box_geometry", "kmix.targets.spread"},
    {"kmix.mixing"},
    {"kmix.mixing.blend", "kmix.mixing.paste"},
    {"kmix.plan"},
    {"kmix.plan.samplers"},
    {"kmix.plan.lam", "kmix.plan.pairing"},
    {"kmix.plan.record", "kmix.plan.regions"},
    {"kmix.plan.streams"},
    {"kmix.random"},
    {"kmix._backend"},
    {"kmix._backend.state"},
    {"kmix._backend.native"},
    {"kmix._backend.numpy", "kmix._backend.tensorflow", "kmix._backend.threads"},
    {
        "kmix._backend.context",
        "kmix._backend.gradients",
        "kmix._backend.host",
        "kmix._backend.kernels",
        "kmix._backend.namespace",
        "kmix._backend.xla",
    },
    {"kmix._backend.kinds", "kmix._backend.recent"},
    {"kmix._checks"},
]
# Rooms for kinds of targets and mixers: a new file in one of them is imported by its door, and needs no line above.
OPEN = {"kmix.targets": "kmix.targets.keep", "kmix.mixing": "kmix.mixing.paste", "kmix.layers": "kmix.layers.mix_up"}
HEIGHT = {module: -floor for floor, modules in enumerate(ROOMS) for module in modules}


def height(module):
    """The floor of a module: its own, or that of its like in a room that is open to new files."""
    return HEIGHT[module if module in HEIGHT else OPEN[module.rpartition(".")[0]]]


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (
                    inner
                    if (ROOT.parent / inner.replace(".", "/")).with_suffix(".py").exists() or inner in HEIGHT
                    else (node.module)
                )


def pointing_up(found):
    """Imports that do not point down: `module imports name`."""
    return [
        f"{module} imports {name}"
        for module, tree in found.items()
        for name in imports(tree)
        if name.split(".")[0] == "kmix" and height(name) >= height(module)
    ]


def test_every_module_has_a_room_and_imports_point_down():
    found = dict(modules())
    assert set(HEIGHT) <= set(found)
    assert {module.rpartition(".")[0] for module in set(found) - set(HEIGHT)} <= set(OPEN)
    assert pointing_up(found) == []


def test_an_import_that_points_up_is_noticed():
    tree = ast.parse("def late():\n    from kmix.layers import mix_up\nfrom kmix import _checks")
    assert pointing_up({"kmix.plan": tree}) == ["kmix.plan imports kmix.layers.mix_up"]
    assert pointing_up({"kmix.mixing.blend": ast.parse("import kmix.mixing.paste")}) != []
    assert pointing_up({"kmix.targets.new": ast.parse("from kmix.targets.target import Target")}) == []


FILE, FUNCTION = 300, 50


def too_long(name, text):
    """Files and functions, without docstrings, that are too long to read at once: `name: lines`."""
    lines = len(text.splitlines())
    found = [f"{name}: {lines}"] if lines > FILE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            length = node.end_lineno - node.lineno + 1
            length -= first.end_lineno - first.lineno + 1 if documented else 0
            found += [f"{name}:{node.name}: {length}"] if length > FUNCTION else []
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    assert too_long(path.name, path.read_text()) == []


def test_long_files_and_functions_are_noticed():
    assert too_long("m", "x = 1\n" * 301) == ["m: 301"]
    assert too_long("m", "def f():\n" + "    x = 1\n" * 50) == ["m:f: 51"]
    assert too_long("m", 'def f():\n    """A.\n\n' + "    B.\n" * 60 + '    """\n' + "    x = 1\n" * 49) == []


# A named tuple's methods; Python's own; by `_direction` Keras' callbacks tell whether more of a metric is better.
OPEN_NAMES = {"_replace", "_asdict", "_fields", "_make", "_getframe", "_direction"}


def private_uses(tree):
    """Private attributes that a module takes from something else than its own classes."""
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_self(node.value)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if not is_self(node.value) and node.attr not in OPEN_NAMES | own:
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kmix"):
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name[0] == "_" and node.module != "kmix")


def is_self(node):
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return call or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


def test_no_module_uses_what_is_private_to_another():
    assert {module: uses for module, tree in modules() if (uses := list(private_uses(tree)))} == {}


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("layer._alpha.read()", ["layer._alpha"]),
        ("def f(layer):\n    return layer.inputs._axes(3)", ["layer.inputs._axes"]),
        ("from kmix.layers.batch_layer import _plain", ["kmix.layers.batch_layer._plain"]),
        ("streams._RESERVED", ["streams._RESERVED"]),
        ("from kmix import _checks\nplan._replace(lam=1)", []),
        ("class A:\n    def f(self, other):\n        self._x = other._x\n        return super()._g()", []),
    ],
)
def test_the_test_of_private_names_can_fail(code, uses):
    assert list(private_uses(ast.parse(code))) == uses


def test_only_public_keras_and_no_framework_at_import():
    for module, tree in modules():
        assert not any(name.startswith("keras.src") for name in imports(tree)), module
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not top & {"tensorflow", "jax", "torch", "matplotlib"}, module


def test_only_the_plan_draws():
    for module, tree in modules():
        if not module.startswith("kmix.plan") and module != "kmix.random":
            assert "kmix.random" not in set(imports(tree)), module


PUBLIC = [
    "kmix",
    "kmix.callbacks",
    "kmix.data",
    "kmix.diagnostics",
    "kmix.layers",
    "kmix.losses",
    "kmix.metrics",
    "kmix.plan",
    "kmix.plots",
    "kmix.schedules",
    "kmix.targets",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_all_lists_are_sorted_and_true(name):
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, symbol) for symbol in module.__all__)
    if name == "kmix":
        shown = {n for n, v in vars(kmix).items() if not n.startswith("_") and not inspect.ismodule(v)}
        assert shown <= set(kmix.__all__)


def symbols():
    for name in PUBLIC:
        module = importlib.import_module(name)
        for symbol in module.__all__:
            value = getattr(module, symbol)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield pytest.param(value, id=f"{name}.{symbol}")


def may_raise(node):
    """Whether code raises, or checks an argument; not where a subclass has to implement a method."""
    if isinstance(node, ast.Raise):
        return node.exc is None or "NotImplementedError" not in ast.unparse(node.exc)
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_checks.")


def undocumented(symbol):
    """What the docstring of a public symbol lacks."""
    text, source = inspect.getdoc(symbol) or "", ast.parse(textwrap.dedent(inspect.getsource(symbol)))
    wanted = [">>> ", "Example"]
    if hasattr(symbol, "_fields"):
        wanted += list(symbol._fields)
    else:
        parameters = [p for p in inspect.signature(symbol).parameters if p not in ("args", "kwargs")]
        wanted += ["Args:", *parameters] if parameters else []
        wanted += ["Raises:"] if any(map(may_raise, ast.walk(source))) else []
        wanted += ["Returns:"] if inspect.isfunction(symbol) else []
    return [
        name
        for name in wanted
        if not (documents(text, name) if name.islower() and name.isidentifier() else name in text)
    ]


def documents(text, parameter):
    """Whether a line of a docstring begins with the parameter, alone or among others: `x: ...` or `x, y: ...`."""
    return re.search(rf"^ +(\*?\*?\w+, )*{parameter}(, \*?\*?\w+)*: ", text, flags=re.MULTILINE) is not None


def test_the_documentation_test_can_fail():
    assert documents("Text.\n\nArgs:\n    x, y: Both.", "y")
    assert not documents("Text of an example, x: that.\n\nArgs:\n    max: Most.", "x")


@pytest.mark.parametrize("symbol", list(symbols()))
def test_public_symbols_are_documented(symbol):
    assert undocumented(symbol) == []


def test_symbols_without_documentation_are_noticed():
    def bare(width):
        """Nothing."""
        if width < 0:
            raise ValueError(width)

    assert undocumented(bare) == [">>> ", "Example", "Args:", "width", "Raises:", "Returns:"]


INSTANCES = [
    kmix.MixUp(0.3, num_classes=4, per="batch", rate=0.5, passthrough=["id"], seed=3, name="m", dtype="float16"),
    kmix.CutMix(0.3, num_classes=4, per="batch", rate=0.5, passthrough=["id"], seed=3, data_format="channels_first"),
    kmix.EmbeddingMixup(0.3, num_classes=4, per="batch", rate=0.5, seed=3, name="e"),
    kmix.RandomChoice([kmix.MixUp(0.1, seed=2), kmix.CutMix(seed=4)], weights=[1, 3], seed=5),
    kmix.CutMix(num_classes=9, labels="pair"),
    kmix.RandomChoice([kmix.MixUp(num_classes=9, labels="pair"), kmix.CutMix(num_classes=9, labels="pair")]),
    kmix.MixUp(kmix.schedules.Join([kmix.schedules.Cosine(0.0, 1.0, 4), 0.2], [4]), seed=1),
    kmix.losses.SoftLabelCrossentropy(True, 0.1, True, True, reduction="sum", name="loss"),
    kmix.metrics.SoftLabelAccuracy(name="acc"),
    kmix.metrics.ExpectedCalibrationError(7, from_logits=True, name="ece"),
    kmix.schedules.Polynomial(0.1, 0.2, 3, 4, 5.0),
]


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: type(i).__name__)
def test_config_survives_json(instance):
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(instance)))
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(instance)
    assert copy.get_config() == instance.get_config()
    for name in inspect.signature(type(instance)).parameters:
        # Keras' own `weights` and `dtype` mean something else.
        if name not in ("kwargs", "weights", "dtype", "layers", "alpha"):
            assert getattr(copy, name) == getattr(instance, name), name


LIGHT = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import kmix, numpy as np
choice = kmix.RandomChoice([kmix.MixUp(num_classes=2), kmix.CutMix(num_classes=2)])
x, y = choice(np.zeros((4, 8, 8, 1), "float32"), np.zeros(4, int))
import keras
kmix.MixUp(num_classes=2)(keras.ops.zeros((4, 8)), keras.ops.zeros((4,), "int32"))
float(kmix.losses.SoftLabelCrossentropy()(y, y))
kmix.schedules.Cosine(1.0, 0.0, 5)(3)
print(y.shape)
"""


def run(code):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_works_where_nothing_but_the_backend_can_be_imported():
    others = [name for name in ("tensorflow", "jax", "torch") if name != BACKEND]
    blocked = [*others, "matplotlib", "sklearn", "pandas", "grain", "keras_cv"]
    result = run(LIGHT.format(blocked=blocked))
    assert "(4, 2)" in result.stdout, result.stderr


def test_the_lightness_test_can_fail():
    assert "(4, 2)" not in run(LIGHT.format(blocked=[BACKEND])).stdout
    assert "(4, 2)" not in run("import sys; sys.modules['kmix'] = None; import kmix").stdout


# Packages whose module has another name.
MODULES = {"scikit_learn": "sklearn"}


def declared(config):
    """What a setup.cfg installs always, and what a user may install besides, as names of modules."""
    options = configparser.ConfigParser()
    options.read_string(config)
    always, extras = options["options"]["install_requires"], options["options.extras_require"]
    optional = [line for extra, lines in extras.items() if extra != "test" for line in lines.split("\n")]
    names = lambda lines: {re.split(r"[^\w.-]", line)[0].replace("-", "_") for line in lines} - {""}
    return names(always.split("\n")), {MODULES.get(name, name) for name in names(optional)}


def third_party(tree):
    """`(package, whether a function imports it, and not the module)` for each import from outside."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lazy = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for package in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"kmix"}:
            yield package, id(node) in lazy


def undeclared(modules, config):
    """Imports that a user's installation may lack: `module: package`."""
    always, optional = declared(config)
    return [
        f"{module}: {package}"
        for module, tree in modules
        for package, lazy in third_party(tree)
        if package not in always and not (lazy and package in optional)
    ]


def test_what_is_imported_is_declared():
    assert undeclared(modules(), (ROOT.parent / "setup.cfg").read_text()) == []


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import scipy", ["scipy"]),
        ("from scipy.special import expit", ["scipy"]),
        ("def f():\n    import sympy.abc", ["sympy"]),
        ("def f():\n    import pytest", ["pytest"]),  # Declared, but for the tests of kmix alone.
        ("import matplotlib.pyplot", ["matplotlib"]),  # Optional, so a function may import it, but no module.
        ("if True:\n    import tensorflow", ["tensorflow"]),
        ("def f():\n    import tensorflow, matplotlib.pyplot", []),
        ("import os.path, numpy.linalg, keras\nfrom kmix import data\nfrom . import plots", []),
    ],
)
def test_the_test_of_the_imports_can_fail(code, missing):
    config = (ROOT.parent / "setup.cfg").read_text()
    assert undeclared([("m", ast.parse(code))], config) == [f"m: {package}" for package in missing]


def test_a_requirement_that_is_taken_away_is_missed():
    config = (ROOT.parent / "setup.cfg").read_text().replace("    ml_dtypes\n", "")
    assert undeclared(modules(), config) == ["kmix._backend.host: ml_dtypes", "kmix._backend.numpy: ml_dtypes"]


def test_every_mutant_finds_its_place():
    assert mutants.lost() == []
    assert 6 <= sum(mutant.short for mutant in mutants.MUTANTS.values()) <= 10


def test_a_mutant_that_lost_its_place_says_where_it_was():
    mutant = mutants.MUTANTS["rate ignored"]
    moved = mutant._replace(place="plan.lam:sample_lam")
    source = mutants.path_of(mutant).read_text()
    assert "u[_RATE] < 1.0" in mutants.mutated(mutant, source)
    for lost in (moved, mutant._replace(old="u[_RATE] <= rate"), mutant._replace(old="xp")):
        with pytest.raises(
            LookupError, match=re.escape(f"kmix/plan/lam.py:{lost.place.partition(':')[2]}. Has it moved?")
        ):
            mutants.mutated(lost, source)


def test_a_mutant_is_found_whatever_the_layout():
    mutant = mutants.Mutant("", "m:C.f", "g(a, 'b')", "0")
    assert "return 0" in mutants.mutated(
        mutant, 'class C:\n    def f(a):\n        return g(\n            a, "b",\n        )'
    )
    with pytest.raises(LookupError, match="2 times"):
        mutants.mutated(mutant, "class C:\n    def f(a):\n        return g(a, 'b') + g(a, 'b')")


# Data for the examples that would download them, where there are some beside the checkout.
CLINC150 = ROOT.parent.parent / "shared" / "data" / "clinc150" / "data_full.json"
no_clinc = pytest.mark.skipif(not CLINC150.exists(), reason="CLINC150 is not there, and tests download nothing")
DIGITS = ROOT.parent.parent / "shared" / "data" / "fsdd" / "recordings.tar.gz"
no_digits = pytest.mark.skipif(not DIGITS.exists(), reason="no recordings there, and tests download nothing")
FASHION = pathlib.Path.home() / ".keras" / "datasets" / "fashion-mnist" / "train-images-idx3-ubyte.gz"
no_fashion = pytest.mark.skipif(not FASHION.exists(), reason="no Fashion-MNIST there, and tests download nothing")
demo = pytest.mark.skipif(BACKEND == "tensorflow", reason="make demo runs it on TensorFlow")
long = pytest.mark.skipif(BACKEND != "tensorflow", reason="the long examples are run on one backend, for their time")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["quickstart.py"], marks=demo),
        pytest.param(["in_graph_fit.py"], marks=long),
        pytest.param(["text_intents.py", "--data", str(CLINC150)], marks=[long, no_clinc]),
        pytest.param(["tabular_regression.py"], marks=long),
        pytest.param(["does_it_help.py"], marks=long),
        pytest.param(["segmentation.py"], marks=long),
        pytest.param(["detection.py"], marks=long),
        pytest.param(["audio_digits.py", "--data", str(DIGITS)], marks=[long, no_digits]),
        pytest.param(["experiments/noisy_labels.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/few_samples.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/where_to_mix.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/regularisers.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/alphas.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/borderline_intents.py", "--data", str(CLINC150)], marks=[long, no_clinc]),
    ],
    ids=lambda command: command[0],
)
def test_examples_run(command, tmp_path):
    picture = tmp_path / "out.png"
    example = [str(ROOT.parent / "examples" / command[0]), *command[1:]]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    result = subprocess.run(
        [sys.executable, *example, "--quick", "--output", str(picture)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "mixup" in result.stdout.lower()
    assert picture.stat().st_size > 10_000


def test_the_seed_of_numpy_is_not_touched():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    kmix.MixUp()(np.zeros((4, 2), "float32"), np.eye(4, dtype="float32"))
    assert np.random.rand() == expected
