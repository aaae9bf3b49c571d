"""The shape of the library: modules, the public API, documentation, lightness."""

import ast
import configparser
import graphlib
import importlib
import inspect
import itertools
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
REPOSITORY = pathlib.Path(__file__).parent.parent
BACKEND = keras.backend.backend()

# From top to bottom. A module imports what lies further down, and its own package.
LEVELS = [
    {"kmix"},
    {"kmix.callbacks"},
    {"kmix.diagnostics"},
    {"kmix.training"},
    {"kmix.data", "kmix.plots"},
    {"kmix.layers"},
    {"kmix.metrics", "kmix.schedules", "kmix.typing"},
    {"kmix.batch", "kmix.losses"},
    {"kmix.targets"},
    {"kmix.mixing", "kmix.pairing"},
    {"kmix.plan"},
    {"kmix._settings", "kmix.label_forms", "kmix.prng"},
    {"kmix._backend"},
    {"kmix._checks", "kmix._files"},
]
HEIGHT = {name: -level for level, names in enumerate(LEVELS) for name in names}


def package(module):
    """The package of a module, or a module that is in none."""
    return ".".join(module.split(".")[:2])


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def is_module(name):
    path = ROOT.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def pointing_up(found):
    """Imports that do not point down: `module imports name`."""
    return [
        f"{module} imports {name}"
        for module, tree in found.items()
        for name in imports(tree)
        if name.split(".")[0] == "kmix" and package(name) != package(module)
        if HEIGHT[package(name)] >= HEIGHT[package(module)]
    ]


def test_imports_point_down():
    found = dict(modules())
    assert set(map(package, found)) == set(HEIGHT)
    assert pointing_up(found) == []


def test_no_module_imports_itself_by_way_of_others():
    found = {module: {name for name in imports(tree) if name != module} for module, tree in modules()}
    graphlib.TopologicalSorter(found).prepare()


def test_every_module_is_imported():
    found = dict(modules())
    imported = {name for tree in found.values() for name in imports(tree)}
    packages = {module.rpartition(".")[0] for module in found}
    assert set(found) - imported - packages == set()


def test_an_import_that_points_up_is_noticed():
    tree = ast.parse("def late():\n    from kmix.layers import mixup\nfrom kmix import _checks")
    assert pointing_up({"kmix.plan": tree}) == ["kmix.plan imports kmix.layers.mixup"]
    assert pointing_up({"kmix.prng": ast.parse("import kmix.label_forms")}) != []
    assert pointing_up({"kmix.targets.new": ast.parse("from kmix.targets.base import Target")}) == []
    assert list(imports(ast.parse("from kmix.plan import samplers, MixPlan"))) == ["kmix.plan.samplers", "kmix.plan"]


FILE, FUNCTION = 700, 50


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
    assert too_long("m", "x = 1\n" * 701) == ["m: 701"]
    assert too_long("m", "def f():\n" + "    x = 1\n" * 50) == ["m:f: 51"]
    assert too_long("m", 'def f():\n    """A.\n\n' + "    B.\n" * 60 + '    """\n' + "    x = 1\n" * 49) == []


# A named tuple's methods; Python's own; by `_direction` Keras' callbacks tell whether more of a metric is better; where
# PyTorch documents how to break a graph.
OPEN_NAMES = {"_replace", "_asdict", "_fields", "_make", "_getframe", "_direction", "_dynamo"}


def private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names(trees):
    """The private names that modules give to functions, classes, attributes and arguments."""
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id
        elif isinstance(node, ast.keyword):
            yield node.arg or ""


