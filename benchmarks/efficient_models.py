r"""Models made to be fast, side by side with what they are held against, in inference on the CPU.

  make benchmark-efficient-models

* LeViT with its batch norms folded, as it is exported, and EfficientNets of `keras.applications` of
  about the same published accuracy, each at its own image size.
* DynamicViT at rho = 0.7, which drops 66 % of its patches on the way, and the same weights without
  dropping.

Weights are fresh: speed does not depend on them. A round calls each model of a pair in turn on
`--batch_sizes` images, `--calls` times; a ratio is of images a second within a round, and the
median of the rounds is reported: `levit_256_vs_efficientnet_b3_batch16`. More than 1 is faster than
the other.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from results_file import describe_machine, describe_versions, write_result

import vit_tf

# Ours with its published top-1 accuracy, and the EfficientNet with its accuracy (keras.io, "Keras
# Applications") and image size.
EFFICIENT = (
    ("levit_128s", 76.6, "B0", 77.1, 224),
    ("levit_128", 78.6, "B1", 79.1, 240),
    ("levit_192", 80.0, "B2", 80.1, 260),
    ("levit_256", 81.6, "B3", 81.6, 300),
    ("levit_384", 82.6, "B4", 82.9, 380),
)
PRUNED = ("dynamic_vit_256", "dynamic_vit_s16", "dynamic_vit_b16")
Call = Callable[[tf.Tensor], tf.Tensor]


def pairs() -> dict[str, Callable[[], tuple[tuple[Call, int], tuple[Call, int]]]]:
    """By a ratio's name: makes what is compared, each a function and the side of its images."""
    found = {}
    for name, _, letter, _, side in EFFICIENT:

        def levit(name=name, letter=letter, side=side):
            peer = getattr(keras.applications, f"EfficientNet{letter}")(weights=None)
            return (compiled(vit_tf.fold_batch_norms(vit_tf.create_model(name))), 224), (
                compiled(peer),
                side,
            )

        found[f"{name}_vs_efficientnet_{letter.lower()}"] = levit
    for name in PRUNED:

        def dynamic(name=name):
            model = vit_tf.create_model(name)

            def full(images):
                with model.keeping_all():
                    return model(images, training=False)

            return (compiled(model), 224), (tf.function(full), 224)

        found[f"{name}_vs_unpruned"] = dynamic
    return found


def compiled(model: keras.Model) -> Call:
    """A model's inference as a graph."""
    return tf.function(lambda images: model(images, training=False))


def rate(call: Call, images: tf.Tensor, calls: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    for _ in range(calls):
        call(images).numpy()
    return calls * len(images) / (time.perf_counter() - start)


def main() -> None:
    """Measures all pairs and writes `results/efficient_models.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", default=list(pairs()), choices=list(pairs()))
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3, help="of each model a round")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n", flush=True)
    print(f"{'pair':44} {'batch':>5} {'images/s':>9} {'other':>9} {'ratio':>6}")
    ratios, runs = {}, {}
    for name in arguments.pairs:
        (ours, our_side), (theirs, their_side) = pairs()[name]()
        for batch in arguments.batch_sizes:
            rng = np.random.default_rng(0)
            our_images, their_images = (
                tf.constant(rng.normal(size=(batch, side, side, 3)), tf.float32)
                for side in (our_side, their_side)
            )
            rate(ours, our_images, 2), rate(theirs, their_images, 2)  # traces and warms up
            # A short call needs more of them to be measured.
            calls = arguments.calls * max(1, 16 // batch)
            rounds = [
                (rate(ours, our_images, calls), rate(theirs, their_images, calls))
                for _ in range(arguments.rounds)
            ]
            title = f"{name}_batch{batch}"
            ratios[title] = round(statistics.median(a / b for a, b in rounds), 2)
            runs[title] = [[round(a, 2), round(b, 2)] for a, b in rounds]
            mine, other = (statistics.median(side) for side in zip(*rounds, strict=True))
            print(f"{name:44} {batch:5} {mine:9.2f} {other:9.2f} {ratios[title]:6.2f}", flush=True)
        keras.backend.clear_session()
    print(f"\nresult    {write_result('efficient_models', ratios, runs)}")


if __name__ == "__main__":
    main()
