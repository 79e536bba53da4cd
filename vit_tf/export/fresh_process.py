"""A program of its own: runs signatures of a SavedModel, with nothing but TensorFlow and the CPU.

  python -P fresh_process.py SAVED_MODEL CALLS OUTPUTS INTRA_OP_THREADS INTER_OP_THREADS

Calls and outputs are checkpoint files: tensors named `<number of the call>/<signature>/<argument or
output>`. `vit_tf` cannot be imported here: what runs needs only what the SavedModel holds. See
`vit_tf.export.served_outputs`, which starts it.
"""

import sys
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

Call = tuple[str, Mapping[str, np.ndarray]]


def run_signatures(saved_model: str, calls: Iterable[Call]) -> list[dict[str, np.ndarray]]:
    """Loads a SavedModel and calls its signatures.

    Args:
      saved_model: its folder.
      calls: the name of a signature and its arguments, each.

    Returns:
      The outputs of each call by name.
    """
    loaded = tf.saved_model.load(saved_model)
    results = []
    for signature, arguments in calls:
        tensors = {name: tf.constant(value) for name, value in arguments.items()}
        outputs = loaded.signatures[signature](**tensors)
        results.append({name: value.numpy() for name, value in outputs.items()})
    return results


def write_calls(path: str, calls: Iterable[Call]) -> None:
    """Writes calls, or with outputs in place of arguments their results."""
    tensors = {
        f"{number:04d}/{signature}/{name}": tf.constant(value)
        for number, (signature, values) in enumerate(calls)
        for name, value in values.items()
    }
    whole = [""] * len(tensors)
    tf.raw_ops.SaveV2(
        prefix=path,
        tensor_names=list(tensors),
        shape_and_slices=whole,
        tensors=list(tensors.values()),
    )


def read_calls(path: str) -> list[Call]:
    """What `write_calls` wrote."""
    reader = tf.train.load_checkpoint(path)
    calls: list[Call] = []
    for key in sorted(reader.get_variable_to_shape_map()):
        number, signature, name = key.split("/")
        if int(number) == len(calls):
            calls.append((signature, {}))
        calls[-1][1][name] = reader.get_tensor(key)
    return calls


def main(saved_model: str, calls: str, outputs: str, intra_op: str, inter_op: str) -> None:
    """Runs the calls of a file, and writes their outputs to another one."""
    sys.modules["vit_tf"] = None
    for device in tf.config.list_physical_devices():
        if device.device_type != "CPU":
            tf.config.set_visible_devices([], device.device_type)
    # How sums are split among threads decides on their last bits.
    tf.config.threading.set_intra_op_parallelism_threads(int(intra_op))
    tf.config.threading.set_inter_op_parallelism_threads(int(inter_op))
    made = read_calls(calls)
    results = run_signatures(saved_model, made)
    write_calls(outputs, zip((signature for signature, _ in made), results, strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
