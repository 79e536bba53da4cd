"""Workers that were not started alike say so."""

import numpy as np
import tensorflow as tf

from vit_tf.training.worker_agreement import check_workers_agree, difference

ADDRESSES = ["host0:1", "host1:1", "host2:1"]


def test_workers_that_are_alike_have_no_difference():
    assert difference(["code", "bindings"], np.array([[1, 2]] * 3), ADDRESSES) is None


def test_each_worker_that_differs_is_named_with_what_differs():
    digests = np.array([[1, 2], [1, 3], [4, 3]])
    said = difference(["code", "bindings"], digests, ADDRESSES)
    assert "host2:1: not the code of the chief host0:1;" in said
    assert "host1:1, host2:1: not the bindings of the chief host0:1." in said


def test_one_worker_has_nobody_to_agree_with():
    check_workers_agree(tf.distribute.OneDeviceStrategy("/cpu:0"))
