"""SavedModels that serve what was evaluated, from encoded image bytes to class names."""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf.export.check import check_served
from vit_tf.export.numbered_folder import writing_next_number
from vit_tf.export.serving_module import ServingModule, embedding


def export_saved_model(
    model: keras.Model,
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    evaluation_input: Any,
    class_names: Sequence[str],
    export_dir: str,
    facts: dict[str, Any] | None = None,
) -> str:
    """Writes a SavedModel with the evaluation's preprocessing, and checks it before it is seen.

    Signatures: `serving_default` takes `image_bytes` (strings [batch]); `image` takes `images`
    (uint8 [batch, height, width, channels]). Both return `logits`, `probabilities`, `top_ids`,
    `top_names` and `top_probabilities`. Of a model of `create_model`, `embed` takes `image_bytes`
    and returns `pre_logits` [batch, width]. `assets.extra/model_card.json` says what it is.

    Args:
      model: the model.
      predict: see `ServingModule`.
      evaluation_input: `vit_tf.data.Input` of the evaluation.
      class_names: a name for each of the model's classes.
      export_dir: folder of numbered exports; the new one gets the next number.
      facts: more for the model card.

    Returns:
      Path of the new folder.

    Raises:
      RuntimeError: if the SavedModel's outputs differ from the evaluated ones; see `check_served`.
      ValueError: if the evaluation's images cannot be read.
      OSError: if it cannot be written. Whatever is raised, nothing is left in `export_dir`.
    """
    module = ServingModule(model, predict, evaluation_input.preprocess, class_names)
    with writing_next_number(export_dir) as (aside, final):
        tf.saved_model.save(module, aside, signatures=module.signatures())
        card = {
            "model": getattr(model, "variant", None) or type(model).__name__,
            "config": keras.saving.serialize_keras_object(model)["config"],
            "parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
            "preprocess": str(evaluation_input.preprocess),
            "class_names": list(class_names),
            "largest_difference_to_evaluation": check_served(
                aside,
                predict,
                evaluation_input,
                class_names,
                model.compute_dtype,
                embed=functools.partial(embedding, model) if module.embeds else None,
            ),
            **(facts or {}),
        }
        extra = os.path.join(aside, "assets.extra")
        tf.io.gfile.makedirs(extra)
        with tf.io.gfile.GFile(os.path.join(extra, "model_card.json"), "w") as file:
            file.write(json.dumps(card, indent=1, default=str))
    return final
