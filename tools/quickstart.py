"""Digits to a served ViT in a few minutes: writes shards, trains, evaluates, exports, classifies.

Run it with `make quickstart`. Every step is a command that you can run yourself; each is printed.
Started again, it goes on where it stopped.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings, in all steps

_ROOT = Path(__file__).resolve().parents[1]
_GIN_FILE = _ROOT / "gin" / "quickstart.gin"


def main() -> None:
    """Runs all steps and ends with a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=_ROOT / "runs" / "quickstart",
        help="where everything goes; default: runs/quickstart of the project",
    )
    parser.add_argument(
        "--gin_param", action="append", default=[], help="a gin binding for all training commands"
    )
    parser.add_argument("--fresh", action="store_true", help="forget an earlier quickstart first")
    arguments = parser.parse_args()
    start = time.monotonic()
    out = _from_here(arguments.out)
    if arguments.fresh:
        _forget(out)

    _say("1/4  handwritten digits -> TFRecord shards")
    data = out / "data"
    _run("make_tfrecords.py", "--source=digits", f"--out_dir={data}", "--num_shards=4")

    bindings = [f"DATA_DIR = {str(data / 'digits')!r}", *arguments.gin_param]
    configuration = [
        f"--gin_file={_from_here(_GIN_FILE)}",
        *(f"--gin_param={binding}" for binding in bindings),
    ]
    train = [*configuration, f"--model_dir={out}"]
    _say("2/4  training and evaluation on the whole test split")
    _run("train.py", *train, "--mode=train_and_eval")

    _say("3/4  export, checked against the evaluation")
    _run("train.py", *train, "--mode=export")
    saved_model = max((out / "export").glob("[0-9]*"), key=lambda path: int(path.name))

    _say("4/4  the SavedModel classifies the test images")
    images = _write_test_images(out / "test_images")
    rows = _classify(f"--saved_model={saved_model}", str(images), "--format=jsonl")
    right = sum(Path(row["file"]).parent.name == row["classes"][0][0] for row in rows)
    for row in rows[:: len(rows) // 5][:5]:
        said = "   ".join(f"{name} {100 * value:5.1f} %" for name, value in row["classes"])
        print(f"{row['file']:<48} {said}")

    evaluation = _last_evaluation(out / "metrics.jsonl")
    if right != round(evaluation["accuracy"] * evaluation["examples"]):
        sys.exit(
            f"error: served, {right} of {len(rows)} images are right; evaluated, "
            f"{evaluation['accuracy']:.2%}. The two must agree"
        )
    board = [
        str(_from_here(Path(sys.executable).with_name("tensorboard"))),
        f"--logdir={out}/tensorboard",
    ]
    wider = ["--gin_param=create_model.width = 96", f"--model_dir={out}-wider"]
    print(
        f"""
Done in {time.monotonic() - start:.0f} s.
  test accuracy     {100 * evaluation["accuracy"]:.2f} % of {evaluation["examples"]} images, \
after {evaluation["step"]} steps
  served accuracy   {100 * right / len(rows):.2f} %, by the SavedModel
  checkpoints       {out}/checkpoints   (best: {out}/best)
  logs              {out}/metrics.jsonl, {out}/tensorboard
  pictures          {out}/pictures/predictions.png, {out}/pictures/learning_curve.png
  SavedModel        {saved_model}
  TensorBoard       {_shell(board)}
  next              {_shell(_command("train.py", *configuration))} \\
                      {_shell(wider)}
"""
    )


def _from_here(path: Path) -> Path:
    """A path as one would write it in the caller's folder: relative if it lies inside."""
    path = Path(os.path.abspath(path))  # not resolve(): the environment's python is a link
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _forget(out: Path) -> None:
    """Deletes an earlier quickstart, but no folder that holds something else."""
    if out.exists() and any(out.iterdir()):
        if not (out / "data" / "digits").exists():
            sys.exit(
                f"error: --fresh would delete {out.absolute()}, in which no quickstart has run"
            )
        shutil.rmtree(out)


def _say(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def _command(tool: str, *arguments: str) -> list[str]:
    return [
        str(_from_here(Path(sys.executable))),
        str(_from_here(_ROOT / "tools" / tool)),
        *arguments,
    ]


def _shell(command: list[str]) -> str:
    """A command as one would type it: `--gin_param="name = 'value'"`."""
    return " ".join(map(_quoted, command))


def _quoted(word: str) -> str:
    option, equals, value = word.partition("=")
    # Characters that mean something to a shell even between double quotes.
    if equals and re.search(r"[\s']", value) and not re.search(r'["$`\\!]', word):
        return f'{option}="{value}"'
    return shlex.quote(word)


def _run(tool: str, *arguments: str) -> None:
    command = _command(tool, *arguments)
    print(f"$ {_shell(command)}", flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _classify(*arguments: str) -> list[dict]:
    command = _command("predict.py", *arguments)
    print(f"$ {_shell(command)}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _write_test_images(folder: Path) -> Path:
    """Writes the test split's images as files, in a folder for each class."""
    from vit_tf.data.digits import digits_collection

    for record in digits_collection().splits["test"]:
        path = folder / str(record.label) / record.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.read())
    return folder


def _last_evaluation(metrics: Path) -> dict:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row for row in rows if row["kind"] == "eval"][-1]


if __name__ == "__main__":
    main()
