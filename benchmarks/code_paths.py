"""Every code path on which a batch reaches a layer, on every backend: kmix, its peers, and one pass over the memory.

    python benchmarks/code_paths.py            # only printed
    python benchmarks/code_paths.py --save     # written to RESULTS.md

A process for each backend holds the batches. They are asked in turn, one at a time, each round in a new order, so that
a slow moment of the machine affects all paths alike. The first calls of a path, which may compile, are not counted.

The pass over the memory reads two batches and writes one, with NumPy in two threads. The formulas of torchvision and
timm are written out in PyTorch and run on a batch in memory: torchvision's and timm's batch mode with one lam and one
box for the whole batch, timm's element mode with one for each image. Loaders take arrays from memory and are measured
end to end, with two worker processes, once without mixing and once with it.

Peak memory is that of a process of its own beyond the batch, in batches (Linux only).
"""

import argparse
import gc
import itertools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

ALPHAS = {"MixUp": 0.2, "CutMix": 1.0}
CHANNELS = {"CutMix": {"data_format": "channels_last"}}
# Shape of a batch, number of classes, calls to time.
CASES = {"128 x 224 x 224 x 3": ((128, 224, 224, 3), 1000, 3), "256 x 32 x 32 x 3": ((256, 32, 32, 3), 10, 30)}
# Batches in the data of the loaders, and how many of them to time.
LOADED = {"128 x 224 x 224 x 3": (2, 12), "256 x 32 x 32 x 3": (16, 64)}
PASS, NUMPY = "one pass over the memory", "NumPy"
BACKENDS = ("tensorflow", "jax", "torch")


