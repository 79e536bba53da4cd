"""What classifies images, as a command line names it: SavedModel, server, model or run."""

import functools
import os
from collections.abc import Sequence

from vit_tf.export.predictors import KerasPredictor, Predictor, SavedModelPredictor
from vit_tf.training import configuration
from vit_tf.training.named_models import load_models, softmax_values
from vit_tf.training.named_weights import load_named, read_class_names

_SOURCES = (
    "--saved_model, --server, --model and --weights, --weights=model.keras, or --gin_file and "
    "--model_dir"
)


def load_predictor(
    saved_model: str | None = None,
    server: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    gin_files: Sequence[str] = (),
    gin_params: Sequence[str] = (),
    model_dir: str | None = None,
    checkpoint: str = "latest",
    class_names: str | None = None,
    top_k: int = 5,
    served_model: str = "model",
    served_version: str | None = None,
) -> Predictor:
    """Loads what the flags of a tool name; exactly one source must be given.

    Args:
      saved_model: folder of a SavedModel, or of numbered ones.
      server: address of a TensorFlow Serving, see `ServerPredictor`.
      model: name of `create_model`.
      weights: of it, a tag or path; or a `.keras` file alone.
      gin_files: describe the run in `model_dir`.
      gin_params: bindings that win over the files.
      model_dir: folder of a run.
      checkpoint: of the run: `"latest"`, `"best"`, a step or a path.
      class_names: file with a name a line, for `model` or `model_dir`.
      top_k: how many classes a model in this process names.
      served_model: the model's name at the server.
      served_version: its version there; default: the newest.

    Raises:
      ValueError: if not exactly one source is given, or options do not go together.
      FileNotFoundError: if a file or checkpoint is not there.
      ImportError: if a library is missing, with the command that installs it.
    """
    sources = [saved_model, server, model or weights, model_dir]
    if (given := sum(source is not None for source in sources)) != 1:
        raise ValueError(f"name one model: {_SOURCES}; given {given or 'none'}")
    if class_names is not None and (saved_model or server):
        raise ValueError("--class_names goes with --weights and --model_dir; exports have theirs")
    if model is not None and weights is None:
        raise ValueError(f"--model={model} needs --weights: fresh ones know nothing")
    if saved_model is not None:
        return SavedModelPredictor(saved_model)
    if server is not None:
        from vit_tf.export.predictors.server import ServerPredictor  # its library is an extra

        return ServerPredictor(server, model=served_model, version=served_version)
    names = read_class_names(class_names) if class_names else None
    if model_dir is not None:
        (named,) = load_models(
            gin_files=gin_files,
            gin_params=gin_params,
            model_dirs=[model_dir],
            checkpoint=checkpoint,
        )
        names = names or _configured_names(named.model.num_classes)
        return KerasPredictor(
            named.model, named.predict_values, named.preprocess, names, top_k, named.name
        )
    loaded = load_named(model, weights, names)
    values = functools.partial(softmax_values, loaded)
    title = " ".join(filter(None, [model, os.path.basename(weights)]))
    return KerasPredictor(loaded, values, loaded.preprocessing.ops, names, top_k, title)


def _configured_names(classes: int) -> list[str] | None:
    """Of the run's evaluation data, if it lies where the configuration says."""
    make = configuration.bound_value("run.eval_input")
    try:
        names = list(getattr(make() if make else None, "class_names", None) or [])
    except OSError:
        return None
    return names if len(names) == classes else None
