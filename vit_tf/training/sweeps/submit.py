"""Runs of a sweep handed to a scheduler, through a command template."""

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence

from vit_tf.training.sweeps.folder import FAILED, SUBMITTED, SweepFolder
from vit_tf.training.sweeps.grid import SweepRun

_PLACES = ("command", "name", "job", "model_dir")
_PLACE = re.compile(r"(?<!\$)\{(\w+)\}")  # ${HOME} is for a shell that the template starts


def submission(template: str, run: SweepRun, command: Sequence[str], model_dir: str) -> list[str]:
    """The command that submits a run.

    Args:
      template: as a shell would read it, but no shell does: `{command}`, `{name}`, `{model_dir}`
        and `{job}` are put into its words after it was split into these, so that nothing needs
        further quotes. `{command}` is the run's command, quoted for a shell.
      run: what is submitted.
      command: its command.
      model_dir: its folder.

    Returns:
      The words of the command.

    Raises:
      ValueError: for a template without `{command}`, with another place, or with open quotes.
    """
    places = set(_PLACE.findall(template))
    if "command" not in places or not places <= set(_PLACES):
        known = ", ".join(f"{{{place}}}" for place in _PLACES)
        raise ValueError(
            f"--command_template needs {{command}} and may have others of {known}; given "
            f"{template!r}"
        )
    values = {
        "command": shlex.join(command),
        "name": run.name,
        "job": job_name(run.name),
        "model_dir": model_dir,
    }
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise ValueError(f"--command_template {template!r}: {error}") from error
    return [_PLACE.sub(lambda match: values[match[1]], word) for word in words]


def job_name(name: str) -> str:
    """A run's name as schedulers take them (RFC 1123): `lr=0.01` -> `lr-0-01`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-63:].strip("-") or "run"


def submit_all(
    folder: SweepFolder,
    runs: Sequence[SweepRun],
    template: str,
    command: Callable[[SweepRun], Sequence[str]],
) -> int:
    """Submits runs, each once.

    Args:
      folder: of the sweep.
      runs: those that are to be submitted.
      template: see `submission`.
      command: makes the command of a run.

    Returns:
      The exit status: 0, or 1 if the scheduler refused any.
    """
    refused = 0
    for run in runs:
        words = submission(template, run, command(run), folder.model_dir(run))
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            failed, said = bool(done.returncode), (done.stdout + done.stderr).strip()
        except OSError as error:
            failed, said = True, f"{words[0]}: {error.strerror}"
        if failed:
            refused += 1
            folder.keep(run, FAILED, error=said)
        else:
            folder.keep(run, SUBMITTED, answer=said)
        print(f"{'refused  ' if failed else 'submitted'}  {run.name}  {said}", flush=True)
    return 1 if refused else 0
