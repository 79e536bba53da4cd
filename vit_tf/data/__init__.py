"""Data: shards written and read, preprocessing as a string of ops, batches in exact order."""

from vit_tf.data.input import Input
from vit_tf.data.mixing import Mixing
from vit_tf.data.mixture import MixtureSource
from vit_tf.data.op_registry import register_op
from vit_tf.data.preprocess import Preprocess
from vit_tf.data.relabelled import RelabelledSource
from vit_tf.data.sources import Source
from vit_tf.data.subsets import FewShotSource
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource
from vit_tf.data.vtab_source import VTABSource

__all__ = [
    "FewShotSource",
    "Input",
    "Mixing",
    "MixtureSource",
    "Preprocess",
    "RelabelledSource",
    "Source",
    "TFDSSource",
    "TFRecordSource",
    "VTABSource",
    "register_op",
]
