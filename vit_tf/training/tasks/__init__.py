"""Tasks: what is learned, one file each."""

from vit_tf.training.tasks.base import Task
from vit_tf.training.tasks.classification import Classification

__all__ = ["Classification", "Task"]