def private_uses(tree, own=()):
    """Private names of other libraries that a module takes: those that are not its `own`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in OPEN_NAMES.union(own):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != "kmix":
            yield from (f"{node.module}.{alias.name}" for alias in node.names if private(alias.name))


@pytest.mark.slow
def test_no_module_uses_what_is_private_to_another_library():
    found = dict(modules())
    own = set(own_names(found.values()))
    assert {module: uses for module, tree in found.items() if (uses := list(private_uses(tree, own)))} == {}


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        ("x._keras_mask", ["x._keras_mask"]),
        ("def f(layer):\n    return layer.inputs._axes(3)", ["layer.inputs._axes"]),
        ("from keras.layers import _plain", ["keras.layers._plain"]),
        ("keras._tf_keras", ["keras._tf_keras"]),
        ("from kmix import _checks\nplan._replace(lam=1)", []),
        ("class A:\n    def _f(self, other):\n        self._x = other._x\n        return super()._f()", []),
        ("layer._store(_target=1)\nlayer._target", ["layer._store"]),
    ],
)
def test_the_test_of_private_names_can_fail(code, uses):
    tree = ast.parse(code)
    assert list(private_uses(tree, set(own_names([tree])))) == uses


def test_only_public_keras_and_no_framework_at_import():
    for module, tree in modules():
        assert not any(name.startswith("keras.src") for name in imports(tree)), module
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not top & {"tensorflow", "jax", "torch", "matplotlib"}, module


def test_only_plans_and_pairing_draw():
    for module, tree in modules():
        if package(module) not in ("kmix.plan", "kmix.pairing"):
            assert "kmix.prng" not in set(imports(tree)), module


PUBLIC = [
    "kmix",
    "kmix.callbacks",
    "kmix.data",
    "kmix.diagnostics",
    "kmix.layers",
    "kmix.losses",
    "kmix.metrics",
    "kmix.pairing",
    "kmix.plan",
    "kmix.plots",
    "kmix.schedules",
    "kmix.targets",
    "kmix.typing",
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
            if inspect.isfunction(value) or (inspect.isclass(value) and value.__module__.startswith("kmix")):
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


LABELS = kmix.targets.Labels(4, class_weight={1: 2.0})
NAMED = {"label": LABELS, "id": "keep", "masks": kmix.targets.SegmentationMasks(3, ignore_class=255)}
POINTS = kmix.targets.Keypoints("rel_yx", hidden=1)
BOXES = kmix.targets.BoundingBoxes(
    "xyxy", max_boxes=9, min_visibility=0.2, weights=True, keep=("track",), keypoints=POINTS
)
OBJECTS = kmix.targets.InstanceMasks(
    "xywh", max_instances=9, min_visibility=0.2, crowd="crowd", keep=("track",), keypoints=POINTS
)
PAIRS = kmix.targets.LabelPairs(9)

INSTANCES = [
    kmix.MixUp(0.3, target=NAMED, inputs_key=("a", "b"), per="batch", rate=0.5, seed=3, name="m", dtype="float16"),
    kmix.CutMix(0.3, num_classes=4, include_clean=True, rate=0.5, seed=3, axes=(1, 2), data_format="channels_first"),
    kmix.EmbeddingMixup(0.3, num_classes=4, lam_at_least_half=True, jit_compile=False, seed=3, name="e"),
    kmix.MixUp(pairing=kmix.pairing.SimilarLabels(0.1, label="a", allow_self=False), target={"a": "labels"}),
    kmix.MixUp(pairing=kmix.pairing.SameLabels(other="id", label="label"), target=NAMED),
    kmix.MixUp(pairing=kmix.pairing.DifferentLabels(same="id", label="label"), target=NAMED),
    kmix.Mosaic(target={"labels": "union", "bounding_boxes": BOXES}, pairing="random", rate=0.5, seed=4),
    kmix.CopyPaste(target={"instances": OBJECTS}, rate=0.5, instance_rate=0.2, data_format="channels_first", seed=4),
    kmix.RandomChoice([kmix.MixUp(0.1, seed=2), kmix.CutMix(seed=4)], probabilities=[1, 3], seed=5),
    kmix.CutMix(target=PAIRS, padding_id=0, data_format="channels_last"),
    kmix.RandomChoice([kmix.MixUp(target=PAIRS), kmix.CutMix(target=PAIRS)]),
    LABELS,
    NAMED["masks"],
    BOXES,
    OBJECTS,
    POINTS,
    kmix.targets.Labels(nan_is_missing=True),
    kmix.targets.Labels(any_shape=True),
    kmix.pairing.RandomPairs(within="shard", allow_self=False),
    kmix.MixUp(kmix.schedules.Join([kmix.schedules.Cosine(0.0, 1.0, 4), 0.2], [4]), seed=1),
    kmix.losses.SoftLabelCrossentropy(True, 0.1, multi_label=True, subtract_entropy=True, reduction="sum", name="loss"),
    kmix.metrics.SoftLabelAccuracy(name="acc", ignore_class=255),
    kmix.metrics.SoftLabelMeanIoU(4, ignore_class=255, name="iou"),
    kmix.metrics.ExpectedCalibrationError(7, from_logits=True, name="ece"),
    kmix.schedules.Polynomial(0.1, 0.2, 3, transition_begin=4, power=5.0),
]


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: type(i).__name__)
def test_config_survives_json(instance):
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(instance)))
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(instance)
    assert copy.get_config() == instance.get_config()
    for name in inspect.signature(type(instance)).parameters:
        # Keras' own `dtype` means something else.
        if name not in ("kwargs", "dtype", "layers", "alpha"):
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


@pytest.mark.slow
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
    optional = [line for lines in extras.values() for line in lines.split("\n")]
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
    assert undeclared(modules(), (REPOSITORY / "setup.cfg").read_text()) == []


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
    config = (REPOSITORY / "setup.cfg").read_text()
    assert undeclared([("m", ast.parse(code))], config) == [f"m: {package}" for package in missing]


def test_a_requirement_that_is_taken_away_is_missed():
    config = re.sub(r"^\s+ml_dtypes$", "", (REPOSITORY / "setup.cfg").read_text(), flags=re.MULTILINE)
    assert undeclared(modules(), config) == [
        "kmix._backend.keras_ops: ml_dtypes",
        "kmix._backend.numpy_ops: ml_dtypes",
    ]


@pytest.mark.slow
def test_every_mutant_finds_its_place():
    assert mutants.lost() == []
    assert 6 <= sum(mutant.short for mutant in mutants.MUTANTS.values()) <= 10


@pytest.mark.skipif(not (REPOSITORY / "kmix").exists(), reason="about a checkout, and kmix is installed")
def test_a_mutant_that_lost_its_place_says_where_it_was():
    mutant = mutants.MUTANTS["rate ignored"]
    moved = mutant._replace(place="plan.samplers:sample_lam")
    source = mutants.path_of(mutant).read_text()
    assert "u[_RATE] < 1.0" in mutants.mutated(mutant, source)
    for lost in (moved, mutant._replace(old="u[_RATE] <= rate"), mutant._replace(old="xp")):
        with pytest.raises(
            LookupError, match=re.escape(f"kmix/plan/samplers.py:{lost.place.partition(':')[2]}. Has it moved?")
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
CLINC150 = REPOSITORY.parent / "shared" / "data" / "clinc150" / "data_full.json"
no_clinc = pytest.mark.skipif(not CLINC150.exists(), reason="CLINC150 is not there, and tests download nothing")
DIGITS = REPOSITORY.parent / "shared" / "data" / "fsdd" / "recordings.tar.gz"
no_digits = pytest.mark.skipif(not DIGITS.exists(), reason="no recordings there, and tests download nothing")
FASHION = pathlib.Path.home() / ".keras" / "datasets" / "fashion-mnist" / "train-images-idx3-ubyte.gz"
no_fashion = pytest.mark.skipif(not FASHION.exists(), reason="no Fashion-MNIST there, and tests download nothing")
demo = pytest.mark.skipif(BACKEND == "tensorflow", reason="make demo runs it on TensorFlow")
long = pytest.mark.skipif(BACKEND != "tensorflow", reason="the long examples are run on one backend, for their time")


@pytest.mark.slow
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
        pytest.param(["instance_paste.py"], marks=long),
        pytest.param(["audio_digits.py", "--data", str(DIGITS)], marks=[long, no_digits]),
        pytest.param(["experiments/noisy_labels.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/few_samples.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/where_to_mix.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/regularisers.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/alphas.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/pairing_rules.py"], marks=[long, no_fashion]),
        pytest.param(["experiments/borderline_intents.py", "--data", str(CLINC150)], marks=[long, no_clinc]),
    ],
    ids=lambda command: command[0],
)
def test_examples_run(command, tmp_path):
    picture = tmp_path / "out.png"
    example = [str(REPOSITORY / "examples" / command[0]), *command[1:]]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    result = subprocess.run(
        [sys.executable, *example, "--quick", "--output", str(picture)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search("mixup|copypaste", result.stdout.lower())
    assert picture.stat().st_size > 10_000


def test_the_seed_of_numpy_is_not_touched():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    kmix.MixUp()(np.zeros((4, 2), "float32"), np.eye(4, dtype="float32"))
    assert np.random.rand() == expected
