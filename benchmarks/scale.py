"""One plan on any number of devices and processes, and the same training: what groups of rows are for.

    python benchmarks/scale.py            # only printed
    python benchmarks/scale.py --save     # written to RESULTS.md and scale.json

Every way to mix or train a global batch of 128 rows within groups of 16 runs in processes of its own, see
`scale_cells.py`. What they mixed must be one plan, and the weights after 8 steps the same within rounding.
A second table has the bytes that devices send each other, as the compiled step of JAX says.
"""

import argparse
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np
import results

HERE = pathlib.Path(__file__).parent
# How far weights may be from those of JAX on one device.
BOUND = 1e-5


class Cell(NamedTuple):
    """A way to mix: what `scale_cells.py` calls, in so many processes with so many devices each."""

    way: str
    parts: str
    call: dict
    backend: str
    processes: int = 1
    devices: int = 1
    torchrun: bool = False


def cells():
    """The cells of the table. The first that trains on JAX is what the weights of others are compared with."""
    for n in (1, 2, 4):
        yield Cell("NumPy, `first_row=`", number(n, "part"), {"call": "in_numpy", "parts": n}, "numpy")
    for n in (1, 2, 4):
        yield Cell("tf.data, `first_row=`", number(n, "part"), {"call": "in_tf_data", "parts": n}, "tensorflow")
    for n in (1, 2, 4, 8):
        for processes in (1, 2, 4):
            if processes <= n:
                parts = f"{number(n, 'device')} in {number(processes, 'process')}"
                call = {"call": "on_jax", "processes": processes}
                yield Cell("JAX, `DataParallel`", parts, call, "jax", processes, n // processes)
    for processes in (1, 2):
        parts, call = number(processes, "process"), {"call": "on_jax", "processes": processes, "model_parallel": True}
        yield Cell("JAX, `ModelParallel` 2 x 2", f"4 devices in {parts}", call, "jax", processes, 4 // processes)
    for n in (1, 2, 4):
        yield Cell("`MirroredStrategy`", number(n, "replica"), {"call": "on_mirrored", "replicas": n}, "tensorflow")
    for n in (1, 2, 4):
        yield Cell("PyTorch, `torchrun`", number(n, "process"), {"call": "on_torch"}, "torch", n, torchrun=True)


def number(n, noun):
    """A number of things in words."""
    return f"{n} {noun}{'es' if noun.endswith('s') and n > 1 else 's' if n > 1 else ''}"


def run(cell, out):
    """Run the processes of a cell until they end. Each writes a file that begins with `out`."""
    command = [str(HERE / "scale_cells.py"), json.dumps(cell.call), str(out)]
    interpreter = [sys.executable]
    if cell.torchrun:
        interpreter += ["-m", "torch.distributed.run", f"--nproc-per-node={cell.processes}", f"--master-port={port()}"]
    environment = {
        **os.environ,
        "ADDRESS": f"127.0.0.1:{port()}",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": cell.backend,
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={cell.devices}",
    }
    started = [
        subprocess.Popen(
            [*interpreter, *command],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(1 if cell.torchrun else cell.processes)
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=300)
            if process.returncode:
                raise RuntimeError(f"{cell.way}, {cell.parts}:\n{output[-4000:]}")
    finally:
        for process in started:
            process.kill()


def port():
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def plans_of(labels):
    """The lam and the partner of each row of each step, from mixed labels `(steps, B, B)`."""
    size = labels.shape[1]
    own = np.eye(size, dtype=bool)
    others = np.where(own, 0, labels)
    # A row of which nothing is mixed shows no partner.
    return labels[:, own], np.where(others.max(-1) > 0, others.argmax(-1), np.arange(size))


def hash_of(lam, partner):
    """The hash of plans, with lam in thousandths: frameworks differ in the last place of an exponential."""
    rounded = np.rint(lam.astype("float64") * 1000).astype("int32")
    return hashlib.sha256(rounded.tobytes() + partner.astype("int32").tobytes()).hexdigest()[:12]


def read(out, cell):
    """The labels of all rows and the weights, from the files that the processes of a cell wrote."""
    files = [np.load(f"{out}_{rank}.npz") for rank in range(cell.processes)]
    labels, rows = [file["labels"] for file in files], files[0]["labels"].shape[2]
    weights = [[file[name] for name in file if name != "labels"] for file in files]
    for other in weights[1:]:
        if not all(map(np.array_equal, weights[0], other)):
            raise RuntimeError(f"{cell.way}, {cell.parts}: the processes end with different weights.")
    # Under `keras.distribution` each process sees the labels of all.
    return labels[0] if labels[0].shape[1] == rows else np.concatenate(labels, axis=1), weights[0]


def measure():
    """The rows of the first table, as dictionaries."""
    found, first_lam, first_weights = [], None, None
    with tempfile.TemporaryDirectory() as folder:
        for index, cell in enumerate(cells()):
            out = pathlib.Path(folder) / str(index)
            run(cell, out)
            labels, weights = read(out, cell)
            lam, partner = plans_of(labels)
            first_lam, first_weights = lam if index == 0 else first_lam, first_weights or weights
            row = {
                "way": cell.way,
                "parts": cell.parts,
                "plans": hash_of(lam, partner),
                "lam": difference([lam], [first_lam]),
                "weights": difference(weights, first_weights),
            }
            print(*row.values(), flush=True)
            found.append(row)
    return found


def difference(arrays, others):
    """The largest difference of arrays, None for no arrays."""
    if not arrays:
        return None
    return max(float(abs(one - other).max()) for one, other in zip(arrays, others, strict=True))


def messages():
    """What a training step on four devices of JAX moves, in bytes: by mode and kind of message."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "messages"
        run(Cell("JAX", "messages", {"call": "messages"}, "jax", devices=4), out)
        return json.loads(out.with_suffix(".json").read_text())


def plans_as_text(plans):
    """The first section of RESULTS.md."""
    rows = [
        [row["way"], row["parts"], f"`{row['plans']}`", *(shown(row[name]) for name in ("lam", "weights"))]
        for row in plans
    ]
    return f"""## One plan on many devices: `make scale`

{results.machine("keras", "tensorflow", "jax", "torch", "numpy")}.

A choice of MixUp and CutMix mixes 8 global batches of 128 rows within groups of 16. The hash is that of the partner and
of lam, in thousandths, of every row of every step, read from the labels that came out. Beside it is the largest
difference of lam from that of NumPy, whose exponentials differ from those of others in the last place; and of the
weights of a small network after these 8 steps of Adam from those of JAX on one device.

{results.table(["way", "parts", "hash of the plans", "lam", "weights"], rows)}
"""


def bytes_as_text(moved):
    """The second section of RESULTS.md."""
    kinds = sorted({kind for by_kind in moved.values() for kind in by_kind})
    rows = [
        [mode, *(f"{by_kind.get(kind, 0) / 1e3:,.1f}" for kind in kinds), f"{sum(by_kind.values()) / 1e3:,.1f}"]
        for mode, by_kind in moved.items()
    ]
    return f"""## What devices send each other: `make scale`

The results of all messages in a compiled training step of JAX, in kB for each of four devices: 128 images of
32 x 32 x 3 float32 (1,572.9 kB in all), and a network of 102,560 weights (410.2 kB). Without mixing, the devices
exchange gradients and metrics.

{results.table(["mode", *kinds, "together"], rows)}
"""


def shown(value):
    """A difference as text."""
    return "" if value is None else f"{value:.1e}" if value else "0"


def main():
    """Measure and print, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    plans, moved = measure(), messages()
    sections = {"scale": plans_as_text(plans), "scale_bytes": bytes_as_text(moved)}
    print(*sections.values(), sep="\n")
    if options.save:
        for name, text in sections.items():
            results.write_section(name, text)
        (HERE / "scale.json").write_text(json.dumps({"plans": plans, "bytes": moved}, indent=1) + "\n")
    same = len({row["plans"] for row in plans}) == 1
    close = all(row["weights"] <= BOUND for row in plans if row["weights"] is not None)
    print(f"One plan: {same}. Weights within {BOUND:.0e}: {close}.")
    return 0 if same and close else 1


if __name__ == "__main__":
    raise SystemExit(main())
