"""What docs/scaling.md shows exists: tools, flags, gin files, names in bindings, valid YAML."""

import importlib
import json
import re
import shlex
from pathlib import Path

import gin
import pytest
import yaml

from vit_tf.training import configuration
from vit_tf.training.cluster import check_cluster, workers

importlib.import_module("vit_tf.training.run")  # makes itself known to gin
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(tool: str) -> list[list[str]]:
    """The arguments of each shown call of a tool."""
    text = "\n".join(block for _, block in BLOCKS).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if f"python tools/{tool}" in line]
    return [shlex.split(line.partition(f"tools/{tool}")[2], comments=True) for line in lines]


@pytest.mark.parametrize("tool, least", [("train.py", 9), ("data_service.py", 2)])
def test_the_flags_of_each_command_exist(tool, least):
    source = (ROOT / "tools" / tool).read_text()
    known = set(re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", source))
    assert len(commands(tool)) >= least
    for arguments in commands(tool):
        assert all(argument.startswith("--") for argument in arguments), arguments
        assert {argument[2:].partition("=")[0] for argument in arguments} <= known


@pytest.mark.parametrize("arguments", commands("train.py"), ids=str)
def test_gin_knows_the_files_and_bindings_of_each_training_command(arguments):
    values = [argument.partition("=")[::2] for argument in arguments]
    try:
        configuration.parse(
            [value for name, value in values if name == "--gin_file"],
            [value for name, value in values if name == "--gin_param"],
        )
        assert configuration.bound("RunConfig")().epochs == 300
    finally:
        gin.clear_config()


def test_the_kubernetes_file_starts_as_many_workers_as_it_names():
    (text,) = (block for language, block in BLOCKS if language == "yaml")
    service, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    (script,) = pod["containers"][0]["args"]
    config = re.search(r"TF_CONFIG='(.*)'$", script, re.MULTILINE)[1]
    config = json.loads(config.replace("'$JOB_COMPLETION_INDEX'", "1"))
    names = [address.partition(":")[0] for address in config["cluster"]["worker"]]
    name = job["metadata"]["name"]
    assert names == [f"{name}-{n}.{pod['subdomain']}" for n in range(job["spec"]["completions"])]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]


def test_the_cluster_that_is_written_by_hand_is_read(monkeypatch):
    text = re.search(r"^export TF_CONFIG='(.*)'$", PAGE, re.MULTILINE)[1]
    monkeypatch.setenv("TF_CONFIG", text)
    check_cluster()
    assert workers() == ["host0:12345", "host1:12345"]