class Child:
    """The process of a backend: answers how long a path takes."""

    def __init__(self, backend):
        import numpy as np

        self.backend, self.np = backend, np
        self.batches, self.runs = {}, {}

    def batch(self, case):
        if case not in self.batches:
            shape, classes, _ = CASES[case]
            generator = self.np.random.default_rng(0)
            x, y = generator.random(shape, dtype="float32"), generator.integers(classes, size=shape[0])
            self.batches = {case: (x, self.np.eye(classes, dtype="float32")[y])}
        return self.batches[case]

    def paths(self, case, kind):
        """The paths of this backend by name: functions that mix a number of batches."""
        import keras

        import kmix

        def make(**settings):
            return getattr(kmix, kind)(ALPHAS[kind], seed=1, **CHANNELS.get(kind, {}), **settings)

        x, y = self.batch(case)
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))
        layer, plain = make(), make(jit_compile=False)
        eager = {"eager": lambda: layer(*tensors), "eager, `jit_compile=False`": lambda: plain(*tensors)}
        if self.backend == "jax":
            import jax

            mix = jax.jit(lambda step, batch: layer.at_step(step, batch))
            found = {**eager, "jax.jit": lambda: mix(3, tensors)}
            return {name: repeat(lambda run=run: jax.block_until_ready(run())) for name, run in found.items()}
        if self.backend == "tensorflow":
            return self._tensorflow_roads(make(), eager, tensors)
        from formulas import formulas

        found = {**eager, **formulas(kind, ALPHAS[kind], x, y)}
        single = make()

        def one_thread():
            kmix.mixing.set_num_threads(1)
            single(x, y)
            kmix.mixing.set_num_threads(None)

        threaded = make()
        found |= {NUMPY: lambda: threaded(x, y), f"{NUMPY}, one thread": one_thread, PASS: self._pass(x)}
        return {name: repeat(run) for name, run in found.items()}

    def _tensorflow_roads(self, layer, eager, tensors):
        import tensorflow as tf

        def finish(mixed):
            return mixed[0][0, 0].numpy()

        mix = tf.function(lambda x, y: layer(x, y))
        found = {**eager, "tf.function": lambda: mix(*tensors)}
        options = tf.data.Options()
        options.autotune.enabled = options.experimental_optimization.inject_prefetch = False
        batches = iter(tf.data.Dataset.from_tensors(tensors).repeat().with_options(options).map(layer, 2))

        def pipeline(count):
            for _ in range(count):
                next(batches)

        return {**{name: repeat(lambda run=run: finish(run())) for name, run in found.items()}, "tf.data": pipeline}

    def _pass(self, x):
        from concurrent.futures import ThreadPoolExecutor

        np, other, pool = self.np, x[::-1].copy(), ThreadPoolExecutor(2)
        parts = [slice(start, start + len(x) // 8) for start in range(0, len(x), len(x) // 8)]

        def run():
            out = np.empty_like(x)
            list(pool.map(lambda part: np.add(x[part], other[part], out=out[part]), parts))

        return run

    def loaders(self, case, kind):
        """PyTorch's and Grain's loaders, without and with mixing."""
        import grain
        import torch
        from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

        import kmix

        layer = getattr(kmix, kind)(ALPHAS[kind], seed=1, **CHANNELS.get(kind, {}))
        x, y = self.batch(case)
        times, count = LOADED[case]
        examples = Examples(x, y, times)
        settings = {"num_workers": 2, "batch_size": None, "persistent_workers": True}

        def torch_loader(function):
            sampler = kmix.data.Numbering()(BatchSampler(SequentialSampler(examples), len(x), drop_last=True))
            return DataLoader(kmix.data.MixedBatches(examples, function), sampler=sampler, **settings)

        mixed = {
            "PyTorch DataLoader": torch_loader(unmixed),
            "PyTorch DataLoader, kmix": torch_loader(layer.at_step),
        }
        from absl import flags

        flags.FLAGS.mark_as_parsed()
        workers = grain.multiprocessing.MultiprocessingOptions(num_workers=2)
        source = grain.MapDataset.source(examples).repeat(1000).batch(len(x))
        # By default Grain holds 500 elements ready, which here are batches.
        read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        mixed["Grain"] = source.to_iter_dataset(read).mp_prefetch(workers)
        mixed["Grain, kmix"] = source.map_with_index(layer.at_step).to_iter_dataset(read).mp_prefetch(workers)
        torch.set_num_threads(2)
        return {f"{name}, 2 workers": loaded(loader, count) for name, loader in mixed.items()}

    def answer(self, case, kind, loaders, path):
        """Milliseconds per batch of a path; the names of all paths if `path` is None."""
        if (case, kind, loaders) not in self.runs:
            self.runs = {}
            self.runs = {(case, kind, loaders): (self.loaders if loaders else self.paths)(case, kind)}
        runs = self.runs[case, kind, loaders]
        if path is None:
            return list(runs)
        if loaders:
            return runs[path]()
        count = CASES[case][2]
        start = time.perf_counter()
        runs[path](count)
        return 1e3 * (time.perf_counter() - start) / count

    def starts(self, rounds):
        """Milliseconds to the first batch in tf.data: of a new layer, of another data set, of another epoch."""
        import tensorflow as tf

        import kmix

        rows = []
        for case, kind in itertools.product(CASES, ALPHAS):
            source = tf.data.Dataset.from_tensors(self.batch(case)).repeat(4)
            times = [[], [], [], []]
            for _ in range(rounds):
                layer = getattr(kmix, kind)(ALPHAS[kind], **CHANNELS.get(kind, {}))
                first, dataset = first_batch(source.map, layer, 2)
                another, _ = first_batch(source.map, layer, 2)
                again, _ = first_batch(dataset)
                plain, _ = first_batch(source.map, lambda x, y: (x + 1, y), 2)
                for found, value in zip(times, (first, another, again, plain), strict=True):
                    found.append(value)
            rows.append([f"{kind} {case}", *(f"{statistics.median(values):.0f}" for values in times)])
        return rows

    def peak(self, case, kind, path):
        """The most memory that a path takes beyond the batch, in batches."""
        run = self.paths(case, kind)[path]
        gc.collect()
        before = memory("VmRSS")
        # The first calls may compile.
        run(3)
        gc.collect()
        memory("VmRSS", reset=True)
        run(3)
        after = memory("VmHWM")
        return None if after is None else (after - before) / self.batch(case)[0].nbytes


class Examples:
    """The examples of a batch, several times over, as a data set."""

    def __init__(self, x, y, times):
        self.x, self.y, self.times = x, y, times

    def __len__(self):
        return len(self.x) * self.times

    def __getitem__(self, i):
        return self.x[i % len(self.x)], self.y[i % len(self.x)]


def first_batch(dataset, *arguments):
    """Milliseconds to the first batch of a data set, or of the one that a function makes, and the data set."""
    start = time.perf_counter()
    dataset = dataset(*arguments) if arguments else dataset
    next(iter(dataset))
    return 1e3 * (time.perf_counter() - start), dataset


def unmixed(step, batch):
    """A batch as it is, for a loader that does not mix."""
    return tuple(batch)


def repeat(function):
    """A function that calls another a number of times."""

    def run(count):
        for _ in range(count):
            function()

    return run


def loaded(loader, count):
    """A function that gives the milliseconds per batch of a loader."""

    def endless():
        while True:
            yield from loader

    batches = endless()

    def run():
        # What waits in the queues is not counted, nor is what the workers do for the next time.
        for _ in range(8):
            next(batches)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        elapsed = time.perf_counter() - start
        time.sleep(1)
        return 1e3 * elapsed / count

    return run


def memory(field, reset=False):
    """A field of the status of this process in bytes, on Linux. `reset` lets the peak begin anew."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def serve(backend):
    """Answer the questions of the parent, a line of JSON each."""
    child, out = Child(backend), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(child.answer(*json.loads(line))), file=out, flush=True)


def ask(process, *question):
    """The answer of a process."""
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit("a process ended early")
    return json.loads(line)


def measure(rounds):
    """Milliseconds of every round, by (case, kind, backend, path)."""
    processes = {}
    for backend in BACKENDS:
        command, environment = child("--serve", backend)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes[backend] = subprocess.Popen(command, env=environment, **pipes)
    times = {}
    for case, kind, loaders in itertools.product(CASES, ALPHAS, (False, True)):
        group = BACKENDS[-1:] if loaders else BACKENDS
        named = {backend: ask(processes[backend], case, kind, loaders, None) for backend in group}
        paths = [(backend, path) for backend in group for path in named[backend]]
        for turn in range(rounds + 2):
            for backend, path in random.sample(paths, len(paths)):
                value = ask(processes[backend], case, kind, loaders, path)
                if turn > 1:
                    times.setdefault((case, kind, backend, path), []).append(value)
        for backend, path in paths:
            print(case, kind, backend, path, round(statistics.median(times[case, kind, backend, path]), 2), flush=True)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return times


def child(*arguments):
    """The command of a process of a backend, which the second argument names, and its environment."""
    environment = {**os.environ, "KERAS_BACKEND": arguments[1], "TF_CPP_MIN_LOG_LEVEL": "3"}
    return [sys.executable, __file__, *arguments], environment


def measure_starts(rounds):
    """The table of the times to the first batch, from a process of TensorFlow."""
    import results

    command, environment = child("--starts", "tensorflow", str(rounds))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    header = ["batch", "a new layer", "another data set", "another epoch", "a plain `map`, new"]
    return results.table(header, json.loads(done.stdout.splitlines()[-1]))


def measure_peaks(times):
    """The peak memory of the paths of the larger batch, each in a process of its own."""
    peaks, largest = {}, next(iter(CASES))
    for key in times:
        if key[0] == largest and "workers" not in key[3]:
            case, kind, backend, path = key
            command, environment = child("--peak", backend, case, kind, path)
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            peaks[key] = json.loads(done.stdout.splitlines()[-1])
            print(*key, f"peak {peaks[key]}", flush=True)
    return peaks


def tables(times, peaks):
    """A table for each size of a batch."""
    import results

    text = []
    for case in CASES:
        rows = []
        for backend, path in dict.fromkeys(key[2:] for key in times if key[0] == case):
            row = ["" if path in (PASS,) or path.startswith(NUMPY) else backend, path]
            for kind in ALPHAS:
                key, limit = (case, kind, backend, path), statistics.median(times[case, kind, "torch", PASS])
                values = times[key]
                median = statistics.median(values)
                spread = f"{median:.2f} ({min(values):.2f} to {max(values):.2f})"
                memory = "" if peaks.get(key) is None else f"{max(peaks[key], 0):.1f}"
                row += [spread, f"{median / limit:.1f}", memory]
            rows.append(row)
        header = ["backend", "code path"]
        for kind in ALPHAS:
            header += [f"{kind}, ms", "passes", "peak, batches"]
        text.append(f"{case}, float32:\n\n{results.table(header, rows)}")
    return "\n\n".join(text)


def main():
    """Measure, print, and write the section of RESULTS.md if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write the section of RESULTS.md")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--starts", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.peak:
        backend, *arguments = options.peak
        print(json.dumps(Child(backend).peak(*arguments)))
        return
    if options.starts:
        backend, rounds = options.starts
        print(json.dumps(Child(backend).starts(int(rounds))))
        return
    import results

    times = measure(options.rounds)
    machine = results.machine("keras", "tensorflow", "jax", "torch", "grain", "numpy")
    text = f"""## On every code path: `make code-paths`

{machine}.

Milliseconds per batch, medians of {options.rounds} interleaved rounds (minimum to maximum); as multiples of one pass
over the memory; and the peak memory beyond the batch, in batches.

{tables(times, measure_peaks(times))}

Milliseconds to the first batch in tf.data, from the call of `map` on: with a new layer, with the same layer on another
data set of equal structure, and in another epoch of the first; and of a map of one addition:

{measure_starts(options.rounds)}
"""
    print(f"\n{text}")
    if options.save:
        results.write_section("paths", text)


if __name__ == "__main__":
    main()
