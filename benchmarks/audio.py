"""What AudioMix costs in a tf.data pipeline, next to one pass over the memory and to MixUp.

    python benchmarks/audio.py            # only printed
    python benchmarks/audio.py --save     # written to RESULTS.md

Batches of 128 waves of ten seconds at 16 kHz, float32, in memory, with class ids. The rounds are interleaved, as in
`speed.py`, whose memory limit is the first row: it reads two batches and writes one.
"""

import argparse
import os
import random
import statistics

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import results
from speed import KMIX, LIMIT, memory_pass, run_pipeline, source

import kmix

SHAPE, CLASSES = (128, 160_000), 50
LAYERS = {
    "MixUp": kmix.MixUp(1.0, num_classes=CLASSES),
    "AudioMix": kmix.AudioMix(num_classes=CLASSES),
    "AudioMix, equal levels": kmix.AudioMix(equal_levels=True, num_classes=CLASSES),
    "AudioMix, signal-to-noise ratios": kmix.AudioMix(snr=(0, 20), num_classes=CLASSES),
    "AudioMix, three sources": kmix.AudioMix(num_sources=3, num_classes=CLASSES),
}
# What a row may cost, as a multiple of the memory limit.
BOUNDS = {"AudioMix": 1.5}


def main():
    """Measure and print, or write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    batch = generator.normal(size=SHAPE).astype("float32"), generator.integers(CLASSES, size=SHAPE[0])
    data = {LIMIT: source(batch, LIMIT).map(memory_pass("MixUp", batch[0]), 2)}
    data |= {name: source(batch, KMIX).map(layer, 2) for name, layer in LAYERS.items()}
    times = {name: [] for name in data}
    for _ in range(options.rounds + 1):
        for name in random.sample(list(data), len(data)):
            times[name].append(run_pipeline(data[name], 10))
    rows = []
    for name, values in times.items():
        values = values[1:]
        ratio = statistics.median(values) / statistics.median(times[LIMIT][1:])
        bound = f" (at most {BOUNDS[name]})" if name in BOUNDS else ""
        spread = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        rows.append([name, spread, "" if name == LIMIT else f"{ratio:.2f}{bound}"])
    text = f"""## AudioMix in tf.data: `make audio`

{results.machine("keras", "tensorflow", "numpy")}.

Milliseconds per batch of {" x ".join(map(str, SHAPE))} float32 waves, two parallel calls: medians of {options.rounds}
interleaved rounds (minimum to maximum).

{results.table(["batch", "milliseconds", "as a multiple of the memory limit"], rows)}
"""
    print(text)
    if options.save:
        results.write_section("audio", text)


if __name__ == "__main__":
    main()
