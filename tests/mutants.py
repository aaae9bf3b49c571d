"""Break kmix on purpose and see that a test notices, on each code path and each backend.

    python tests/mutants.py
    python tests/mutants.py --short --backends jax
    python tests/mutants.py --backends jax --only "weights unmixed"

Each mutant is a copy of kmix in which one expression of one function is another. It must make its tests fail, on every
code path where they have one; where it does not, the table says SURVIVED and the exit code is 1. A mutant finds its
place by what the code says, whatever its layout: a module, the name of a function or method, and an expression (or a
statement) in it. Where that has moved the script says so and stops; a test of test_project.py tells at once.
"""

import argparse
import ast
import concurrent.futures
import copy
import functools
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
PATHS = ("numpy", "native", "tfdata")


class Mutant(NamedTuple):
    """A fault to plant.

    Attributes:
        tests: The file and the name of the tests that must fail.
        place: `module:function` or `module:Class.method`, the module within kmix.
        old: An expression or statement that the function holds once.
        new: What stands there instead.
        paths: The code paths on which a test must fail; none where tests do not tell them.
        short: Whether it belongs to the short form.
    """

    tests: str
    place: str
    old: str
    new: str
    paths: tuple[str, ...] = ()
    short: bool = False


def pipeline(test, place, old, new, file="test_code_paths", short=False):
    """A mutant that tests on every code path must notice."""
    return Mutant(f"{file}::{test}", place, old, new, PATHS, short)


def step(test, place, old, new, file="test_trainer", short=False):
    """A mutant of the training step, where `fit` is the only way."""
    return Mutant(f"{file}::{test}", place, old, new, (), short)


_SHARES = "targets.sample_weights:pair_shares"
_PAIRS, _SHARE = "targets.labels:LabelPairs.mix", "xp.where(keep, 1.0, share)"
_MIX_LABELS = "targets.sample_weights:mix_labels", "combine(xp, keep, own, partner, y, plan.permutation)"
_PASTE = "paste(xp, x, plan.permutation, {}, axes=axes)"

