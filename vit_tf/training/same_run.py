"""Whether a run goes on as it began: with its configuration, and with what its task rests on."""

import json
from collections.abc import Callable, Mapping

from vit_tf.training import configuration_change
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog

_CONFIG = "config.gin"
_IDENTITY = "task.json"


class SameRun:
    """Keeps in `model_dir` what a run began with, and refuses to go on with something else.

    Args:
      model_dir: of the run.
      config_text: returns the configuration as gin text, once the run is set up.
      allow_change: shows a difference and goes on, instead of refusing it.
    """

    def __init__(
        self, model_dir: ModelDir, config_text: Callable[[], str] | None, allow_change: bool
    ):
        self._model_dir = model_dir
        self._config_text = config_text
        self._allow_change = allow_change

    def check_config(self) -> None:
        """Tells how the configuration differs from the one before, and refuses what is not allowed.

        Raises:
          ValueError: if something differs that says what is learned.
        """
        before = self._model_dir.read_text(_CONFIG)
        if self._config_text is None or before is None or not self._model_dir.checkpoints.steps():
            return
        changes = configuration_change.changes(before, self._config_text())
        if not changes:
            return
        lines = "\n".join(f"  {line}" for change in changes for line in str(change).splitlines())
        difference = f"the configuration differs from the one this run began with:\n{lines}"
        if not self._allow_change and not all(change.free for change in changes):
            raise ValueError(
                f"{difference}\nGo on with the new one by --allow_config_change, or with the old "
                f"one, which is {self._model_dir.join(_CONFIG)}; or give the new one a --model_dir "
                "of its own"
            )
        self._say(difference)

    def check_identity(self, identity: Mapping[str, str], step: int) -> None:
        """Refuses another teacher or the like, and keeps what there is now.

        Args:
          identity: of the task, see `Task.identity`.
          step: that the run goes on from; at 0 nothing has been learned yet.

        Raises:
          ValueError: if a part of it is not what the run began with.
        """
        kept = self._model_dir.read_text(_IDENTITY)
        before = json.loads(kept) if kept and step else identity
        for name, now in identity.items():
            if before.get(name, now) == now:
                continue
            difference = (
                f"the {name} is not the one that this run began with: then {before[name]}, "
                f"now {now}"
            )
            if not self._allow_change:
                raise ValueError(
                    f"{difference}. Go on with the new one by --allow_config_change, or bring the "
                    "old one back; or give the new one a --model_dir of its own"
                )
            self._say(difference)
        if identity and self._model_dir.chief:
            self._model_dir.write_text(_IDENTITY, json.dumps(identity, indent=1))

    def keep_config(self, log: RunLog) -> None:
        """Keeps the configuration in `model_dir` and in TensorBoard."""
        if self._config_text is not None:
            text = self._config_text()
            self._model_dir.write_text(_CONFIG, text)
            log.write_text("config", text)

    def _say(self, difference: str) -> None:
        if self._model_dir.chief:
            print(difference, flush=True)
