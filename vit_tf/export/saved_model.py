"""SavedModels that serve what was evaluated, from encoded image bytes to class names."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.export.attention import attention as attention_of
from vit_tf.export.check import check_served, first_examples
from vit_tf.export.forms import forms_of
from vit_tf.export.model_card import write_card
from vit_tf.export.numbered_folder import writing_next_number
from vit_tf.export.options import ExportOptions
from vit_tf.export.serving_files import write_serving_files
from vit_tf.export.serving_module import ServingModule, embedding
from vit_tf.export.warmup import write_warmup_requests


def export_saved_model(
    model: keras.Model,
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    evaluation_input: Any,
    class_names: Sequence[str],
    export_dir: str,
    facts: dict[str, Any] | None = None,
    options: ExportOptions | None = None,
    measure: Callable[[str], dict[str, Any]] | None = None,
) -> str:
    """Writes a SavedModel with the evaluation's preprocessing, and checks it before it is seen.

    `ServingModule` describes the signatures. Beside them lie in `assets.extra` `model_card.json`,
    `labels.txt` (a name a line) and the requests that TensorFlow Serving warms up with. A fresh
    process without `vit_tf` must answer as evaluation does, bit for bit; see `check_served`.

    Args:
      model: the model, which computes in what is to be served.
      predict: see `ServingModule`.
      evaluation_input: `vit_tf.data.Input` of the evaluation, or `ExampleImages`.
      class_names: a name for each of the model's classes.
      export_dir: folder of numbered exports; the new one gets the next number.
      facts: more for the model card.
      options: of these what to serve; `precision`, `weights` and `evaluate` are for who makes the
        model, such as `export_model`.
      measure: takes the folder of the SavedModel, once it is checked; what it returns goes into the
        card as `"served_accuracy"`.

    Returns:
      Path of the new folder.

    Raises:
      RuntimeError: if the SavedModel's outputs differ from the evaluated ones; see `check_served`.
      ValueError: if the evaluation's images cannot be read.
      OSError: if it cannot be written. Whatever is raised, nothing is left in `export_dir`.
    """
    options = options or ExportOptions()
    preprocess = evaluation_input.preprocess
    attention = options.attention
    forms = forms_of(model, predict, preprocess, options.image_sizes)
    module = ServingModule(model, predict, preprocess, class_names, options.top_k, attention, forms)
    name = options.serving or os.path.basename(os.path.normpath(export_dir))
    examples = first_examples(evaluation_input)
    with writing_next_number(export_dir) as written:
        tf.saved_model.save(module, written.aside, signatures=module.signatures())
        features = {
            "embed": functools.partial(embedding, model),
            "attention": functools.partial(attention_of, model, kinds=attention),
        }
        checked = check_served(
            written.aside,
            predict,
            examples,
            preprocess,
            class_names,
            model.compute_dtype,
            features,
            {f"classify_{name}": form for name, form in forms.items()},
        )
        print(
            f"checked: {len(checked['signatures'])} signatures on {checked['images']} images, in a "
            "process without vit_tf: as evaluated, bit for bit",
            flush=True,
        )
        facts = {**(facts or {}), "check": checked}
        if measure is not None:
            facts["served_accuracy"] = measured = measure(written.aside)
            shown = ", ".join(f"{name} {value:,.4g}" for name, value in measured.items())
            print(f"served: {shown}", flush=True)
        write_card(written.aside, model, evaluation_input, class_names, facts)
        write_warmup_requests(written.aside, examples.encoded, name)
    if options.serving is not None:
        write_serving_files(export_dir, options.serving)
    return written.path
