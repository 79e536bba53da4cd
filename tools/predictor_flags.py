"""The flags by which tools name what classifies: an export, a server, a model or a run."""

from typing import Any

from absl import flags

_SAVED_MODEL = flags.DEFINE_string(
    "saved_model", None, "folder of a SavedModel, or of numbered ones: then the newest"
)
_SERVER = flags.DEFINE_string(
    "server", None, "address of a TensorFlow Serving: grpc://host:8500 or http://host:8501"
)
_SERVED_MODEL = flags.DEFINE_string("served_model", "model", "the model's name at the server")
_SERVED_VERSION = flags.DEFINE_string(
    "served_version", None, "number or label of its version at the server [the newest]"
)
_MODEL = flags.DEFINE_string("model", None, "name of a model, such as vit_b16")
_WEIGHTS = flags.DEFINE_string("weights", None, "of --model: a tag or a file; or a .keras file")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "describes the run; several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "folder of a run")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "of the run: latest, best, step, path")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "file with a class name a line, for --weights or --model_dir"
)


def load_predictor_of_flags(top_k: int = 5) -> Any:
    """The `vit_tf.export.predictors.Predictor` that the flags name; see `load_predictor`."""
    from vit_tf.training.named_predictor import load_predictor

    return load_predictor(
        saved_model=_SAVED_MODEL.value,
        server=_SERVER.value,
        model=_MODEL.value,
        weights=_WEIGHTS.value,
        gin_files=_GIN_FILE.value,
        gin_params=_GIN_PARAM.value,
        model_dir=_MODEL_DIR.value,
        checkpoint=_CHECKPOINT.value,
        class_names=_CLASS_NAMES.value,
        top_k=top_k,
        served_model=_SERVED_MODEL.value,
        served_version=_SERVED_VERSION.value,
    )
