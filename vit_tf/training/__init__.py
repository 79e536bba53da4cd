"""Training: the Estimator, what it needs to know, and the tasks it trains."""

from vit_tf.training.bad_steps import BadSteps
from vit_tf.training.ema import Ema
from vit_tf.training.estimator import Estimator
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_config import RunConfig
from vit_tf.training.tasks import (
    Classification,
    Cosub,
    FlexiClassification,
    KnowledgeDistillation,
    Task,
    TokenDistillation,
    TokenPruning,
)
from vit_tf.training.teachers import CachedTeacher, Teacher, write_answers

__all__ = [
    "BadSteps",
    "CachedTeacher",
    "Classification",
    "Cosub",
    "Ema",
    "Estimator",
    "FlexiClassification",
    "KnowledgeDistillation",
    "Optimization",
    "RunConfig",
    "Task",
    "Teacher",
    "TokenDistillation",
    "TokenPruning",
    "write_answers",
]
