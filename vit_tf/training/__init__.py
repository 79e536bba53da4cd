"""Training: the Estimator, what it needs to know, and the tasks it trains."""

from vit_tf.training.estimator import Estimator
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_config import RunConfig
from vit_tf.training.tasks import Classification, Task

__all__ = ["Classification", "Estimator", "Optimization", "RunConfig", "Task"]
