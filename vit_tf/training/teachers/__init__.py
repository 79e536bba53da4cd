"""Teachers: models that tell a student what they make of its images."""

from vit_tf.training.teachers.cached import CachedTeacher, write_answers
from vit_tf.training.teachers.teacher import Teacher

__all__ = ["CachedTeacher", "Teacher", "write_answers"]