MUTANTS = {
    "lam and 1-lam swapped in the labels": pipeline(
        "test_mixup_is_the_formula",
        _SHARES,
        "keep, a, b = lam == 1.0, lam, 1.0 - lam",
        "keep, b, a = lam == 1.0, lam, 1.0 - lam",
        short=True,
    ),
    "labels not permuted": pipeline(
        "test_mixup_is_the_formula",
        *_MIX_LABELS,
        "combine(xp, keep, own, partner, y, xp.arange(xp.size(y, 0)))",
    ),
    "label weight off by one pixel": pipeline(
        "test_mean_of_painted_images_is_the_mixed_label",
        "plan.samplers:_boxes",
        "xp.cast(stops[-1] - starts[-1], 'float32')",
        "xp.cast(stops[-1] - starts[-1] + 1, 'float32')",
    ),
    "box axes swapped in the plan": pipeline(
        "test_mean_of_painted_images_is_the_mixed_label",
        "plan.samplers:_boxes",
        "starts + stops",
        "starts[::-1] + stops[::-1]",
    ),
    "box axes swapped in the paste": pipeline(
        "test_cutmix_is_the_formula",
        "mixing:mix_inputs",
        _PASTE.format("plan.box"),
        _PASTE.format("xp.stack([xp.asarray(plan.box)[:, edge] for edge in (1, 0, 3, 2)], axis=1)"),
        short=True,
    ),
    "alpha frozen after tracing": pipeline(
        "test_alpha_takes_effect_on_the_next_batch",
        "layers.alpha:Alpha.set",
        "self._cell.assign(value)",
        "None",
    ),
    "at_step ignores the step": pipeline(
        "test_every_step_has_its_own_plan",
        "layers.base:MixLayer._at_step",
        "check_number(step, 'step', hint=STEP_FIRST)",
        "0",
    ),
    "at_step takes the step modulo 256": pipeline(
        "test_every_step_has_its_own_plan",
        "layers.base:MixLayer._at_step",
        "check_number(step, 'step', hint=STEP_FIRST)",
        "check_number(step % 256, 'step', hint=STEP_FIRST)",
    ),
    "replicas draw alike": pipeline(
        "test_replicas_draw_different_plans",
        "plan.plan:check_key",
        "check_number(replica, 'replica', 0, REPLICAS)",
        "0",
        file="test_numbering",
    ),
    "parts of a batch draw alike": pipeline(
        "test_parts_are_mixed_as_the_whole",
        "plan.samplers:_draw",
        "check_number(first_row, 'first_row')",
        "0",
        file="test_groups",
    ),
    "a numbering begins again": Mutant(
        "test_numbering::test_a_loop_goes_on_across_epochs|test_generators_and_lengths",
        "data.numbering:Numbering._begin",
        "max(self._next, self._used)",
        "self.start",
    ),
    "a worker keeps alpha": Mutant(
        "test_numbering::test_alpha_reaches_persistent_workers|test_a_pickled_layer_keeps_its_alpha",
        "layers.alpha:Alpha.check",
        "self._cell.check(value)",
        "None",
    ),
    "a kernel is compiled at every call": Mutant(
        "test_eager::test_a_shape_is_compiled_once",
        "_backend.execution:Programs.find",
        "self._known.pop(signature, 0)",
        "0",
    ),
    "weights unmixed": pipeline(
        "test_weighted_pair_of_losses",
        "batch:Batch.mix",
        "mix_weight(xp, weight, plan)",
        "xp.cast(weight, 'float32')",
        short=True,
    ),
    "labels ignore the weights": pipeline("test_weighted_pair_of_losses", _SHARES, "weight is None", "True"),
    "pairs not permuted": pipeline(
        "test_pairs_are_the_dense_labels", _PAIRS, "xp.where(keep, y, xp.take(y, xp.asarray(plan.permutation)))", "y"
    ),
    "pairs with the weight of the partner": pipeline(
        "test_pairs_are_the_dense_labels", _PAIRS, _SHARE, "xp.where(keep, 1.0, 1.0 - share)"
    ),
    "pairs ignore the sample weights": pipeline("test_pairs_are_the_dense_labels", _PAIRS, _SHARE, "plan.lam"),
    "kept pairs have no weight of their own": pipeline(
        "test_pairs_that_are_off_are_the_class_alone", _PAIRS, _SHARE, "share"
    ),
    "shares of a pair swapped in the loss": pipeline(
        "test_pairs_are_the_dense_labels",
        "label_forms:_sparse",
        "xp.stack([first, 1.0 - first], axis=-1)",
        "xp.stack([1.0 - first, first], axis=-1)",
    ),
    "RandomChoice always takes the first": pipeline(
        "test_random_choice_takes_every_branch", "plan.samplers:sample_choice", "return index", "return index * 0"
    ),
    "rate ignored": pipeline(
        "test_rate_is_the_share_of_mixed_samples", "plan.samplers:_sample_lam", "u[_RATE] < rate", "u[_RATE] < 1.0"
    ),
    "per ignored": pipeline("test_per_batch_shares_one_lam", "plan.samplers:_draw", "per == 'batch'", "False"),
    "seed ignored": pipeline("test_seed_decides", "plan.samplers:_draw", "check_number(seed, 'seed', 0, 2 ** 32)", "5"),
    "label_smoothing ignored": pipeline(
        "test_loss_settings_matter",
        "losses:SoftLabelCrossentropy.__init__",
        "_checks.real(label_smoothing, 'label_smoothing', 0.0, 1.0)",
        "0.0",
    ),
    "multi_label ignored": pipeline(
        "test_loss_settings_matter",
        "losses:SoftLabelCrossentropy.__init__",
        "_checks.boolean(multi_label, 'multi_label')",
        "False",
    ),
    "class_weight ignored": pipeline(
        "test_class_weights_become_weights_of_the_pair",
        "targets.labels:Labels.encode",
        "y * _table(xp, self.class_weight, y.shape[1])",
        "y",
        file="test_class_weight",
    ),
    "class_weight does not multiply": pipeline(
        "test_class_weights_multiply_into_the_weights_that_there_are",
        "targets.labels:_times",
        "weight * xp.along(factor, weight)",
        "weight",
        file="test_class_weight",
    ),
    "what is kept changes places": pipeline(
        "test_keep_leaves_labels_as_they_are",
        "batch:_fill",
        "kept[template.key]",
        "tree.map_structure(lambda leaf: leaf[::-1], kept[template.key])",
        file="test_targets",
        short=True,
    ),
    "tags of a partner without a share": pipeline(
        "test_union_is_the_larger_of_those_that_are_there",
        "targets.labels:LabelUnion.mix",
        "xp.along(part.share, y) > 0",
        "xp.along(part.share, y) >= 0",
        file="test_union",
    ),
    "masks not united": pipeline(
        "test_boolean_masks_are_united",
        "mixing.padding_masks:mix_masks",
        "xp.take(counts, xp.asarray(plan.permutation))",
        "counts",
        file="test_padding_masks",
    ),
    "padding does not come back exactly": pipeline(
        "test_what_both_partners_share_comes_back_exactly",
        "_backend.operations:Namespace.interpolate",
        "own == partner",
        "own != own",
        file="test_padding_masks",
    )._replace(paths=("tfdata",)),
    "float ids are taken for values": pipeline(
        "test_float",
        "targets.labels:Labels._check_floats",
        "self.num_classes is None",
        "True",
        file="test_num_classes",
    )._replace(paths=()),
    "step: inputs unmixed": step(
        "test_steps_on_mixed_inputs", "batch:Batch.mix", "input_mixing is not None", "False", short=True
    ),
    "step: layers in the model mix nothing": step(
        "test_steps_on_mixed_embeddings",
        "layers.base:MixLayer._mix_inputs_alone",
        "tree.map_structure(lambda leaf: self.input_mixing.mix(_backend.namespace(leaf), leaf, plan), x)",
        "x",
    ),
    "step: masks not united": step(
        "test_steps_on_mixed_embeddings",
        "mixing.padding_masks:mix_masks",
        "xp.take(counts, xp.asarray(plan.permutation))",
        "counts",
        short=True,
    ),
    "step: `places` ignored": step(
        "test_steps_of_manifold_mixup", "training.trainer:MixTrainer.call", "training and self._network", "False"
    ),
    "step: the first place always": step(
        "test_steps_of_manifold_mixup",
        "training.training_step:StepMixer._place",
        "sample_choice(seed, key.step, even, stream=streams.PLACE, xp=xp)",
        "0 * sample_choice(seed, key.step, even, stream=streams.PLACE, xp=xp)",
    ),
    "step: the gradient goes to the partner": step(
        "test_the_gradient_of_the_blend", "mixing.blend:blend", "xp.argsort(permutation)", "permutation", short=True
    ),
    "step: the quick gradient for every plan": step(
        "test_the_gradient_of_a_plan_that_is_no_permutation",
        "mixing.blend:blend",
        "xp.custom_gradient(mixed, gradient) if bijective is True else mixed",
        "xp.custom_gradient(mixed, gradient)",
        file="test_contract",
    ),
    "step: labels unmixed": step(
        "test_steps_on_mixed_inputs",
        *_MIX_LABELS,
        "xp.cast(y, 'float32')",
    ),
    "step: weights unmixed": step(
        "test_steps_on_mixed_inputs",
        "batch:Batch.mix",
        "mix_weight(xp, weight, plan)",
        "xp.cast(weight, 'float32')",
    ),
    "step: labels ignore the weights": step("test_steps_on_mixed_inputs", _SHARES, "weight is None", "True"),
    "step: does not move": step(
        "test_steps_on_mixed_inputs",
        "training.state:State.advance",
        "self.step.value + 1",
        "self.step.value + 0",
    ),
    "step: alpha does not move": step(
        "test_alpha_takes_effect_on_the_very_next_step",
        "_backend.state:Cell.assign",
        "weight.assign(value)",
        "None",
        file="test_trainer_fit",
    ),
    "step: one place of several is enough": step(
        "test_a_step_misses_places",
        "layers.training_step:TrainingStep.has_mixed",
        "self._mixed_at >= set(range(self.places))",
        "bool(self._mixed_at)",
        file="test_contract",
    ),
    "step: a mask counts as mixed": step(
        "test_a_mask_alone_does_not_count",
        "training.manifold:Place._mixed",
        "() if is_mask else self.places",
        "self.places",
        file="test_contract",
    ),
    "step: soft labels in metrics that threshold them": step(
        "test_hard_labels_in_a_step_and_only_there",
        "training.hard_label_metrics:HardLabels.update_state",
        "step is not None",
        "False",
        file="test_hard_label_metrics",
        short=True,
    ),
    "a pair of losses with one partner": step(
        "test_a_sparse_loss_trains_as_the_soft_loss",
        "training.paired_loss:PairedLoss.__call__",
        "xp.take(y, plan.permutation)",
        "y",
        file="test_mix_losses",
    ),
    "boxes that show nothing stay": Mutant(
        "test_boxes::test_a_thousand_scenes|test_every_path_shows",
        "targets.bounding_boxes:BoundingBoxes._group",
        "unchanged | remains",
        "True",
    ),
    "points without a label are moved": Mutant(
        "test_keypoints::test_many_scenes|test_every_path_shows|test_a_point_without_a_label",
        "targets.point_geometry:shifted",
        "points[..., 2:] > 0",
        "points[..., 2:] >= 0",
    ),
    "points on the lower edge of a window": Mutant(
        "test_keypoints::test_many_scenes|test_every_path_shows",
        "targets.point_geometry:inside",
        "row >= top",
        "row > top",
    ),
    "points shift to and fro": Mutant(
        "test_keypoints::test_many_scenes|test_every_path_shows",
        "targets.point_geometry:shifted",
        "moves[::-1]",
        "moves",
    ),
    "points that are covered still show": Mutant(
        "test_keypoints::test_many_scenes|test_every_path_shows",
        "targets.keypoints:Keypoints._pasted",
        "xp.where(covered, self.hidden, 0)",
        "2",
    ),
    "points that are parts in the pixel before": Mutant(
        "test_keypoints::test_a_point_written_as_a_part",
        "targets.point_geometry:pixels",
        "_ROUNDING",
        "1",
    ),
    "points in the order of their images": Mutant(
        "test_keypoints::test_points_drop_with_their_box",
        "targets.bounding_boxes:BoundingBoxes._packed",
        "point_geometry.taken(xp, group.keypoints, order)",
        "group.keypoints[:, :xp.size(order, 1)]",
    ),
    "points of a partner without a share": Mutant(
        "test_keypoints::test_a_blend_has|test_what_is_not_mixed",
        "targets.keypoints:Keypoints._follow",
        "parts[i].share <= 0",
        "parts[i].share < 0",
    ),
    "the padding of points stays": Mutant(
        "test_keypoints::test_batches_of_several_widths",
        "targets.keypoints:Keypoints._crop",
        "i * width + rows",
        "i * width + width",
    ),
    "masks blended with the ignored class": Mutant(
        "test_masks::test_a_blend_is_that_of_one_hot_labels",
        "targets.segmentation_masks:SegmentationMasks.encode",
        "self.ignore_class is not None",
        "False",
    ),
    "the quadrants of a mosaic change places": Mutant(
        "test_mosaic::test_every_pixel|test_the_parts",
        "mixing:mix_inputs",
        "plan._sources()",
        "[plan._sources()[i] for i in (0, 2, 1, 3)]",
    ),
    "a share that is 1 only nearly": Mutant(
        "test_mosaic::test_a_sample_that_is_not_mixed_keeps",
        "plan.samplers:_portion",
        "part == whole",
        "part == whole + 1",
    ),
    "lines of a mosaic that end elsewhere": Mutant(
        "test_mosaic::test_every_pixel",
        "mixing.mosaic:mosaic",
        "line(1, 3, -column)",
        "line(1, 3, 1 - column)",
    ),
    "a partner at its own level": Mutant(
        "test_audio_mix::test_every_value",
        "mixing.waves:with_gains",
        "level is not None",
        "False",
        PATHS,
    ),
    "padding that counts as silence": Mutant(
        "test_audio_mix::test_every_value",
        "mixing.waves:levels",
        "xp.math.maximum(count, 1.0)",
        "1.0 * math.prod(waves[0].shape[1:])",
    ),
    "shares of parts that do not sum to 1": Mutant(
        "test_audio_mix::test_shares_are_a_dirichlet_draw",
        "prng:log_dirichlet",
        "levels - 1 - level",
        "level",
    ),
    "objects pasted from another image": Mutant(
        "test_copy_paste::test_scenes_on_every_code_path",
        "layers.copy_paste:CopyPaste.resolve",
        "union(xp, y['masks'], xp.rows(plan.permutation), pasted)",
        "union(xp, y['masks'], xp.argsort(xp.rows(plan.permutation)), pasted)",
        PATHS,
    ),
    "objects that keep what is covered": Mutant(
        "test_copy_paste::test_scenes_are",
        "targets.instance_masks:InstanceMasks._group",
        "mixed & ((visible < area) | tiled)",
        "mixed & tiled",
    ),
    "more objects than there are places": Mutant(
        "test_copy_paste::test_scenes_are",
        "targets.instance_masks:InstanceMasks._pasted",
        "before < places[:, None]",
        "before <= places[:, None]",
    ),
    "a crowd that is pasted": Mutant(
        "test_copy_paste::test_scenes_are",
        "targets.instance_masks:InstanceMasks._pasted",
        "y[self.crowd] == 0",
        "y[self.crowd] >= 0",
    ),
    "one pixel of millions rounded away": Mutant(
        "test_copy_paste::test_one_pixel_of_many_counts",
        "layers.copy_paste:CopyPaste.resolve",
        "xp.math.minimum(share, xp.cast(1.0 - 2.0 ** (-24), 'float32'))",
        "share",
    ),
    "boxes cut off after mixing": Mutant(
        "test_boxes::test_padded_batches_of_several_widths",
        "targets.bounding_boxes:BoundingBoxes._crop",
        "info.partners + 1",
        "1",
    ),
    "repeats that go unnoticed": Mutant(
        "test_inspect::test_a_fault_is_named",
        "diagnostics.faults:_same_plan",
        "~np.isnan(one) & ~np.isnan(other)",
        "~np.isnan(one) & np.isnan(one)",
    ),
    "labels of another share in a segment": Mutant(
        "test_interpolation::test_a_linear_model",
        "diagnostics.interpolation:interpolation",
        "_mixed(shares, pairs, position)",
        "_mixed(shares, pairs, 1 - position)",
    ),
    "plans of another epoch in the logs": Mutant(
        "test_diagnostics_callback::test_the_figures",
        "callbacks.diagnostics:Diagnostics._measure_mixer",
        "end - count + round(step)",
        "round(step)",
    ),
    "differences that are not paired": Mutant(
        "test_compare::test_differences_are_paired_and_have_t_intervals",
        "diagnostics.comparison:Comparison._to_reference",
        "base[metric]",
        "base[metric][::-1]",
    ),
    "a sample is its own partner": Mutant(
        "test_pairing::test_other_partners_form_one_cycle",
        "pairing:RandomPairs.partners",
        "xp.argsort(permutation) + 1",
        "xp.argsort(permutation)",
    ),
    "a wider bandwidth": Mutant(
        "test_pairing::test_the_frequencies_of_partners_are_gaussian",
        "pairing:SimilarLabels.score",
        "-0.5",
        "-0.4",
    ),
    "multi-hot labels are their first class": Mutant(
        "test_pairing_by_class::test_partners_follow_the_rule",
        "pairing:_share_a_class",
        "others[:, None] == 0",
        "others[:, None] < 0",
    ),
    "partners of one label and one domain": Mutant(
        "test_pairing_by_class::test_partners_follow_the_rule",
        "pairing:SameLabels.score",
        "same & ~of_group",
        "same & of_group",
    ),
    "partners from the batch itself": pipeline(
        "test_partners_from_a_second_batch",
        "plan.plan:MixPlan.with_second_batch",
        "self.permutation + xp.size(own, 0)",
        "self.permutation",
        file="test_pairing",
    ),
    "mixed samples before the clean ones": step(
        "test_clean_samples_in_tf_data",
        "plan.plan:PlanKey.join",
        "xp.concat([first, second])",
        "xp.concat([second, first])",
        file="test_pairing",
    ),
    "clean samples that are mixed in the model": step(
        "test_clean_samples_beside_the_mixed_ones",
        "plan.plan:MixPlan.with_clean",
        "doubled(identity, self.lam)",
        "doubled(self.lam, identity)",
        file="test_partners_training",
    ),
    "a sample that is its own partner is mixed": Mutant(
        "test_boxes::test_a_sample_that_is_its_own_partner",
        "plan.plan:MixPlan.without_own_partners",
        "xp.where(own, xp.cast(1.0, 'float32'), self.lam)",
        "self.lam",
    ),
    "labels of three axes need no target": Mutant(
        "test_spatial_targets::test_labels_of_three_axes",
        "targets.labels:Labels.check",
        "len(shape) > 2 and not self.any_shape",
        "False",
    ),
    "a weight created for one label alone": pipeline(
        "test_each_of_several_labels_has_its_own_weights",
        "batch:Batch._one_for_each",
        "[ones if weight is None else weight for weight in weights]",
        "[weights[0] if weight is None else weight for weight in weights]",
        file="test_class_weight",
    ),
}


