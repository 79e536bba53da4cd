"""Tasks: what is learned, one file each."""

from vit_tf.training.tasks.base import Task
from vit_tf.training.tasks.classification import Classification
from vit_tf.training.tasks.cosub import Cosub
from vit_tf.training.tasks.flexi import FlexiClassification
from vit_tf.training.tasks.knowledge_distillation import KnowledgeDistillation
from vit_tf.training.tasks.token_distillation import TokenDistillation
from vit_tf.training.tasks.token_pruning import TokenPruning

__all__ = [
    "Classification",
    "Cosub",
    "FlexiClassification",
    "KnowledgeDistillation",
    "Task",
    "TokenDistillation",
    "TokenPruning",
]
