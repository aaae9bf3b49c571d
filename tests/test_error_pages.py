"""docs/about/errors.md has a family for every error that kmix raises, and shows each message as it is printed."""

import ast
import fnmatch
import functools
import pathlib
import re

import pages
import pytest

import kmix

pytestmark = pytest.mark.alike

PACKAGE = pathlib.Path(kmix.__file__).parent
PAGE = pages.DOCS / "about" / "errors.md"

# The heading of a family, and the errors that it takes: a pattern of modules, and key words of the message, in which a
# name is followed by what it stands for. A new error goes to the family with its remedy, or begins another family.
FAMILIES = {
    "An argument has the wrong type or value": [
        ("_checks.py", "finite number|`{name}`|`probabilities`|schedule"),
        ("callbacks/alpha_scheduler.py", "`layers` must|`schedule` must"),
        ("callbacks/fingerprint.py", "is one of"),
        ("data/mixed_batches.py", "must be callable"),
        ("layers/audio_mix.py", "With `snr`"),
        ("layers/base.py", "float dtype|`training` must"),
        ("layers/input_mixing.py", "`inputs_key` must"),
        ("layers/random_choice.py", "must hold|must be mixing|{setting}"),
        ("pairing.py", "`within` must"),
        ("plan/audio.py", "."),
    ],
    "A setting cannot change": [
        ("_settings.py", "."),
        ("layers/base.py", "cannot be set after"),
    ],
    "Alpha cannot be set here": [
        ("_backend/state.py", "alpha"),
        ("layers/alpha.py", "."),
        ("layers/base.py", "has no alpha"),
        ("training/trainer.py", "alphas"),
    ],
    "A schedule has no usable value": [
        ("_backend/operations.py", "schedule"),
        ("layers/random_choice.py", "at every step"),
        ("schedules.py", "boundaries"),
    ],
    "A package is missing": [
        ("_checks.py", "ImportError"),
    ],
    "Inputs come without labels": [
        ("batch.py", "must hold labels"),
        ("layers/base.py", "together with their labels|Sample weights belong"),
        ("training/training_step.py", "mixes labels with the inputs"),
    ],
    "The argument is not a batch": [
        ("batch.py", "dense tensors|arrays of numbers|arrays or tensors"),
        ("layers/base.py", "A batch is|labels are a second argument"),
        ("layers/calls.py", "."),
    ],
    "A dictionary has an unknown or a missing key": [
        ("batch.py", "A dictionary batch holds|Only these keys|labels of a dictionary batch|include_clean"),
    ],
    "The arrays of a batch differ in size": [
        ("batch.py", "needs a batch axis|_BATCH_SIZES|needs inputs"),
        ("training/training_step.py", "divisible"),
    ],
    "Sample weights do not fit": [
        ("batch.py", "Sample weights must|With sample weights"),
        ("targets/sample_weights.py", "."),
        ("losses.py", "Sample weights must|Weights of the classes must"),
    ],
    "A layer cannot count its calls here": [
        ("_backend/state.py", "count its calls"),
        ("layers/base.py", "count its calls"),
    ],
    "Partners cannot be chosen": [
        ("batch.py", "_ALIKE"),
        ("layers/base.py", "`partner=`|`targets` must"),
        ("layers/audio_mix.py", "draws partners"),
        ("layers/mosaic.py", "."),
        ("layers/random_choice.py", "of their pairing"),
        ("pairing.py", "`pairing|score draws|`SimilarLabels`|needs one label|another entry than|compares"),
        ("pairing.py", "size of the batch|depends on the targets"),
        ("plan/plan.py", "first_row|one plan|message"),
    ],
    "Class ids need the number of classes": [
        ("targets/labels.py", "needs `num_classes`"),
        ("training/output_labels.py", "needs an output|do not tell|does not show|multi-hot, with|with a column for"),
    ],
    "Class ids are floats": [
        ("targets/labels.py", "must be integer class ids"),
        ("training/output_labels.py", "must be integer class ids"),
    ],
    "Label values are out of range": [
        ("targets/labels.py", "ids must lie|_NOT_MULTI_HOT|_UNION} in"),
    ],
    "Labels have an unexpected shape": [
        (
            "targets/labels.py",
            "rank of labels|float or integer|have the shape|pastes parts|_PER_POSITION|\\(B, C\\) have|or multi-hot"
            "|last dimension",
        ),
    ],
    "Labels do not fit the options of their target": [
        ("targets/labels.py", "class_weight|nan_is_missing|`LabelPairs`|_UNION}\\."),
        ("training/output_labels.py", "with gaps|`LabelPairs`"),
    ],
    "The target does not match the labels": [
        ("batch.py", "must match the labels"),
        ("targets/argument.py", "`target` must|stands for|mixes each"),
        ("training/placement.py", "`num_classes` and `target`"),
    ],
    "Segmentation masks do not fit": [
        ("targets/segmentation_masks.py", "."),
        ("training/output_labels.py", "Blended masks"),
    ],
    "Bounding boxes do not fit": [
        ("batch.py", "bounding boxes"),
        ("targets/argument.py", "bounding boxes"),
        ("targets/bounding_boxes.py", "box|Box"),
    ],
    "Objects do not fit": [
        ("layers/copy_paste.py", "."),
        ("targets/instance_masks.py", "."),
        ("training/placement.py", "objects of images"),
    ],
    "Keypoints do not fit": [
        ("targets/bounding_boxes.py", "Keypoints"),
        ("targets/keypoints.py", "."),
    ],
    "Inputs cannot be blended": [
        ("layers/input_mixing.py", "blends float|must hold float|AudioMix adds"),
        ("mixing/blend.py", "."),
        ("training/manifold.py", "be blended"),
    ],
    "Inputs cannot be pasted": [
        ("layers/cutmix.py", "."),
        ("layers/input_mixing.py", "CutMix needs|_SAME_SPATIAL|takes images|`axes`"),
        ("plan/samplers.py", "A Mosaic|To draw a box"),
    ],
    "MixTrainer does not take the model": [
        ("training/placement.py", "`model` must|`mixer` must|something that mixes|overrides"),
        ("training/trainer.py", "plain model"),
    ],
    "A place cannot be found": [
        ("training/graph.py", "."),
        ("training/manifold.py", "stands for|`places` must"),
        ("training/placement.py", "`places` must"),
    ],
    "A model would mix twice, or never": [
        ("layers/base.py", "Mix in one way"),
        ("layers/input_mixing.py", "pairs the samples"),
        ("layers/training_step.py", "."),
        ("training/manifold.py", "mix twice"),
        ("training/placement.py", "Mix in one way|Inside a model|one plan"),
    ],
    "The loss or a metric cannot take mixed labels": [
        ("training/output_labels.py", "Mixed labels are shares"),
        ("training/paired_loss.py", "."),
        ("training/training_step.py", "mix_losses"),
    ],
    "A file cannot be loaded": [
        ("training/state.py", "."),
    ],
    "Labels and predictions do not fit": [
        ("label_forms.py", "."),
        ("losses.py", "With `multi_label`|single output column"),
        ("metrics.py", "."),
    ],
    "The batches cannot be numbered": [
        ("callbacks/alpha_scheduler.py", "go on where"),
        ("callbacks/fingerprint.py", "mix alike"),
        ("data/mixed_batches.py", "takes examples|An item of"),
        ("data/number*.py", "."),
    ],
    "Diagnostics cannot use the data or the model": [
        ("diagnostics/*.py", "^(?!NotImplementedError)"),
    ],
    "A plot cannot be drawn": [
        ("plots/*.py", "."),
    ],
    "An extension is incomplete": [
        ("*", "NotImplementedError"),
        ("mixing/__init__.py", "."),
        ("plan/plan.py", "spatial_shape|integer scalar"),
        ("plan/samplers.py", "`xp`|float scalar|`cut`|`pair`"),
        ("plan/streams.py", "."),
        ("targets/base.py", "callable"),
    ],
}

