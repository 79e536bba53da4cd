"""A part of `transfer.py`: feature extraction with its input pipeline, against the bare model."""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation.extractor import Extractor
from vit_tf.models import create_model, extract_features


def extraction(data_dir: str) -> Callable[[int], dict[str, float]]:
    """What measures a round of `extraction_vs_inference`.

    Both sides compute features of 128 images in batches of 32, traced before. One reads, decodes
    and resizes them as it goes, the other has one batch in memory.

    Args:
      data_dir: shards of JPEG photographs, such as those of `benchmarks/input.py`.
    """
    model = create_model("vit_s16", num_classes=0, image_size=224)
    source = TFDSSource(data_dir, "train[:128]")
    data = Input(source, model.preprocessing.ops, batch_size=32, training=False)
    extractor = Extractor(model, data, "pre_logits")
    images = next(iter(data()))["image"]
    forward = tf.function(
        lambda batch: extract_features(model, batch, "pre_logits")["pre_logits"], autograph=False
    )

    def ours() -> np.ndarray:
        return extractor().features["pre_logits"]

    def bare() -> np.ndarray:
        return np.concatenate([forward(images).numpy() for _ in range(data.eval_steps())])

    def seconds_of(run: Callable[[], np.ndarray]) -> tuple[float, int]:
        start = time.perf_counter()
        computed = len(run())
        return time.perf_counter() - start, computed

    np.testing.assert_allclose(ours()[: len(images)], forward(images), rtol=1e-3, atol=1e-3)

    def measure(number: int) -> dict[str, float]:
        # The first of a pair may be favoured by what the other leaves behind.
        sides = {"vit_tf": ours, "bare model": bare}
        found = {name: seconds_of(sides[name]) for name in list(sides)[:: (-1) ** number]}
        rates = {name: count / seconds for name, (seconds, count) in found.items()}
        per_second = {f"{name} images/s": round(rate, 2) for name, rate in rates.items()}
        return {**per_second, "ratio": round(rates["vit_tf"] / rates["bare model"], 3)}

    return measure
