"""Digits to a served ViT in a few minutes: writes shards, trains, evaluates, exports, classifies.

Run it with `make quickstart`. Every step is a command that you can run yourself; each is printed.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings, in all steps

_ROOT = Path(__file__).resolve().parents[1]
_GIN_FILE = "gin/quickstart.gin"
# Runs a tool in a process in which `import vit_tf` fails, as on a machine that only serves.
_WITHOUT_VIT_TF = (
    "import runpy, sys; sys.modules['vit_tf'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def main() -> None:
    """Runs all steps and ends with a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/quickstart", help="where everything goes")
    parser.add_argument(
        "--gin_param", action="append", default=[], help="a gin binding for all training commands"
    )
    parser.add_argument("--fresh", action="store_true", help="forget an earlier quickstart first")
    arguments = parser.parse_args()
    start = time.monotonic()
    out = Path(arguments.out)
    if arguments.fresh:
        shutil.rmtree(_ROOT / out, ignore_errors=True)

    _say("1/4  handwritten digits -> TFRecord shards")
    data = out / "data"
    _run("tools/make_tfrecords.py", "--source=digits", f"--out_dir={data}", "--num_shards=4")

    bindings = [f"DATA_DIR = '{data}/digits'", *arguments.gin_param]
    train = [
        "tools/train.py",
        f"--gin_file={_GIN_FILE}",
        f"--model_dir={out}",
        *(f"--gin_param={binding}" for binding in bindings),
    ]
    _say("2/4  training and evaluation on the whole test split")
    _run(*train, "--mode=train_and_eval")

    _say("3/4  export, checked against the evaluation")
    _run(*train, "--mode=export")
    saved_model = max((_ROOT / out / "export").glob("[0-9]*"), key=lambda path: int(path.name))
    saved_model = saved_model.relative_to(_ROOT)

    _say("4/4  the SavedModel classifies the test images, in a process without vit_tf")
    images = _write_test_images(_ROOT / out / "test_images")
    arguments_of_predict = [f"--saved_model={saved_model}", str(images.relative_to(_ROOT))]
    rows = _classify("tools/predict.py", *arguments_of_predict, "--format=jsonl")
    right = sum(Path(row["file"]).parent.name == row["classes"][0][0] for row in rows)
    for row in rows[:: len(rows) // 5][:5]:
        said = "   ".join(f"{name} {100 * value:5.1f} %" for name, value in row["classes"])
        print(f"{row['file']:<48} {said}")

    evaluation = _last_evaluation(_ROOT / out / "metrics.jsonl")
    if right != round(evaluation["accuracy"] * evaluation["examples"]):
        sys.exit(
            f"error: served, {right} of {len(rows)} images are right; evaluated, "
            f"{evaluation['accuracy']:.2%}. The two must agree"
        )
    print(
        f"""
Done in {time.monotonic() - start:.0f} s.
  test accuracy     {100 * evaluation["accuracy"]:.2f} % of {evaluation["examples"]} images, \
after {evaluation["step"]} steps
  served accuracy   {100 * right / len(rows):.2f} %, SavedModel in a process without vit_tf
  checkpoints       {out}/checkpoints   (best: {out}/best)
  logs              {out}/metrics.jsonl, {out}/tensorboard
  pictures          {out}/pictures/predictions.png
  SavedModel        {saved_model}
  TensorBoard       .venv/bin/tensorboard --logdir {out}/tensorboard
  next              .venv/bin/python tools/train.py --gin_file={_GIN_FILE} --model_dir=runs/wider \\
                      --gin_param="create_model.width = 96"
"""
    )


def _say(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def _run(tool: str, *arguments: str) -> None:
    print("$ python " + shlex.join([tool, *arguments]), flush=True)
    done = subprocess.run([sys.executable, tool, *arguments], cwd=_ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _classify(tool: str, *arguments: str) -> list[dict]:
    print("$ python " + shlex.join([tool, *arguments]), flush=True)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_VIT_TF, tool, *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
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
