"""vit_tf: a Vision Transformer model garden for TensorFlow and Keras.

    import vit_tf

    model = vit_tf.create_model("vit_b16", num_classes=10, image_size=224)
    vit_tf.list_models("vit_*")

Models are imported at once, so that Keras knows their classes (`keras.saving.load_model`); the
other names on first use, so that building a model does not load the trainer.
"""

import importlib

import vit_tf.models  # noqa: F401

__version__ = "0.1.0"

_WHERE = {
    "CachedTeacher": "vit_tf.training",
    "Classification": "vit_tf.training",
    "Cosub": "vit_tf.training",
    "Estimator": "vit_tf.training",
    "ExportOptions": "vit_tf.export",
    "FewShotSource": "vit_tf.data",
    "FlexiClassification": "vit_tf.training",
    "Input": "vit_tf.data",
    "KnowledgeDistillation": "vit_tf.training",
    "LoRA": "vit_tf.models",
    "Mixing": "vit_tf.data",
    "MixtureSource": "vit_tf.data",
    "Optimization": "vit_tf.training",
    "RelabelledSource": "vit_tf.data",
    "RunConfig": "vit_tf.training",
    "TFDSSource": "vit_tf.data",
    "TFRecordSource": "vit_tf.data",
    "VTABSource": "vit_tf.data",
    "Task": "vit_tf.training",
    "Teacher": "vit_tf.training",
    "TokenDistillation": "vit_tf.training",
    "TokenPruning": "vit_tf.training",
    "count_parameters": "vit_tf.models",
    "create_model": "vit_tf.checkpoints",
    "export_model": "vit_tf.export",
    "extract_features": "vit_tf.models",
    "fold_batch_norms": "vit_tf.models",
    "list_models": "vit_tf.models",
    "list_weights": "vit_tf.checkpoints",
    "load_checkpoint": "vit_tf.checkpoints",
    "save_checkpoint": "vit_tf.checkpoints",
    "write_answers": "vit_tf.training",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'vit_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
