"""Break kmix on purpose and see that a test notices, on each road and each backend.

    python tests/mutants.py
    python tests/mutants.py --backends jax --only "weights unmixed"

Each mutant is a copy of kmix with one line changed. It must make its test in test_roads.py fail on every road, or, for
those of the training step, its test in test_trainer*.py; where it does not, the mutant is printed as SURVIVED and the
exit code is 1.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
ROADS = ("numpy", "native", "tfdata")

# name: (the test that must fail, file, what is written there, what the mutant writes instead)
MUTANTS = {
    "lam and 1-lam swapped in the labels": (
        "test_mixup_is_the_formula",
        "mixing.py",
        "    a, b = lam, 1.0 - lam\n",
        "    b, a = lam, 1.0 - lam\n",
    ),
    "labels not permuted": (
        "test_mixup_is_the_formula",
        "mixing.py",
        "a, b, y, permutation)",
        "a, b, y, xp.arange(xp.size(y, 0)))",
    ),
    "label weight off by one pixel": (
        "test_mean_of_painted_images_is_the_mixed_label",
        "plan.py",
        'xp.cast(stops[-1] - starts[-1], "float32")',
        'xp.cast(stops[-1] - starts[-1] + 1, "float32")',
    ),
    "box axes swapped in the plan": (
        "test_mean_of_painted_images_is_the_mixed_label",
        "plan.py",
        "xp.stack(starts + stops, axis=1)",
        "xp.stack(starts[::-1] + stops[::-1], axis=1)",
    ),
    "box axes swapped in the paste": (
        "test_cutmix_is_the_formula",
        "mixing.py",
        "axes = spatial_axes(len(x.shape), data_format)",
        "axes = spatial_axes(len(x.shape), data_format)[::-1]",
    ),
    "alpha frozen after tracing": (
        "test_alpha_takes_effect_on_the_next_batch",
        "_backend/state.py",
        "        with self._lock:\n            self._value = value\n",
        "        return\n        with self._lock:\n            self._value = value\n",
    ),
    "at_step ignores the step": (
        "test_every_step_has_its_own_plan",
        "layers/base.py",
        "        return self._mixed(Draw(step), batch, self.fuse)\n",
        "        return self._mixed(Draw(0), batch, self.fuse)\n",
    ),
    "at_step takes the step modulo 256": (
        "test_every_step_has_its_own_plan",
        "layers/base.py",
        "        return self._mixed(Draw(step), batch, self.fuse)\n",
        "        return self._mixed(Draw(step % 256), batch, self.fuse)\n",
    ),
    "weights unmixed": (
        "test_weighted_pair_of_losses",
        "layers/base.py",
        "map_arrays(lambda weight: mixing.mix_weights(weight, plan), sample_weight)",
        "sample_weight",
    ),
    "labels ignore the weights": (
        "test_weighted_pair_of_losses",
        "layers/base.py",
        "mixing.mix_encoded(label, plan, weight)",
        "mixing.mix_encoded(label, plan)",
    ),
    "pairs not permuted": (
        "test_pairs_are_the_dense_labels",
        "mixing.py",
        "xp.where(lam == 1.0, y, xp.take(y, permutation))",
        "y",
    ),
    "pairs with the weight of the partner": (
        "test_pairs_are_the_dense_labels",
        "mixing.py",
        "xp.where(lam == 1.0, 1.0, a)",
        "xp.where(lam == 1.0, 1.0, b)",
    ),
    "pairs ignore the sample weights": (
        "test_pairs_are_the_dense_labels",
        "mixing.py",
        "xp.where(lam == 1.0, 1.0, a)",
        "lam",
    ),
    "kept pairs have no weight of their own": (
        "test_pairs_that_are_off_are_the_class_alone",
        "mixing.py",
        "xp.where(lam == 1.0, 1.0, a)",
        "a",
    ),
    "shares of a pair swapped in the loss": (
        "test_pairs_are_the_dense_labels",
        "losses.py",
        "ops.concatenate([first, 1.0 - first], axis=-1)",
        "ops.concatenate([1.0 - first, first], axis=-1)",
    ),
    "RandomChoice always takes the first": (
        "test_random_choice_takes_every_branch",
        "plan.py",
        "    return index\n",
        "    return index * 0\n",
    ),
    "rate ignored": ("test_rate_is_the_share_of_mixed_samples", "plan.py", "u[_RATE] < rate", "u[_RATE] < 1.0"),
    "per ignored": ("test_per_batch_shares_one_lam", "plan.py", 'if per == "batch":', "if False:"),
    "seed ignored": ("test_seed_decides", "plan.py", "    seed = _checks.seed(seed)\n", "    seed = 5\n"),
    "label_smoothing ignored": (
        "test_loss_settings_matter",
        "losses.py",
        '_checks.real(label_smoothing, "label_smoothing", 0.0, 1.0)',
        "0.0",
    ),
    "multi_label ignored": ("test_loss_settings_matter", "losses.py", "if self.multi_label:", "if False:"),
}


# The same for the training step, where `fit` is the only road.
STEP_MUTANTS = {
    "step: inputs unmixed": (
        "test_steps_on_mixed_inputs",
        "layers/base.py",
        "return tree.map_structure(lambda leaf: self._mix_input(leaf, plan), x), *mix_targets(",
        "return x, *mix_targets(",
    ),
    "step: layers in the model mix nothing": (
        "test_steps_on_mixed_embeddings",
        "layers/base.py",
        "        return map_arrays(lambda leaf: self._mix_input(leaf, plan), x)\n",
        "        return x\n",
    ),
    "step: masks not united": (
        "test_steps_on_mixed_embeddings",
        "mixing.py",
        "    return mask | (xp.take",
        "    return mask | False & (xp.take",
    ),
    "step: `at` ignored": (
        "test_steps_of_manifold_mixup",
        "trainer.py",
        "self._with_places if training and self._with_places else self.model",
        "self.model",
    ),
    "step: the first place always": (
        "test_steps_of_manifold_mixup",
        "trainer.py",
        "plan._replace(place=",
        "plan._replace(place=0 *",
    ),
    "step: the gradient goes to the partner": (
        "test_steps_of_manifold_mixup",
        "mixing.py",
        "inverse = xp.argsort(permutation)",
        "inverse = permutation",
    ),
    "step: labels unmixed": (
        "test_steps",
        "layers/base.py",
        "labels = [mixing.mix_encoded(label, plan, weight) for",
        "labels = [label for",
    ),
    "step: weights unmixed": (
        "test_steps",
        "layers/base.py",
        "map_arrays(lambda weight: mixing.mix_weights(weight, plan), sample_weight)",
        "sample_weight",
    ),
    "step: labels ignore the weights": (
        "test_steps",
        "layers/base.py",
        "mixing.mix_encoded(label, plan, weight)",
        "mixing.mix_encoded(label, plan)",
    ),
    "step: does not move": ("test_steps", "trainer.py", "self.step.assign_add(1)", "self.step.assign_add(0)"),
    "step: alpha does not move": (
        "test_alpha_takes_effect_on_the_very_next_step",
        "_backend/state.py",
        "                weight.assign(value)\n",
        "                pass\n",
    ),
}


def failures(mutant, backend):
    """The failed tests among those of a mutant, on a copy of kmix with the mutation."""
    test, file, old, new = (MUTANTS | STEP_MUTANTS)[mutant]
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ("kmix", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("conftest.py", "setup.cfg"):
            shutil.copy(ROOT / name, copy)
        path = copy / "kmix" / file
        text = path.read_text()
        if old not in text:
            sys.exit(f"{mutant}: the line to change is no longer in {file}")
        path.write_text(text.replace(old, new, 1))
        files = ["tests/test_roads.py"] if mutant in MUTANTS else ["tests/test_trainer.py", "tests/test_trainer_fit.py"]
        command = [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", "-k", test]
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(copy)}
        result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    return [line.split(" - ")[0] for line in result.stdout.splitlines() if line.startswith("FAILED")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--only", nargs="+", default=[*MUTANTS, *STEP_MUTANTS])
    options = parser.parse_args()
    survived = False
    for mutant in options.only:
        # A test of the training step names no road: any failure counts.
        roads = {road: road for road in ROADS} if mutant in MUTANTS else {"fit": "test_"}
        for backend in options.backends:
            failed = failures(mutant, backend)
            noticed = {road: any(mark in line for line in failed) for road, mark in roads.items()}
            survived |= not all(noticed.values())
            verdicts = [f"{road}: {'noticed' if seen else 'SURVIVED'}" for road, seen in noticed.items()]
            test = (MUTANTS | STEP_MUTANTS)[mutant][0]
            print(f"{mutant:38s} {backend:11s} {'  '.join(verdicts)}  ({test})", flush=True)
    sys.exit(survived)


if __name__ == "__main__":
    main()
