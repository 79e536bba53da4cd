"""Runs `tools/train.py` in processes that are cheap to start and may be killed.

They are forked off a process that has only imported the library: TensorFlow's runtime and its
threads start in each child anew.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from processes import ROOT, TINY, worker_environments

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["vit_tf.training.run"])


class Run:
    """`tools/train.py` on the quickstart at a tiny size, under way.

    Args:
      model_dir: folder of its state.
      digits_dir: its data.
      params: gin bindings that win.
      env: environment variables on top of this process's.
      clock_jump: seconds that the wall clock of the process is ahead.
      output_dir: folder of the file of what is printed. Default: the one that `model_dir` is in.
    """

    def __init__(self, model_dir, digits_dir, *params, env=None, clock_jump=0, output_dir=None):
        self.model_dir = Path(model_dir)
        bindings = [f"DATA_DIR = '{digits_dir}'", *TINY, *params]
        arguments = ["--gin_file=gin/quickstart.gin", f"--model_dir={model_dir}"]
        arguments += [f"--gin_param={binding}" for binding in bindings]
        folder = Path(output_dir or self.model_dir.parent)
        self._output = folder / f"{self.model_dir.name}-{time.monotonic_ns()}.output"
        self._process: BaseProcess = _CONTEXT.Process(
            target=_train, args=(arguments, str(self._output), env or {}, clock_jump)
        )
        self._process.start()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    @property
    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def wait_for(self, condition, pause=0.005) -> bool:
        """Waits until something holds; False if the process ended before."""
        while self._process.is_alive():
            if condition():
                return True
            time.sleep(pause)
        return False

    def end(self, status=0) -> str:
        """Waits for the end, which must have that exit status; returns what was printed."""
        self._process.join(timeout=300)
        if self._process.is_alive():
            self.kill()
        assert self._process.exitcode == status, (self._process.exitcode, self.output)
        return self.output


def run_workers(count: int, model_dir, digits_dir, *params) -> list[str]:
    """Trains with several workers to the end; returns what each printed."""
    settings = [*params, "RunConfig.strategy = 'multi_worker'"]
    workers = [Run(model_dir, digits_dir, *settings, env=env) for env in worker_environments(count)]
    return [worker.end() for worker in workers]


def _train(arguments: list[str], output: str, env: dict[str, str], clock_jump: float) -> None:
    """In the child: what `python tools/train.py` does with these arguments."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    os.chdir(ROOT)
    if clock_jump:
        real = time.time
        time.time = lambda: real() + clock_jump
    from absl import app

    spec = importlib.util.spec_from_file_location("train_tool", ROOT / "tools" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        app.run(module.main, argv=["tools/train.py", *arguments])
    finally:
        sys.stdout.flush()


def newest(model_dir) -> int:
    """Step of the newest complete checkpoint; 0 if there is none."""
    steps = [int(name[5:-6]) for name in _names(model_dir) if name.endswith(".index")]
    return max(steps, default=0)


def is_writing(model_dir) -> bool:
    """Whether a checkpoint is half written."""
    return any(name.endswith(".temp") for name in _names(model_dir))


def _names(model_dir) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(Path(model_dir) / "checkpoints")
    return []
