"""A part of `train_step.py` and `inference.py`: one library's ViT, in a process of its own.

Called as `python step_contender.py LIBRARY MODEL DTYPE WORK`, with LIBRARY one of `vit_tf`,
`keras_hub`, `official`, `timm` and `timm_compile`, MODEL one of `ti16`, `s16` and `b16`, DTYPE
`float32` or `bfloat16` and WORK `train` or `inference`. A training step is forward and backward
pass and the AdamW update of 16 images with their labels, in the same precision on all sides:
weights, optimizer and loss in float32, and with `bfloat16` the products between them in bfloat16.

It does the work once and then answers each line on stdin, the number of repeats, with one of JSON
on stdout: the wall and processor seconds of each, and the peak memory of the process in MB. The
first answer comes without a question: the seconds from the start of the process to the end of the
first step (imports, building, tracing, compiling), and which settings apply.

It imports no more than what it runs, so that peers may live in an environment without vit_tf.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH, SIZE, CLASSES, THREADS = 16, 224, 1000, 2
WIDTHS = {"ti16": (192, 3), "s16": (384, 6), "b16": (768, 12)}  # width, heads; depth is 12
TIMM = {"ti16": "tiny", "s16": "small", "b16": "base"}
RATE, DECAY = 1e-3, 1e-4

Work = Callable[[], float]  # does it once, and returns a number that must be finite


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images [16, 224, 224, 3] in [-1, 1] and labels [16]."""
    images = np.random.default_rng(0).uniform(-1, 1, (BATCH, SIZE, SIZE, 3))
    return images.astype(np.float32), np.arange(BATCH, dtype=np.int32)


def tensorflow():
    """TensorFlow with two threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    return tf


def vit_tf(model: str, dtype: str, train: bool) -> Work:
    """The training step of `vit_tf.Estimator` with its defaults; as inference, the model's call."""
    tf = tensorflow()
    import keras

    import vit_tf

    keras.config.set_dtype_policy(policy(dtype))
    task = vit_tf.Classification(lambda: vit_tf.create_model(f"vit_{model}", num_classes=CLASSES))
    images, labels = map(tf.constant, data())
    if not train:
        return keras_inference(task.build_model(), images)
    from vit_tf.training.run_length import RunLength
    from vit_tf.training.step import TrainStep
    from vit_tf.training.strategies import create_strategy

    strategy = create_strategy("cpu")
    config = vit_tf.RunConfig(steps=1000, optimization=vit_tf.Optimization(learning_rate=RATE))
    with strategy.scope():
        built = task.build_model()
        config.optimization.build(built, RunLength(1000))
        step = TrainStep(task, built, config, strategy, BATCH)
    batch = {"image": images, "label": labels, "mask": tf.ones([BATCH])}
    run = tf.function(lambda batch: strategy.run(step, args=(batch,)))

    def work() -> float:
        step.reset_sums()
        run(batch)
        return step.means()["loss"]

    return work


def keras_hub(model: str, dtype: str, train: bool) -> Work:
    """`keras_hub.models.ViTImageClassifier` and `train_on_batch`."""
    tf = tensorflow()
    import keras
    import keras_hub

    keras.config.set_dtype_policy(policy(dtype))
    width, heads = WIDTHS[model]
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 3), patch_size=16, num_layers=12, num_heads=heads,
        hidden_dim=width, mlp_dim=4 * width,
    )  # fmt: skip
    built = keras_hub.models.ViTImageClassifier(backbone, CLASSES)
    images, labels = map(tf.constant, data())
    if not train:
        return keras_inference(built, images)
    built.compile(
        optimizer=keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # on CPUs XLA makes its step slower, and its start twice as long
    )
    return lambda: float(np.ravel(built.train_on_batch(images, labels))[0])


def official(model: str, dtype: str, train: bool) -> Work:
    """`official.vision`'s ViT with its head on `tf_keras`, and a step of our own around it."""
    tf = tensorflow()
    import tf_keras
    from official.vision.modeling.backbones import vit
    from official.vision.modeling.classification_model import ClassificationModel

    tf_keras.mixed_precision.set_global_policy(policy(dtype))
    width, heads = WIDTHS[model]
    specs = tf_keras.layers.InputSpec(shape=[None, SIZE, SIZE, 3])
    backbone = vit.VisionTransformer(
        mlp_dim=4 * width, num_heads=heads, num_layers=12, hidden_size=width, dropout_rate=0.0,
        input_specs=specs, output_encoded_tokens=False,
    )  # fmt: skip
    built = ClassificationModel(backbone, CLASSES, specs)
    images, labels = map(tf.constant, data())
    if not train:
        return keras_inference(built, images)
    optimizer = tf_keras.optimizers.AdamW(RATE, weight_decay=DECAY)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = tf.cast(built(images, training=True), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        weights = built.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    return lambda: float(step(images, labels))


def timm(model: str, dtype: str, train: bool, compiled: bool = False) -> Work:
    """A ViT of timm in PyTorch, under autocast for bfloat16."""
    import torch
    import torch.nn.functional as F

    register_torchvision_operators(torch)
    from timm import create_model

    torch.set_num_threads(THREADS)
    built = create_model(f"vit_{TIMM[model]}_patch16_224", num_classes=CLASSES).train(train)
    images, labels = data()
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(labels).long()

    def forward():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return built(images).float()

    def loss_of():
        return F.cross_entropy(forward(), labels)

    forward, loss_of = map(torch.compile, (forward, loss_of)) if compiled else (forward, loss_of)
    optimizer = torch.optim.AdamW(built.parameters(), RATE, weight_decay=DECAY, fused=True)

    def step() -> float:
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def inference() -> float:
        with torch.inference_mode():
            return forward().sum().item()

    return step if train else inference


def keras_inference(model, images) -> Work:
    """A Keras model's call on a batch, traced once."""
    import tensorflow as tf

    run = tf.function(lambda images: tf.cast(model(images, training=False), tf.float32))
    return lambda: float(tf.reduce_sum(run(images)))


def policy(dtype: str) -> str:
    """Name of Keras' policy: weights stay float32."""
    return "mixed_bfloat16" if dtype == "bfloat16" else "float32"


def register_torchvision_operators(torch) -> None:
    """Declares the two operators without which torchvision's Python, that timm loads, fails.

    Beside a PyTorch for CPUs alone torchvision's compiled part may not load.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        register_torchvision_operators.kept = library  # what it declares ends with it


def peak_mb() -> float:
    """Largest resident size since this program began (getrusage's may be that of its parent)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def since_start() -> tuple[float, float]:
    """Wall seconds since this process began, and its processor seconds."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def main(library: str, model: str, dtype: str, work: str) -> None:
    """Prepares, does the work once, and answers questions until stdin ends."""
    make = {
        "vit_tf": vit_tf,
        "keras_hub": keras_hub,
        "official": official,
        "timm": timm,
        "timm_compile": lambda *given: timm(*given, compiled=True),
    }[library]
    do = make(model, dtype, work == "train")
    do()
    wall, processor = since_start()
    print(json.dumps({"first_s": wall, "first_cpu_s": processor}), flush=True)
    for line in sys.stdin:
        seconds, used = [], []
        for _ in range(int(line)):
            start, start_used = time.perf_counter(), time.process_time()
            value = do()
            seconds.append(time.perf_counter() - start)
            used.append(time.process_time() - start_used)
            assert np.isfinite(value)
        print(json.dumps({"s": seconds, "cpu_s": used, "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
