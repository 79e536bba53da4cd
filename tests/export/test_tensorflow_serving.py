"""A server in a process of its own, started as `README.txt` beside the model says.

The server is the double in `serving_double.py`, since TensorFlow Serving's binary cannot be
installed here; see there what this proves and what it does not.
"""

import concurrent.futures
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from vit_tf.export.predictors.server import ServerPredictor

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": ""}
REQUESTS, THREADS = 10_000, 48


class Server:
    """The double with the container's command line out of `README.txt`."""

    def __init__(self, folder):
        self._folder = folder
        command = re.search(r"^docker run (?:.*\\\n)*.*", readme(folder), re.M)[0]
        words = shlex.split(command.replace("\\\n", " ").replace("$PWD", str(folder)))
        self._volume = words[words.index("-v") + 1]
        self._flags = words[words.index("tensorflow/serving:2.20.0") + 1 :]
        self.port = self.rest_port = 0
        self.start()

    def start(self):
        """Starts it, on the same ports if it ran before."""
        ports = [f"--port={self.port}", f"--rest_api_port={self.rest_port}"]
        double = [sys.executable, str(HERE / "serving_double.py"), f"--volume={self._volume}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([*double, *ports, *self._flags], env=ENVIRONMENT, **pipes)
        ready = json.loads(self._process.stdout.readline())
        self.port, self.rest_port = ready["port"], ready["rest_port"]

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def memory(self):
        """Resident bytes."""
        return psutil.Process(self._process.pid).memory_info().rss

    def local(self, text):
        """The README's text with the ports that the server has here."""
        text = text.replace("localhost:8501", f"127.0.0.1:{self.rest_port}")
        return text.replace("localhost:8500", f"127.0.0.1:{self.port}")


def readme(folder):
    return (folder / "README.txt").read_text()


@pytest.fixture(scope="module")
def server(served_folder):
    server = Server(served_folder)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def signature(served_folder):
    return tf.saved_model.load(str(served_folder / "1")).signatures["serving_default"]


def encode(pixels, mode, size, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).resize(size, Image.Resampling.BICUBIC).save(
        file, kind, **options
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def mixed_images(digit_images):
    """Readable images of several formats, modes and sizes, and what is none, by name."""
    pixels = [np.asarray(Image.open(io.BytesIO(image))) for image in digit_images]
    rotated = Image.Exif()
    rotated[0x0112] = 6
    good = {
        "jpeg": encode(pixels[0], "RGB", (160, 120), "JPEG"),
        "grey-jpeg": encode(pixels[1], "L", (33, 77), "JPEG"),
        "cmyk-jpeg": encode(pixels[2], "CMYK", (64, 64), "JPEG"),
        "progressive-jpeg": encode(pixels[3], "RGB", (200, 50), "JPEG", progressive=True),
        "rotated-jpeg": encode(pixels[4], "RGB", (60, 40), "JPEG", exif=rotated),
        "png": encode(pixels[5], "RGB", (21, 34), "PNG"),
        "grey-png": digit_images[6],
        "alpha-png": encode(pixels[7], "RGBA", (48, 48), "PNG"),
        "palette-png": encode(pixels[8], "P", (30, 30), "PNG"),
        "gif": encode(pixels[9], "P", (40, 30), "GIF"),
        "bmp": encode(pixels[10], "RGB", (25, 25), "BMP"),
        "one-pixel": encode(pixels[11][:1, :1], "RGB", (1, 1), "PNG"),
        "large-jpeg": encode(pixels[12], "RGB", (640, 480), "JPEG"),
    }
    bad = {
        "truncated-jpeg": good["jpeg"][: len(good["jpeg"]) // 2],
        "truncated-png": good["png"][:60],
        "empty": b"",
        "text": b"This is no image.",
        "noise": np.random.default_rng(0).bytes(500),
        "only-a-header": b"\xff\xd8\xff\xe0",
    }
    return {**good, **bad}


@pytest.fixture(scope="module")
def expected(signature, mixed_images):
    """What the SavedModel answers to each image alone."""
    answers = {}
    for name, image in mixed_images.items():
        outputs = {k: v.numpy()[0] for k, v in signature(image_bytes=tf.constant([image])).items()}
        answers[name] = {
            "logits": outputs["logits"].tolist(),
            "top_ids": outputs["top_ids"].tolist(),
            "top_names": [name.decode() for name in outputs["top_names"]],
            "error": outputs["error"].decode(),
        }
    assert 4 <= sum(bool(answer["error"]) for answer in answers.values()) <= 8
    return answers


def test_ten_thousand_requests_of_a_client_that_knows_only_the_protos(
    server, mixed_images, expected, tmp_path
):
    for name, image in mixed_images.items():
        (tmp_path / name).write_bytes(image)
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    command = [sys.executable, str(HERE / "proto_client.py"), f"127.0.0.1:{server.port}"]
    command += ["digits", str(tmp_path), str(REQUESTS), str(THREADS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    said, memory = [], []
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as client:
        for line in client.stdout:
            said.append(json.loads(line))
            memory.append(server.memory() / 2**20)
            client.stdin.write("\n")
            client.stdin.flush()
    last = said[-1]
    print(f"{last}; server's MiB after each tenth: {[round(m) for m in memory]}")
    assert client.returncode == 0
    assert last["answered"] == REQUESTS
    assert last["images"] == sum(1 + number % 4 for number in range(REQUESTS))
    assert last["unreadable"] > REQUESTS / 4
    assert last["wrong"] == []
    # Buffers and threads are there after the second tenth; 8,000 requests later nothing is added.
    assert memory[-1] - memory[1] < 10


def test_the_readmes_commands_classify(server, served_folder, expected, mixed_images, tmp_path):
    text = server.local(readme(served_folder))
    (tmp_path / "photo.jpg").write_bytes(mixed_images["jpeg"])
    run = {"cwd": tmp_path, "env": ENVIRONMENT, "capture_output": True, "text": True, "check": True}
    python = re.search(r"^import grpc\n(?:.*\n)*?    print.*\n", text, re.M)[0]
    done = subprocess.run([sys.executable, "-c", python], **run)
    assert str([name.encode() for name in expected["jpeg"]["top_names"]])[1:-1].replace(
        ", ", " "
    ) in " ".join(done.stdout.split())
    if not shutil.which("curl"):
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("no curl here to try the README's commands with")
    run["env"] = {**ENVIRONMENT, "no_proxy": "127.0.0.1"}
    status, classify = re.findall(r"^(?:echo .*\n  )?curl .*", text, re.M)
    states = json.loads(subprocess.run(["bash", "-c", status], **run).stdout)
    assert states["model_version_status"][0]["state"] == "AVAILABLE"
    answer = json.loads(subprocess.run(["bash", "-c", classify], **run).stdout)
    assert answer["outputs"]["top_names"] == [expected["jpeg"]["top_names"]]


def test_the_readmes_predict_command_classifies(
    server, served_folder, expected, mixed_images, tmp_path
):
    (tmp_path / "photo.jpg").write_bytes(mixed_images["jpeg"])
    text = server.local(readme(served_folder)).replace("photo.jpg", f"{tmp_path}/photo.jpg")
    by_grpc, by_rest = re.findall(r"^python (tools/predict.py .*)", text, re.M)
    assert by_rest == by_grpc.replace("grpc", "http").replace(
        str(server.port), str(server.rest_port)
    )
    command = [sys.executable, *shlex.split(by_grpc), "--format=jsonl"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [name for name, _ in json.loads(done.stdout)["classes"]]
    assert names == expected["jpeg"]["top_names"][: len(names)]


def test_a_server_killed_and_started_again_loses_nothing_silently(server, expected, mixed_images):
    addresses = [f"grpc://127.0.0.1:{server.port}", f"http://127.0.0.1:{server.rest_port}"]
    patient = [ServerPredictor(address, "digits", retry_for=120) for address in addresses]
    hasty = [ServerPredictor(address, "digits", retry_for=0.2) for address in addresses]
    work = [(name, i % 2) for i, name in enumerate(sorted(mixed_images) * 40)]

    def ask(predictors, name, kind):
        """True if the answer is right, or what the client reports."""
        time.sleep(0.01)
        try:
            (prediction,) = predictors[kind].classify([mixed_images[name]])
        except ConnectionError as error:
            return str(error)
        right = expected[name]
        if right["error"]:
            return prediction.error == right["error"]
        return [*prediction.names] == right["top_names"] and [*prediction.ids] == right["top_ids"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, patient, *item) for item in work]
        while sum(answer.done() for answer in answers) < len(work) // 8:
            time.sleep(0.01)
        server.kill()
        gone = [ask(hasty, *item) for item in work[:4]]
        server.start()
        assert [answer.result() for answer in answers] == [True] * len(work)
    assert all("no answer from TensorFlow Serving at" in str(answer) for answer in gone)
    assert [ask(hasty, *item) for item in work[:4]] == [True] * 4
