"""A strategy that stands for a TPU slice where programs are lowered, and none runs."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.distribute.one_device_strategy import OneDeviceExtended


class SliceStrategy(tf.distribute.Strategy):
    """What `TPUStrategy` is to a step that is traced: so many replicas, and sums over them.

    A function that `run` traces is one replica's. Its sums over replicas become XLA's all-reduce of
    all devices, as `TPUStrategy` makes them. Such a function can be lowered and compiled for the
    slice; run it cannot be, with more than one device.

    Args:
      devices: of the slice, a replica each.
    """

    def __init__(self, devices: int):
        super().__init__(_SliceExtended(self, devices))


class _SliceExtended(OneDeviceExtended):
    def __init__(self, strategy: SliceStrategy, devices: int):
        super().__init__(strategy, "/cpu:0")
        self._devices = devices

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._devices

    def _use_merge_call(self) -> bool:
        return False  # sums are made within the replica's own graph

    def _call_for_each_replica(self, fn: Callable, args: Any, kwargs: Any) -> Any:
        number = gen_xla_ops.xla_replica_id() if self._devices > 1 else 0
        with tf.distribute.ReplicaContext(self._container_strategy(), number):
            return fn(*args, **kwargs)

    def _replica_ctx_all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        share = 1 / self._devices if reduce_op == tf.distribute.ReduceOp.MEAN else 1

        def over_devices(tensor):
            total = gen_xla_ops.xla_all_reduce(
                input=tensor,
                group_assignment=[list(range(self._devices))],
                reduce_op="Add",
                mode="CrossReplica",
            )
            return total * tf.cast(share, total.dtype) if share != 1 else total

        return tf.nest.map_structure(over_devices, value)
