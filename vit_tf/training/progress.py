"""The progress line: how far, how fast, how long, and with how much memory."""

import time

import psutil
import tensorflow as tf


class Progress:
    """Measures each loop and prints its line.

    Args:
      total_steps: length of the run.
      global_batch: examples a step.
      quiet: measures without printing, for processes that are not the chief.
      devices: number of replicas.
      steps_per_epoch: of the training data, if known.
    """

    def __init__(
        self,
        total_steps: int,
        global_batch: int,
        quiet: bool = False,
        devices: int = 1,
        steps_per_epoch: float | None = None,
    ):
        self._total = total_steps
        self._batch = global_batch
        self._quiet = quiet
        self._devices = devices
        self._steps_per_epoch = steps_per_epoch
        self._updates = 0
        self._last = (None, time.monotonic())
        self._speed: float | None = None

    def start(self, step: int) -> None:
        """Starts the clock at a step."""
        self._last = (step, time.monotonic())

    def update(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Prints the line of a finished loop.

        Args:
          step: optimizer steps done.
          values: what the training loop returned.

        Returns:
          `"images_per_second"`, `"images_per_second_per_device"`, `"input_wait"`, the share of time
          spent waiting for input, `"epoch"` if it is known, and what `memory` tells.
        """
        before, then = self._last
        now = time.monotonic()
        self._last = (step, now)
        seconds = max(now - then, 1e-9)
        speed = (step - before) * self._batch / seconds
        smooth = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
        # A process's first loop holds tracing and compiling and would spoil the estimate.
        self._speed = smooth if self._updates else None
        self._updates += 1
        # A TPU's host measures the wait by its wall clock, which somebody may set.
        wait = min(1.0, max(0.0, values["input_wait_seconds"] / seconds))
        left = (self._total - step) * self._batch / smooth
        measured = {
            "images_per_second": round(speed, 1),
            "images_per_second_per_device": round(speed / self._devices, 1),
            "input_wait": round(wait, 4),
        }
        if self._steps_per_epoch:
            measured["epoch"] = round(step / self._steps_per_epoch, 4)
        measured |= memory()
        if not self._quiet:
            print(self._line(step, values, measured, left), flush=True)
        return measured

    def _line(
        self, step: int, values: dict[str, float], measured: dict[str, float], left: float
    ) -> str:
        parts = [
            f"step {step:>{len(str(self._total))}}/{self._total} {100 * step / self._total:3.0f}%"
        ]
        if "epoch" in measured:
            parts.append(f"epoch {measured['epoch']:.2f}")
        parts.append(f"loss {values['loss']:.4f}")
        if "accuracy" in values:
            parts.append(f"accuracy {values['accuracy']:.3f}")
        parts.append(f"lr {values['learning_rate']:.2e}")
        parts.append(f"{measured['images_per_second']:,.0f} images/s")
        if self._devices > 1:
            parts.append(f"{measured['images_per_second_per_device']:,.0f} a device")
        parts.append(f"input wait {100 * measured['input_wait']:.0f}%")
        parts.append(f"left {duration(left)}")
        device = measured.get("device_memory_gb")
        on_device = f" + {device:.1f} GB a device" if device is not None else ""
        parts.append(f"memory {measured['memory_gb']:.1f} GB{on_device}")
        if values["skipped_examples"]:
            parts.append(f"skipped {values['skipped_examples']} records")
        if values.get("bad_steps"):
            parts.append(f"bad steps {values['bad_steps']}")
        return "  ".join(parts)


def memory() -> dict[str, float]:
    """Resident `"memory_gb"` of this process, and on GPUs the peak `"device_memory_gb"` of one."""
    used = {"memory_gb": round(psutil.Process().memory_info().rss / 1e9, 3)}
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
        used["device_memory_gb"] = round(max(peaks) / 1e9, 3)
    return used


def duration(seconds: float) -> str:
    """`75` -> `1:15`, `3700` -> `1:01:40`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
