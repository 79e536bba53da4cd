"""How gradients become updates: optimizer, rates, decay, clipping, and which weights they concern.

A step clips the summed gradients and hands each weight to the optimizer with its own learning rate
and its own decay. Three tables say which: see `tables`.
"""

import functools
import re
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from vit_tf.models.lora import frozen_weights
from vit_tf.models.weight_names import weight_names
from vit_tf.training import schedules, tables
from vit_tf.training.clipping import clip_by_norm, clip_units, global_norm
from vit_tf.training.cpu_kernels import CPUKernels
from vit_tf.training.late_start import LateStart
from vit_tf.training.run_length import RunLength
from vit_tf.training.schedule_shapes import Constant, Scaled

Schedule = keras.optimizers.schedules.LearningRateSchedule

# big_vision and the AugReg recipes decay kernels only: no biases, norms, tokens or positions.
# A number follows where several weights of a model share a path.
KERNELS_ONLY = ((r".*kernel(:\d+)?", 1.0), (".*", 0.0))
# What Keras optimizers can do besides updating, and what does it here instead.
_ELSEWHERE = {
    "gradient_accumulation_steps": "RunConfig.accumulation_steps splits batches",
    "use_ema": "RunConfig.ema = @Ema() averages weights, and evaluates the averages",
    "loss_scale_factor": "bfloat16 training needs no scaled loss",
}
_CONVENTIONS = ("learning_rate", "schedule")


