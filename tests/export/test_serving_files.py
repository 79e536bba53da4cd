"""The files beside a model are what TensorFlow Serving reads, and an edited one is not lost."""

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from vit_tf.export.serving_files import write_serving_files

FILES = ["README.txt", "batching_parameters.txt", "model.config", "monitoring.config"]


def message_class(name, fields, imports=()):
    """A proto3 message that the api package does not contain, from its documented fields."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="test", syntax="proto3", dependency=imports
    )
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields.items(), 1):
        one = message.field.add(name=field, number=number, label="LABEL_OPTIONAL")
        if kind.startswith("."):
            one.type, one.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, kind
        else:
            one.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))


INT64, BOOL = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto
BatchingParameters = message_class(
    "BatchingParameters",
    {
        "max_batch_size": INT64,
        "batch_timeout_micros": INT64,
        "max_enqueued_batches": INT64,
        "num_batch_threads": INT64,
        "enable_large_batch_splitting": BOOL,
        "max_execution_batch_size": INT64,
    },
    [wrappers_pb2.DESCRIPTOR.name],
)
# tensorflow_serving/config/monitoring_config.proto
PrometheusConfig = message_class("PrometheusConfig", {"enable": "bool", "path": "string"})
MonitoringConfig = message_class(
    "MonitoringConfig", {"prometheus_config": ".test.PrometheusConfig"}, ["PrometheusConfig.proto"]
)


def parse(path, message):
    return text_format.Parse(path.read_text(), message)


def model_config(folder):
    config = parse(folder / "model.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    return model


def test_the_model_is_served_by_its_name_in_its_newest_version(tmp_path):
    assert write_serving_files(str(tmp_path), "digits-vit_s.16") == []
    model = model_config(tmp_path)
    assert (model.name, model.base_path) == ("digits-vit_s.16", "/models/digits-vit_s.16")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_labels_serve_the_versions_that_they_name(tmp_path):
    for version in ("3", "4"):
        (tmp_path / version).mkdir()
    write_serving_files(str(tmp_path), "digits", {"stable": 3, "canary": 4, "newest": 4})
    model = model_config(tmp_path)
    assert dict(model.version_labels) == {"stable": 3, "canary": 4, "newest": 4}
    assert list(model.model_version_policy.specific.versions) == [3, 4]
    assert "--allow_version_labels_for_unavailable_models" in (tmp_path / "README.txt").read_text()


def test_batching_parameters_hold_together(tmp_path):
    write_serving_files(str(tmp_path), "digits")
    batching = parse(tmp_path / "batching_parameters.txt", BatchingParameters())
    assert batching.enable_large_batch_splitting.value
    # More rows than run at once are split only up to the largest request.
    assert 8 <= batching.max_execution_batch_size.value <= batching.max_batch_size.value
    assert batching.num_batch_threads.value >= 1
    assert batching.max_enqueued_batches.value >= batching.num_batch_threads.value


def test_monitoring_is_on(tmp_path):
    write_serving_files(str(tmp_path), "digits")
    monitoring = parse(tmp_path / "monitoring.config", MonitoringConfig())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_the_next_export_changes_only_what_nobody_edited(tmp_path, caplog):
    write_serving_files(str(tmp_path), "digits")
    edited = tmp_path / "model.config"
    edited.write_text(edited.read_text().replace("num_versions: 1", "num_versions: 2"))
    assert write_serving_files(str(tmp_path), "other") == [str(edited)]
    assert "num_versions: 2" in edited.read_text()
    assert "/models/other" in (tmp_path / "README.txt").read_text()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"kept as it was edited: {edited}; remove it")
    edited.unlink()
    assert write_serving_files(str(tmp_path), "other") == []
    assert model_config(tmp_path).name == "other"


def test_a_file_that_somebody_else_wrote_is_kept(tmp_path):
    own = tmp_path / "model.config"
    own.write_text("")
    assert write_serving_files(str(tmp_path), "digits") == [str(own)]
    assert own.read_text() == ""


def test_nothing_is_half_written_when_writing_fails(tmp_path, monkeypatch):
    write_serving_files(str(tmp_path), "digits")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def fails(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr("tensorflow.io.gfile.rename", fails)
    with pytest.raises(OSError, match="No space"):
        write_serving_files(str(tmp_path), "other")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("a/b", None, "got 'a/b'"),
        ("", None, "got ''"),
        ("digits", {'a"b': 1}, "got 'a\"b'"),
        ("digits", {"stable": 9}, "label 'stable' names version 9: not in"),
    ],
)
def test_names_that_cannot_be_served_are_refused(tmp_path, name, labels, message):
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match=message):
        write_serving_files(str(tmp_path), name, labels)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