def path_of(mutant, root=ROOT):
    """The file of the module in which a mutant has its place."""
    module = root.joinpath("kmix", *mutant.place.partition(":")[0].split("."))
    return module / "__init__.py" if module.is_dir() else module.with_suffix(".py")


def functions(tree, names):
    """The functions that a dotted name stands for: a property has one to read and one to set."""
    found = [tree]
    for name in names.split("."):
        scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found = [node for outer in found for node in outer.body if isinstance(node, scopes) and node.name == name]
    return found


def piece(code):
    """A statement, or the expression that it consists of."""
    statement = ast.parse(code).body[0]
    return statement.value if isinstance(statement, ast.Expr) else statement


class Replace(ast.NodeTransformer):
    """Puts one piece of code in the place of another, and counts how often."""

    def __init__(self, old, new):
        self.old, self.new, self.count = ast.dump(piece(old)), piece(new), 0

    def visit(self, node):
        if ast.dump(node) != self.old:
            return self.generic_visit(node)
        self.count += 1
        return copy.deepcopy(self.new)


def mutated(mutant, source):
    """The source of the module with the fault in it.

    Raises:
        LookupError: unless the function is there and holds the piece of code once.
    """
    tree, name = ast.parse(source), mutant.place.partition(":")[2]
    replace = Replace(mutant.old, mutant.new)
    for function in functions(tree, name):
        replace.visit(function)
    if replace.count != 1:
        raise LookupError(
            f"finds {mutant.old!r} {replace.count} times, not once, in "
            f"{path_of(mutant, pathlib.Path())}:{name}. Has it moved?"
        )
    return ast.unparse(ast.fix_missing_locations(tree))


