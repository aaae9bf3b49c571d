"""Break kmix on purpose and see that a test notices, on each road and each backend.

    python tests/mutants.py
    python tests/mutants.py --backends jax --only "weights unmixed"

Each mutant is a copy of kmix with one line changed. It must make its test in test_roads.py fail on every road; where
one does not, the mutant is printed as SURVIVED and the exit code is 1.
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
        "a, b, y, xp.take(y, permutation))",
        "a, b, y, y)",
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
        "(position >= xp.along(box[:, i], x)) & (position < xp.along(box[:, i + len(axes)], x))",
        "(position >= xp.along(box[:, len(axes) - 1 - i], x)) & (position < xp.along(box[:, -1 - i], x))",
    ),
    "alpha frozen after tracing": (
        "test_alpha_takes_effect_on_the_next_batch",
        "_backend.py",
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
        "mixing.mix_labels(label, plan, weights=weight)",
        "mixing.mix_labels(label, plan)",
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
    "label_smoothing ignored": ("test_loss_settings_matter", "losses.py", "if self.label_smoothing:", "if False:"),
    "multi_label ignored": ("test_loss_settings_matter", "losses.py", "if self.multi_label:", "if False:"),
}


def failing_roads(mutant, backend):
    """The roads on which the test of a mutant fails, on a copy of kmix with the mutation."""
    test, file, old, new = MUTANTS[mutant]
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
        command = [sys.executable, "-m", "pytest", "tests/test_roads.py", "-q", "-p", "no:cacheprovider", "-k", test]
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(copy)}
        result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    return [road for road in ROADS if any(road in line.split(" - ")[0] for line in failed)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--only", nargs="+", default=list(MUTANTS))
    options = parser.parse_args()
    survived = False
    for mutant in options.only:
        for backend in options.backends:
            failed = failing_roads(mutant, backend)
            survived |= len(failed) < len(ROADS)
            verdicts = [f"{road}: {'noticed' if road in failed else 'SURVIVED'}" for road in ROADS]
            print(f"{mutant:36s} {backend:11s} {'  '.join(verdicts)}  ({MUTANTS[mutant][0]})", flush=True)
    sys.exit(survived)


if __name__ == "__main__":
    main()