# The functions through which errors are raised: which of their arguments holds the message.
MESSAGE = {"fail": 0, "require": -1, "require_equal_sizes": -1}


@functools.cache
def texts(function):
    """The expressions that the names of a module or function stand for, by name."""
    found = {}
    for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else function.body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AugAssign)):
                found[target.id] = found.get(target.id, "") + " " + ast.unparse(node.value)
    return found


@functools.cache
def errors():
    """Every error that kmix raises: `(place, text)`, with what the names in its message stand for."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ast.parse(path.read_text())
        around = {}
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            around.update(dict.fromkeys(ast.walk(function), function))
        for node in ast.walk(module):
            function = around.get(node, module)
            if getattr(function, "name", None) in MESSAGE:
                continue
            if isinstance(node, ast.Raise) and node.exc is not None:
                message = node.exc
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) in MESSAGE:
                message = node.args[MESSAGE[getattr(node.func, "attr", None) or node.func.id]]
            else:
                continue
            known = {**texts(module), **texts(function)}
            names = [each.id for each in ast.walk(message) if isinstance(each, ast.Name)]
            text = " ".join([ast.unparse(message), *(known.get(name, "") for name in names)])
            found.append((f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}", text))
    return found


def takes(modules, words, place, text):
    """Whether a rule takes an error."""
    return fnmatch.fnmatchcase(place, f"{modules}:*") and re.search(words, text) is not None


def families_of(*error):
    return [family for family, rules in FAMILIES.items() if any(takes(*rule, *error) for rule in rules)]


def printed(error):
    """The last line of a traceback, with single spaces and without addresses."""
    return " ".join(re.sub(r"0x[0-9a-f]+", "0x...", f"{type(error).__name__}: {error}").split())


def sections():
    """The sections of the page, by their headings."""
    return dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE))


def test_the_page_has_the_families():
    assert list(sections()) == list(FAMILIES)


def test_every_error_has_one_family():
    found = {place: families_of(place, text) for place, text in errors()}
    assert len(found) > 200
    assert {place: families for place, families in found.items() if len(families) != 1} == {}


def test_every_rule_takes_an_error():
    rules = [(family, *rule) for family, rules in FAMILIES.items() for rule in rules]
    assert [rule for rule in rules if not any(takes(*rule[1:], *error) for error in errors())] == []


@pytest.mark.slow
def test_messages_are_as_they_are_printed(tmp_path, monkeypatch):
    """A block `py` raises what the block of text after it shows. The other blocks of the page run between them."""
    monkeypatch.chdir(tmp_path)
    page, names = PAGE.read_text(), {"__name__": "__main__"}
    found = re.findall(r"^```(py|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", page, flags=re.DOTALL | re.MULTILINE)
    assert sum(kind == "py" for kind, _, _ in found) >= len(FAMILIES) - 2
    for kind, code, text in found:
        run = compile(code, f"a block of {PAGE.name}", "exec")
        if kind == "python":
            exec(run, names)
            continue
        with pytest.raises(Exception) as raised:  # noqa: PT011
            exec(run, names)
        assert printed(raised.value) == " ".join(text.split()), code


def test_an_unknown_error_has_no_family():
    assert families_of("targets/labels.py:1", "'Labels are Martian.'") == []
    assert families_of("new.py:1", "'Labels have the shape (B,).'") == []