def failures(mutant, backend, sound=False):
    """The failed tests among those of a mutant, on a copy of kmix with the fault, or `sound`, without it."""
    file, _, tests = mutant.tests.partition("::")
    with tempfile.TemporaryDirectory() as folder:
        where = pathlib.Path(folder)
        for name in ("kmix", "tests"):
            shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, where)
        path = path_of(mutant, where)
        if not sound:
            path.write_text(mutated(mutant, path.read_text()))
        chosen = " or ".join(tests.split("|"))
        command = [sys.executable, "-m", "pytest", f"tests/{file}.py", "-q", "-p", "no:cacheprovider", "--everywhere"]
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(where)}
        result = subprocess.run([*command, "-k", chosen], cwd=where, env=environment, capture_output=True, text=True)
    # With an error in the collection, or without tests, nothing was noticed.
    if result.returncode not in (0, 1):
        sys.exit(f"{mutant.tests} could not run:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return [line.split(" - ")[0] for line in result.stdout.splitlines() if line.startswith("FAILED")]


@functools.cache
def fail_anyway(tests, backend):
    """The tests that fail without a fault: they notice nothing."""
    return failures(next(mutant for mutant in MUTANTS.values() if mutant.tests == tests), backend, sound=True)


def verdicts(mutant, failed):
    """For each code path, or for the only one, whether a test of it failed."""
    if not mutant.paths:
        return {"fit" if mutant.place.startswith("training") else "tests": bool(failed)}
    return {path: any(path in line.partition("[")[2] for line in failed) for path in mutant.paths}


def lost():
    """`name: why` for the mutants that no longer find their place."""
    messages = []
    for name, mutant in MUTANTS.items():
        try:
            mutated(mutant, path_of(mutant).read_text())
        except (LookupError, OSError) as error:
            messages.append(f"the mutant {name!r} {error}")
    return messages


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--only", nargs="+", default=list(MUTANTS))
    parser.add_argument("--short", action="store_true", help="some mutants alone, of tests that are known to pass")
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time; each needs a core")
    options = parser.parse_args()
    if lost():
        sys.exit("\n".join(lost()))
    chosen = [name for name in options.only if MUTANTS[name].short or not options.short]
    survived = False

    def judge(case):
        name, backend = case
        mutant = MUTANTS[name]
        known = [] if options.short else fail_anyway(mutant.tests, backend)
        return verdicts(mutant, [test for test in failures(mutant, backend) if test not in known])

    cases = list(itertools.product(chosen, options.backends))
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        for (name, backend), noticed in zip(cases, pool.map(judge, cases), strict=True):
            survived |= not all(noticed.values())
            words = [f"{path}: {'noticed' if found else 'SURVIVED'}" for path, found in noticed.items()]
            print(f"{name:48s} {backend:11s} {'  '.join(words):50s} {MUTANTS[name].tests}", flush=True)
    sys.exit(survived)


if __name__ == "__main__":
    main()
