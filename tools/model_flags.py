"""The flags by which tools name one or several models: named ones, exports and runs."""

from typing import Any

from absl import flags

_MODEL = flags.DEFINE_multi_string("model", [], "name of a model; may be given several times")
_WEIGHTS = flags.DEFINE_multi_string(
    "weights",
    [],
    "of each --model, or one for all: a tag, a file, or none [none: fresh ones]; without --model "
    "one .keras file a model",
)
_SAVED_MODEL = flags.DEFINE_multi_string("saved_model", [], "folder of an export; several times")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "describes the runs; several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_multi_string("model_dir", [], "folder of a run; several times")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "of the runs: latest, best, step, path")
_PREPROCESS = flags.DEFINE_string("preprocess", None, "ops for all models [each model's own]")


def load_models_of_flags() -> list[Any]:
    """The models that the flags name; see `vit_tf.training.named_models.load_models`."""
    from vit_tf.training.named_models import load_models

    return load_models(
        _MODEL.value,
        _WEIGHTS.value,
        _SAVED_MODEL.value,
        _GIN_FILE.value,
        _GIN_PARAM.value,
        _MODEL_DIR.value,
        _CHECKPOINT.value,
        _PREPROCESS.value,
    )