class Optimization:
    """An optimizer with its schedule, clipping, and tables of what holds for which weight.

    Any Keras optimizer drops in: `optimizer` is called with `learning_rate=` a schedule. Its
    `weight_decay` (for Muon not `adam_weight_decay`) is the base of the weight decay, which is
    decoupled and done here; LAMB and LARS, whose updates depend on it, are given it. What is
    clipped is the gradient of the whole batch, so the result does not depend on how many replicas
    share it.

    A table is rows of a regular expression and a value, or a function of the model that returns
    them. An expression must match a weight's whole name (`models.weight_names`, such as
    `block00/mlp/dense_in/kernel`); the first row that matches counts.

    Args:
      optimizer: a Keras optimizer class, or a function of `learning_rate` that makes one.
      learning_rate: at the peak of the schedule.
      schedule: a function of the run's `RunLength` that returns a Keras schedule of the relative
        rate, such as those in `schedules`; or a Keras schedule or a number, relative too.
      reference_batch: the batch that `learning_rate` is meant for; at another one it is scaled in
        proportion. None: it holds for any.
      clip_norm: largest global norm of the gradients; None leaves them alone.
      adaptive_clip: largest norm of a unit's gradient relative to the unit's weights (Brock et al.
        2021, 0.01 there), before `clip_norm`; None leaves them alone.
      adaptive_clip_exclude: expression of the weights that adaptive clipping leaves alone; the
        paper's is the last layer. None: of none.
      weight_decay_table: factors of the weight decay. Default: kernels only.
      learning_rate_table: factors of the learning rate, e.g. `layerwise_decay(0.75)`.
      trainable_table: False freezes weights: no gradient, no optimizer state, no decay. A duration
        instead, such as 500 or `"20%"`, freezes them until then, see `LateStart`.
      decay_scaled_by: `"learning_rate"`: a step takes `decay * rate` of a weight, with the weight's
        own rate at that step (torch, Keras, the papers); `"schedule"`: `decay * rate / peak`, so
        neither the peak nor the learning-rate table matters (big_vision).
      sam_rho: radius of sharpness-aware minimisation (Foret et al. 2021); None is without.

    Raises:
      ValueError: for numbers out of range.
      TypeError: for an optimizer that is made already.
    """

    def __init__(
        self,
        optimizer: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.AdamW,
        learning_rate: float = 1e-3,
        schedule: Callable[[RunLength], Schedule | float] | Schedule | float = schedules.cosine,
        reference_batch: int | None = None,
        clip_norm: float | None = 1.0,
        adaptive_clip: float | None = None,
        adaptive_clip_exclude: str | None = r"head.*",
        weight_decay_table: tables.Table = KERNELS_ONLY,
        learning_rate_table: tables.Table = ((".*", 1.0),),
        trainable_table: tables.Table = ((".*", True),),
        decay_scaled_by: str = "learning_rate",
        sam_rho: float | None = None,
    ):
        positive = {
            "learning_rate": learning_rate,
            "reference_batch": reference_batch,
            "clip_norm": clip_norm,
            "adaptive_clip": adaptive_clip,
            "sam_rho": sam_rho,
        }
        for name, value in positive.items():
            if value is not None and value <= 0:
                none = "" if name == "learning_rate" else " or None"
                raise ValueError(f"Optimization.{name} must be positive{none}; given {value}")
        if decay_scaled_by not in _CONVENTIONS:
            raise ValueError(
                f"Optimization.decay_scaled_by must be one of {', '.join(_CONVENTIONS)}; given "
                f"{decay_scaled_by!r}"
            )
        if isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "Optimization.optimizer must be a class or function, which is called once the "
                f"schedule is known; given a {type(optimizer).__name__} that is made already (in "
                f"gin: @{type(optimizer).__name__}, without brackets)"
            )
        self._make_optimizer = optimizer
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._reference_batch = reference_batch
        self._clip_norm = clip_norm
        self._adaptive_clip = adaptive_clip
        self._adaptive_clip_exclude = adaptive_clip_exclude
        self._tables = {
            "learning_rate_table": learning_rate_table,
            "weight_decay_table": weight_decay_table,
            "trainable_table": trainable_table,
        }
        self._decay_scaled_by = decay_scaled_by
        self.sam_rho = sam_rho
        self.optimizer: keras.optimizers.Optimizer | None = None
        self.peak = learning_rate
        # Step -> learning rate, before the factors of the table; made by `build`.
        self.rates: Schedule | None = None
        # By table, each row with the weights that it caught; filled by `build`.
        self.groups: dict[str, list[tables.Row]] = {}
        self.frozen: list[keras.Variable] = []
        self._frozen_by_table: list[keras.Variable] = []
        # Of the trained weights, in the order of the optimizer.
        self._rates: list[float] = []
        self._decays: list[float] = []
        self._clips_units: list[bool] = []
        self._sizes: dict[str, int] = {}
        self._updated: set[int] = set()
        self._late: LateStart | None = None
        self._kernels: CPUKernels | None = None

    def build(self, model: keras.Model, length: RunLength) -> keras.optimizers.Optimizer:
        """Creates the optimizer and its slots for a model; call it inside the strategy's scope.

        Args:
          model: a built model. Weights that the trainable table freezes are made untrainable.
          length: of the run, which the schedule and `reference_batch` need.

        Returns:
          The optimizer.

        Raises:
          ValueError: for a table that does not fit the model (see `tables.match`), a schedule that
            does not fit the run, and an optimizer that cannot do what is asked.
        """
        weights = self._match(model)
        self.peak = self._learning_rate * self._batch_ratio(length)
        self.rates = Scaled(self.peak, self._relative(length))
        optimizer = self._make_optimizer(learning_rate=self.rates)
        self._take_over(optimizer, list(weights))
        optimizer.build(list(weights.values()))
        self.optimizer = optimizer
        self._late = LateStart(optimizer, self._starts(list(weights), length))
        return optimizer

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        weights: Sequence[keras.Variable],
        kernels: CPUKernels | None = None,
    ) -> tf.Tensor:
        """Clips gradients and updates the weights, in replica context.

        Args:
          gradients: one gradient a weight, summed over replicas (`gradients.sum_over_replicas`).
          weights: the weights, in the same order.
          kernels: what updates large weights in place of the optimizer, where it can.

        Returns:
          The global norm of the gradients before clipping, a float32 scalar.

        Raises:
          TypeError: for an optimizer that does not update weight by weight.
        """
        gradients = self.only_begun(gradients, weights)
        norm = global_norm(gradients)
        self._updated = set()
        self._kernels = kernels
        self.optimizer.apply(self._clip(gradients, weights, norm), weights)
        if len(self._updated) < len(weights):
            raise TypeError(
                f"{type(self.optimizer).__name__} does not update each weight by `update_step`, as "
                "Keras optimizers do; the tables of Optimization cannot be followed with it"
            )
        return norm

    def only_begun(
        self, gradients: Sequence[tf.Tensor], weights: Sequence[keras.Variable]
    ) -> list[tf.Tensor]:
        """Gradients with zeros for weights that the trainable table still holds at this step."""
        return self._late.only_begun(gradients, weights)

    def learning_rates(self) -> dict[str, float]:
        """The current learning rate of each row of the learning-rate table that trains weights."""
        rate = float(tf.convert_to_tensor(self.optimizer.learning_rate))  # may be mirrored
        trained = {
            name
            for row in self.groups["trainable_table"]
            if row.value is not False
            for name in row.names
        }
        return {
            tables.label(row): rate * row.value
            for row in self.groups["learning_rate_table"]
            if trained.intersection(row.names)
        }

    def describe(self) -> str:
        """What holds for which weight, in a few lines: the rows of the tables and whom they caught.

        Call it after `build`.
        """
        base = self.optimizer.weight_decay or 0.0
        by = "learning rate" if self._decay_scaled_by == "learning_rate" else "schedule"
        titles = {
            "trainable_table": "trainable",
            "learning_rate_table": f"learning rate, x {self.peak:g}",
            "weight_decay_table": f"weight decay, x {base:g} x {by}",
        }
        return "\n".join(
            tables.describe(titles[name], self.groups[name], self._sizes) for name in titles
        )

    def _match(self, model: keras.Model) -> dict[str, keras.Variable]:
        """Matches the tables and freezes what they say; returns the weights that are trained."""
        for weight in self._frozen_by_table:  # in an earlier build
            weight.trainable = True
        named = weight_names(model.trainable_weights)
        self._sizes = {name: weight.shape.num_elements() for name, weight in named.items()}
        self.groups = {
            title: tables.match(table, model, list(named), title)
            for title, table in self._tables.items()
        }
        trains = tables.values(self.groups["trainable_table"])
        self._frozen_by_table = [w for name, w in named.items() if trains[name] is False]
        self.frozen = self._frozen_by_table + frozen_weights(model)
        for weight in self._frozen_by_table:
            weight.trainable = False
        trained = {name: w for name, w in named.items() if trains[name] is not False}
        if not trained:
            raise ValueError("Optimization.trainable_table freezes every weight of the model")
        return trained

    def _starts(self, names: Sequence[str], length: RunLength) -> list[int]:
        """Of each trained weight the step with which it begins."""
        rows = self.groups["trainable_table"]
        of_row = {}
        for row in rows:
            title = f"the row {row.pattern!r} of Optimization.trainable_table"
            is_bool = isinstance(row.value, bool)
            start = 0 if is_bool else length.in_steps(row.value, title)
            if start >= length.steps:
                raise ValueError(
                    f"{title} begins at step {start} ({row.value!r}), and the run has "
                    f"{length.steps}; False freezes weights for good"
                )
            of_row |= dict.fromkeys(row.names, start)
        starts = [of_row[name] for name in names]
        if all(starts):
            raise ValueError(
                "Optimization.trainable_table trains nothing before step "
                f"{min(starts)}; let one of its rows begin at once, with True"
            )
        return starts

    def _batch_ratio(self, length: RunLength) -> float:
        if self._reference_batch is None:
            return 1.0
        if length.batch_size is None:
            raise ValueError("Optimization.reference_batch needs a RunLength with a batch_size")
        return length.batch_size / self._reference_batch

    def _relative(self, length: RunLength) -> Schedule:
        schedule = self._schedule
        if callable(schedule) and not isinstance(schedule, Schedule):
            schedule = schedule(length)
        if isinstance(schedule, int | float):
            return Scaled(float(schedule), Constant(steps=length.steps))
        if not isinstance(schedule, Schedule):
            raise TypeError(
                "Optimization.schedule must be a Keras LearningRateSchedule, a number, or a "
                f"function of a RunLength that returns one; given {schedule!r}"
            )
        return schedule

    def _take_over(self, optimizer: keras.optimizers.Optimizer, names: Sequence[str]) -> None:
        """Puts this object between an optimizer and its updates of single weights."""
        for name, instead in _ELSEWHERE.items():
            if getattr(optimizer, name, None):
                raise ValueError(f"{type(optimizer).__name__}.{name} must not be set: {instead}")
        rates = tables.values(self.groups["learning_rate_table"])
        decays = tables.values(self.groups["weight_decay_table"])
        self._rates = [rates[name] for name in names]
        factors = [decays[name] for name in names]
        if hasattr(optimizer, "decay_factors"):  # its update contains the decay
            if self._decay_scaled_by != "learning_rate":
                raise ValueError(
                    f"{type(optimizer).__name__} scales the weight decay with the update, hence by "
                    "the learning rate; set Optimization.decay_scaled_by = 'learning_rate'"
                )
            optimizer.decay_factors = factors
            factors = [0.0] * len(names)
        self._decays = [(optimizer.weight_decay or 0.0) * factor for factor in factors]
        exclude = self._adaptive_clip_exclude
        self._clips_units = [not (exclude and re.fullmatch(exclude, name)) for name in names]
        if self._adaptive_clip is not None and exclude and all(self._clips_units):
            raise ValueError(
                f"Optimization.adaptive_clip_exclude {exclude!r} matches no trained weight; None "
                "excludes none"
            )
        optimizer.update_step = functools.partial(self._update, optimizer.update_step)
        optimizer._apply_weight_decay = lambda weights: None
        # `apply` hands in gradients that are already summed; Keras would sum them again.
        optimizer._all_reduce_sum_gradients = list

    def _clip(
        self, gradients: Sequence[tf.Tensor], weights: Sequence[keras.Variable], norm: tf.Tensor
    ) -> Sequence[tf.Tensor]:
        if self._adaptive_clip is not None:
            gradients = [
                clip_units(gradient, weight, self._adaptive_clip)
                if self._clips_units[self.optimizer._get_variable_index(weight)]
                else gradient
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
            norm = global_norm(gradients)
        if self._clip_norm is not None:
            gradients = clip_by_norm(gradients, norm, self._clip_norm)
        return gradients

    def _update(
        self,
        update_step: Callable[..., None],
        gradient: tf.Tensor,
        weight: tf.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates one weight, on one device: its decay, then the optimizer's own step."""
        place = self.optimizer._get_variable_index(weight)
        self._updated.add(place)
        rate = learning_rate * self._rates[place]
        by_schedule = self._decay_scaled_by == "schedule"
        decay = self._decays[place] * (learning_rate / self.peak if by_schedule else rate)

        def change() -> None:
            if self._kernels and self._kernels.updates(self.optimizer, gradient, weight):
                self._kernels.update(self.optimizer, gradient, weight, rate, decay)
                return
            if self._decays[place]:
                weight.assign_sub(weight * tf.cast(decay, weight.dtype))
            update_step(gradient, weight, rate)

        self._late.update(place, change)
