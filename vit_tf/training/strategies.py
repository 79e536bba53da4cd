"""Where a run computes: one device, all devices of this machine, several workers, or TPUs."""

import functools
import json
import os
from typing import Any

import tensorflow as tf

from vit_tf.training.cluster import check_cluster, cluster_size, slurm_cluster, workers
from vit_tf.training.slice_strategy import SliceStrategy

STRATEGIES = ("auto", "cpu", "mirrored", "multi_worker", "tpu")


def create_strategy(
    name: str = "auto",
    tpu: str | None = None,
    virtual_cpus: int | None = None,
    tpu_zone: str | None = None,
    tpu_project: str | None = None,
) -> tf.distribute.Strategy:
    """Creates the `tf.distribute` strategy of a run.

    Call it before anything else touches TensorFlow: TPUs, workers and virtual devices are set up
    when the runtime starts.

    Args:
      name: `"cpu"` (one device), `"mirrored"` (all GPUs, or all CPU devices where there is no
        GPU), `"multi_worker"` (the cluster of `TF_CONFIG`, or without one the tasks of a SLURM job
        step; of one worker, it is `"auto"`), `"tpu"`, or `"auto"`: the first of TPU, workers,
        several GPUs, one GPU, CPU that is there.
      tpu: name or address of the TPU; `"local"` on a TPU VM. Default: `TPU_NAME`, else local.
      virtual_cpus: splits the CPU into so many devices, to try distribution without GPUs.
      tpu_zone: Compute Engine zone of a TPU that is given by name. Default: this machine's.
      tpu_project: its project. Default: this machine's.

    Returns:
      The strategy.

    Raises:
      ValueError: for an unknown name, a missing or wrong `TF_CONFIG`, a TPU that does not answer,
        and for a zone or project without the TPU's name.
      RuntimeError: when virtual devices are asked for after TensorFlow has started.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; given {name!r}")
    place = {"zone": tpu_zone, "project": tpu_project}
    place = {key: value for key, value in place.items() if value is not None}
    if place and not (tpu or os.environ.get("TPU_NAME")):
        raise ValueError(
            f"RunConfig.tpu_{next(iter(place))} says where a TPU is; name it in RunConfig.tpu"
        )
    if virtual_cpus:
        _split_cpu(virtual_cpus)
    if name == "multi_worker":
        _take_from_slurm()
    if name == "multi_worker" and cluster_size() == 1:
        name = "auto"  # with one worker TensorFlow's own strategy cannot trace the step
    if name == "auto":
        name = _detect(tpu)
    if name == "tpu":
        return _tpu_strategy(tpu, place)
    if name == "multi_worker":
        check_cluster()
        print(f"waiting for all workers: {', '.join(workers())}", flush=True)
        return _sharing_bfloat16(tf.distribute.MultiWorkerMirroredStrategy())
    if name == "mirrored":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        return _mirrored(tuple(device.name for device in tf.config.list_logical_devices(kind)))
    device = "/gpu:0" if name == "gpu" else "/cpu:0"
    return tf.distribute.OneDeviceStrategy(device)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy a process: two number their all-reduces alike and get each other's."""
    return tf.distribute.MirroredStrategy(devices)


def _take_from_slurm() -> None:
    """Sets `TF_CONFIG` where SLURM started this process as one of several and nobody set it."""
    cluster = None if os.environ.get("TF_CONFIG") else slurm_cluster(os.environ)
    if cluster:
        os.environ["TF_CONFIG"] = json.dumps(cluster)


def _sharing_bfloat16(
    strategy: tf.distribute.MultiWorkerMirroredStrategy,
) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Lets bfloat16 variables be made: the chief's initial values go to the others in float32.

    TensorFlow has no broadcast of bfloat16, and float32 holds each of its values.
    """
    extended = strategy.extended
    share = extended._get_variable_creator_initial_value

    def share_wide(replica_id: int, device: str, primary_var: Any, **kwargs: Any) -> Any:
        if replica_id or tf.as_dtype(kwargs.get("dtype") or tf.float32) != tf.bfloat16:
            return share(replica_id, device, primary_var, **kwargs)
        own = kwargs["initial_value"]
        kwargs["dtype"] = tf.float32
        kwargs["initial_value"] = lambda: tf.cast(own() if callable(own) else own, tf.float32)
        shared = share(replica_id, device, primary_var, **kwargs)
        return lambda: tf.cast(shared(), tf.bfloat16)

    extended._get_variable_creator_initial_value = share_wide
    return strategy


def _detect(tpu: str | None) -> str:
    """The best kind of device that is there; `"gpu"` stands for exactly one GPU."""
    if tpu or os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    if cluster_size() > 1:
        return "multi_worker"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return "cpu" if gpus == 0 else "gpu" if gpus == 1 else "mirrored"


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise RuntimeError(
            f"virtual_cpus={count} must be set before TensorFlow starts, but it is running "
            "already; create the Estimator first in the program"
        ) from error


def _tpu_strategy(tpu: str | None, place: dict[str, str]) -> tf.distribute.Strategy:
    address = tpu or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address, **place)
        if address != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"no TPU answers at {address!r} ({type(error).__name__}: {str(error).splitlines()[0]}"
            "). On a TPU VM leave RunConfig.tpu unset; elsewhere set it to the TPU's name, or "
            "choose RunConfig.strategy = 'auto' to run on what is here"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy runs on TPUs, where bfloat16 is the default and XLA always on."""
    return isinstance(strategy, tf.distribute.TPUStrategy | SliceStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes logs and checkpoints."""
    return worker_number(strategy) == 0


def worker_number(strategy: tf.distribute.Strategy) -> int:
    """Number of this process among those of the run; the chief is 0."""
    if num_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    after_chief = "chief" in resolver.cluster_spec().as_dict() and resolver.task_type != "chief"
    return resolver.task_id + after_chief


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Number of processes that take part, each with an input pipeline of its own."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return max(1, cluster_size())
    return 1


def worker_context(strategy: tf.distribute.Strategy) -> tf.distribute.InputContext:
    """The share of the data that this process reads, as a data set function is told it."""
    return tf.distribute.InputContext(
        num_input_pipelines=num_workers(strategy),
        input_pipeline_id=worker_number(strategy),
        num_replicas_in_sync=strategy.num_replicas_in_sync,
    )
