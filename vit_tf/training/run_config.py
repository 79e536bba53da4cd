"""How long, where and with what bookkeeping a task is trained."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from vit_tf.training import remat
from vit_tf.training.bad_steps import BadSteps
from vit_tf.training.ema import Ema
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import Duration

_POSITIVE = ("steps", "epochs", "steps_per_loop", "checkpoint_interval", "eval_interval")
_POSITIVE += ("keep_checkpoints", "accumulation_steps", "image_interval", "histogram_interval")
_ALL_REDUCE_DTYPES = ("bfloat16", "float32")
PRECISIONS = ("float32", "mixed_bfloat16", "bfloat16")


@dataclasses.dataclass
class RunConfig:
    """Settings of a run; see `Estimator`.

    Attributes:
      steps: length of training in optimizer steps, or a function of the number of training
        examples that returns it, such as `hyper_rule_steps`; or
      epochs: length in passes over the training data. Give one of the two.
      strategy: `"auto"`, `"cpu"`, `"mirrored"`, `"multi_worker"` or `"tpu"`.
      tpu: name or address of a TPU; see `create_strategy`.
      tpu_zone: zone of a TPU that is given by name. Default: this machine's.
      tpu_project: project of a TPU that is given by name. Default: this machine's.
      virtual_cpus: splits the CPU into so many devices, to try distribution without GPUs.
      optimization: optimizer, schedule, clipping; see `Optimization`.
      precision: Keras dtype policy. Default: `"mixed_bfloat16"` on TPUs, else `"float32"`.
      steps_per_loop: steps between two lines of the log; checkpoints and evaluations fall between
        them too, and with several workers the answer to SIGTERM. Default: the largest divisor of
        the intervals up to 100.
      checkpoint_interval: steps between checkpoints. Default: `eval_interval`, or a tenth of
        the run.
      keep_checkpoints: how many of the newest checkpoints stay.
      keep_every: the first checkpoint at or after each multiple of so many steps, or of a duration
        such as "10 epochs", stays for ever. Default: none does.
      async_checkpoints: writes checkpoints in the background, while training goes on.
      eval_interval: steps between evaluations in `train_and_evaluate`. Default: a tenth of the
        run.
      seed: of the initial weights, dropout, stochastic depth and mixing (the data has its own).
      deterministic: makes TensorFlow choose operations that give the same bits every time.
        Default: on CPUs yes, where it costs nothing; on GPUs no, where it is slower. TPUs always
        do. It stays on for the rest of the process.
      jit_compile: compiles the training step with XLA (on TPUs that is always so).
      accumulation_steps: micro-batches that a replica's batch is split into. They go through the
        model one after the other, in the memory of one; the update is that of the whole batch.
      remat: which layers compute their activations again in the backward pass rather than keep
        them: `"none"`, `"blocks"`, or within the blocks `"attention"` or `"mlp"`. It takes time and
        saves memory; the gradients are the same.
      all_reduce_dtype: type that gradients are summed over replicas in, `"bfloat16"` or
        `"float32"`. `"bfloat16"` halves what devices and machines send each other; each replica's
        gradient and each partial sum is rounded to 8 significant bits, the weights are updated in
        their own type after it. Losses and metrics are summed as they are. One replica sends
        nothing, and rounds nothing. Default: the gradients' own type.
      sync_batch_norm: batch norms normalise by the examples of all replicas together, not by those
        of their own replica alone. It costs three small all-reduces for each norm, forward, and as
        many backward; with `accumulation_steps` the micro-batches of all replicas count together.
        On several CPUs or GPUs it cannot be had with `jit_compile`. Moving averages are equal on
        all replicas either way.
      ema: averages the weights, and evaluates the averages; see `Ema`. Default: no averages.
      bad_steps: what becomes of steps whose loss or gradient is no number, and of a loss that blows
        up; see `BadSteps`. Default: the run stops with the last good checkpoint kept. None goes on
        regardless.
      image_interval: steps between pictures of training images in TensorBoard, as the model sees
        them. Default: one picture, at the start.
      histogram_interval: steps between histograms of all weights in TensorBoard. Default: none.
      profile_steps: (start, stop): TensorFlow's profiler records these steps for TensorBoard.
    """

    steps: int | Callable[[int], int] | None = None
    epochs: float | None = None
    strategy: str = "auto"
    tpu: str | None = None
    tpu_zone: str | None = None
    tpu_project: str | None = None
    virtual_cpus: int | None = None
    optimization: Optimization = dataclasses.field(default_factory=Optimization)
    precision: str | None = None
    steps_per_loop: int | None = None
    checkpoint_interval: int | None = None
    keep_checkpoints: int = 3
    keep_every: Duration | None = None
    async_checkpoints: bool = True
    eval_interval: int | None = None
    seed: int = 0
    deterministic: bool | None = None
    jit_compile: bool = False
    accumulation_steps: int = 1
    remat: str = "none"
    all_reduce_dtype: str | None = None
    sync_batch_norm: bool = False
    ema: Ema | None = None
    bad_steps: BadSteps | None = dataclasses.field(default_factory=BadSteps)
    image_interval: int | None = None
    histogram_interval: int | None = None
    profile_steps: tuple[int, int] | None = None

    def __post_init__(self):
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"give RunConfig.steps or RunConfig.epochs, not both; given steps={self.steps} "
                f"and epochs={self.epochs}. Set the other one to None"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not callable(value) and value <= 0:
                raise ValueError(f"RunConfig.{name} must be positive; given {value}")
        if self.remat not in remat.POLICIES:
            raise ValueError(
                f"RunConfig.remat must be one of {', '.join(remat.POLICIES)}; given {self.remat!r}"
            )
        if self.all_reduce_dtype not in (None, *_ALL_REDUCE_DTYPES):
            raise ValueError(
                f"RunConfig.all_reduce_dtype must be one of {', '.join(_ALL_REDUCE_DTYPES)} or "
                f"None; given {self.all_reduce_dtype!r}"
            )
        if self.profile_steps is not None:
            start, stop = self.profile_steps
            if not 0 <= start < stop:
                raise ValueError(
                    "RunConfig.profile_steps must be (start, stop) with 0 <= start < stop; given "
                    f"{self.profile_steps}"
                )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(
                f"RunConfig.precision must be one of {', '.join(PRECISIONS)}; given "
                f"{self.precision!r}"
            )

    def total_steps(
        self,
        steps_per_epoch: float | None,
        default: int | None = None,
        examples_per_epoch: int | None = None,
    ) -> int:
        """Length of training in steps, which is also that of the learning-rate schedule.

        Args:
          steps_per_epoch: of the training data, if known.
          default: length if neither `steps` nor `epochs` is set.
          examples_per_epoch: of the training data, if known.

        Raises:
          ValueError: if it cannot be known.
        """
        if callable(self.steps):
            if not examples_per_epoch:
                raise ValueError(
                    "RunConfig.steps is a function of the number of examples, and the input does "
                    "not know its size; set RunConfig.steps to a number instead"
                )
            return self.steps(examples_per_epoch)
        if self.steps is not None:
            return self.steps
        if self.epochs is None and default is not None:
            return default
        if self.epochs is None:
            raise ValueError("say how long to train: set RunConfig.steps or RunConfig.epochs")
        if not steps_per_epoch:
            raise ValueError(
                "RunConfig.epochs needs an input that knows its size; set RunConfig.steps instead"
            )
        return max(1, round(self.epochs * steps_per_epoch))

    def intervals(self, total_steps: int) -> tuple[int, int, int]:
        """Steps between evaluations, between checkpoints, and in one loop.

        Raises:
          ValueError: if the loop does not divide the intervals, so that a resumed run would log
            other means than one never stopped.
        """
        tenth = max(1, round(total_steps / 10))
        every_eval = self.eval_interval or self.checkpoint_interval or tenth
        every_checkpoint = self.checkpoint_interval or every_eval
        loop = self.steps_per_loop or _common_divisor(every_eval, every_checkpoint, at_most=100)
        for name, interval in (
            ("eval_interval", every_eval),
            ("checkpoint_interval", every_checkpoint),
        ):
            if interval % loop:
                raise ValueError(
                    f"RunConfig.steps_per_loop {loop} does not divide RunConfig.{name} {interval}; "
                    f"take {_common_divisor(every_eval, every_checkpoint, at_most=loop)}"
                )
        return every_eval, every_checkpoint, loop

    def set_determinism(self, tpu: bool) -> None:
        """Switches deterministic operations on where they are asked for, or cost nothing."""
        on_cpu = not tpu and not tf.config.list_physical_devices("GPU")
        if on_cpu if self.deterministic is None else self.deterministic:
            tf.config.experimental.enable_op_determinism()

    def dtype_policy(self, tpu: bool) -> str:
        """Name of the Keras dtype policy that models are to be made under."""
        return self.precision or ("mixed_bfloat16" if tpu else "float32")


def _common_divisor(first: int, second: int, at_most: int) -> int:
    return max(
        divisor
        for divisor in range(1, min(first, second, at_most) + 1)
        if first % divisor == 0 and second % divisor == 0
    )
