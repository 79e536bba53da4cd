"""A model as it is served: LoRA merged, batch norms folded, in the precision that is asked for."""

import keras
import numpy as np

from vit_tf.export.check import TOLERANCES
from vit_tf.export.options import ExportOptions
from vit_tf.models.folding import fold_batch_norms
from vit_tf.models.lora import merged_model
from vit_tf.models.weight_names import weight_names

# Paths of layers; a dense layer with a batch norm behind it lies one level deeper.
_DENSE_OF_BLOCKS = ".*/(qkv|out|dense_in|dense_out)(/linear)?"
_CHECKED_IMAGES = 2


def inference_model(model: keras.Model, options: ExportOptions) -> keras.Model:
    """The model that an export holds.

    Args:
      model: of `create_model`; it stays as it is.
      options: of these `precision` and `fold_batch_norms`.

    Raises:
      RuntimeError: if folding changes the outputs by more than rounding.
    """
    model = merged_model(model)
    if options.fold_batch_norms:
        folded = fold_batch_norms(model)
        if folded is not model:
            _check_equal(folded, model)
        model = folded
    return in_precision(model, options.precision)


def _check_equal(folded: keras.Model, model: keras.Model) -> None:
    """Raises RuntimeError unless two models say the same of random images."""
    shape = (_CHECKED_IMAGES, *model.input_shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected, given = (
        keras.ops.convert_to_numpy(keras.ops.cast(m(images, training=False), "float32"))
        for m in (model, folded)
    )
    difference = float(np.abs(given - expected).max())
    allowed = TOLERANCES[model.compute_dtype] * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise RuntimeError(
            f"with its batch norms folded the model's outputs differ by {difference:.3g} (allowed: "
            f"{allowed:.3g}); nothing was exported. ExportOptions(fold_batch_norms=False) leaves "
            "them as they are"
        )


def in_precision(model: keras.Model, precision: str | None) -> keras.Model:
    """The same model computing in a precision.

    In bfloat16 the dense layers of the blocks, where nearly all weights are, also store them so:
    they round them before each use anyway, and nothing changes but memory and time. Other weights,
    such as those of norms, stay float32.

    Args:
      model: of `create_model`.
      precision: see `ExportOptions`; None for what the model computes in.
    """
    precision = precision or model.compute_dtype
    if precision != "bfloat16":
        if precision == model.compute_dtype:
            return model
        policy = precision
    elif model.dtype_policy.name == "bfloat16":  # all weights are stored so already
        return model
    else:
        policy = keras.dtype_policies.DTypePolicyMap(
            keras.DTypePolicy("mixed_bfloat16"), {_DENSE_OF_BLOCKS: keras.DTypePolicy("bfloat16")}
        )
    other = type(model).from_config({**model.get_config(), "dtype": policy})
    values = weight_names(model.weights)
    for name, weight in weight_names(other.weights).items():
        weight.assign(values[name])
    return other
