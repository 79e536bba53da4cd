"""What the check of a SavedModel says when it cannot compare."""

import pytest
import tensorflow as tf

from vit_tf.export.check import first_examples


class DamagedInput:
    """An evaluation input whose first record cannot be read."""

    def __init__(self, diagnosis):
        self._diagnosis = diagnosis

    def __call__(self):
        raise tf.errors.DataLossError(None, None, "corrupted record at 0")

    def diagnose(self):
        return self._diagnosis


@pytest.mark.parametrize(
    ("diagnosis", "message"),
    [("a.tfrecord record 0: damaged", "a.tfrecord record 0"), (None, "corrupted record at 0")],
)
def test_images_that_cannot_be_read_are_named_and_not_taken_for_a_full_disk(diagnosis, message):
    with pytest.raises(ValueError, match=message):
        first_examples(DamagedInput(diagnosis))
