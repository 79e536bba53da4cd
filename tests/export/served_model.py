"""A SavedModel run as TensorFlow Serving runs it; see `serving_double`."""

import concurrent.futures
import dataclasses
import queue
import re
import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

WAIT = 60.0  # seconds; nothing waits for ever


class Refused(Exception):
    """A request that is answered with a status code and a sentence."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


@dataclasses.dataclass(frozen=True)
class Batching:
    """What `BatchingParameters` says, as far as it changes which requests run together."""

    max_execution_batch_size: int
    batch_timeout: float  # seconds
    threads: int
    max_enqueued: int

    @classmethod
    def read(cls, path):
        """Reads a `batching_parameters.txt`."""
        values = dict(re.findall(r"^(\w+) \{ value: (\w+) \}$", Path(path).read_text(), re.M))
        rows = int(values["max_execution_batch_size"])
        return cls(
            max_execution_batch_size=rows,
            batch_timeout=int(values["batch_timeout_micros"]) / 1e6,
            threads=int(values["num_batch_threads"]),
            max_enqueued=int(values["max_enqueued_batches"]) * rows,
        )


class ServedModel:
    """A version of a model: loads it, answers its warm-up requests, and then anybody's.

    With `batching`, requests of several clients for one signature run as one batch and are taken
    apart again; if the run fails, it fails for all of them, as it does in TensorFlow Serving.
    """

    def __init__(self, folder, batching=None):
        self._model = tf.saved_model.load(str(folder))
        self.signatures = dict(self._model.signatures)
        self._batching = batching
        self._queues = {}
        if batching is not None:
            for name, function in self.signatures.items():
                self._queues[name] = queue.Queue(batching.max_enqueued)
                for _ in range(batching.threads):
                    arguments = (function, self._queues[name], batching)
                    threading.Thread(target=_run_batches, args=arguments, daemon=True).start()
        self.warmed_up = self._warm_up(folder / "assets.extra" / "tf_serving_warmup_requests")

    def predict(self, signature, inputs):
        """Outputs by name for numpy inputs by name."""
        signature = signature or "serving_default"
        if signature not in self.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        function = self.signatures[signature]
        expected = set(function.structured_input_signature[1])
        if set(inputs) != expected:
            raise Refused(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {sorted(inputs)} for {sorted(expected)}",
            )
        if self._batching is None:
            return _run(function, inputs)
        return self._predict_batched(signature, inputs)

    def _predict_batched(self, signature, inputs):
        """Enqueues a request, in pieces that fit into a batch."""
        rows = len(next(iter(inputs.values())))
        if rows == 0:
            raise Refused("INTERNAL", "Batch size expected to be positive; was 0")
        size = self._batching.max_execution_batch_size
        waiting = []
        for first in range(0, rows, size):
            piece = {name: values[first : first + size] for name, values in inputs.items()}
            answer = concurrent.futures.Future()
            try:
                self._queues[signature].put_nowait((piece, answer))
            except queue.Full:
                raise Refused("UNAVAILABLE", "The batch scheduling queue is full") from None
            waiting.append(answer)
        pieces = [answer.result(WAIT) for answer in waiting]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _warm_up(self, path):
        """How many requests were answered; one that fails keeps the model from being served."""
        if not path.exists():
            return 0
        count = 0
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            self.predict(request.model_spec.signature_name, inputs)
            count += 1
        return count


def _run(function, inputs):
    try:
        outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise Refused("INVALID_ARGUMENT", str(error)) from error
    return {name: value.numpy() for name, value in outputs.items()}


def _run_batches(function, tasks, batching):
    """Runs what is in the queue, together what comes together, as long as the process lives."""
    left = None
    while True:
        first = left or tasks.get()
        left = None
        batch, rows = [first], _rows(first)
        end = time.monotonic() + batching.batch_timeout
        while rows < batching.max_execution_batch_size:
            try:
                task = tasks.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if rows + _rows(task) > batching.max_execution_batch_size:
                left = task
                break
            batch.append(task)
            rows += _rows(task)
        _answer(function, batch)


def _rows(task):
    inputs, _ = task
    return len(next(iter(inputs.values())))


def _answer(function, batch):
    """Merges the requests of a batch, runs them, and gives each its rows."""
    try:
        names = batch[0][0].keys()
        merged = {}
        for name in names:
            values = [inputs[name] for inputs, _ in batch]
            if len({value.shape[1:] for value in values}) > 1:
                raise Refused(
                    "FAILED_PRECONDITION",
                    f"Tensors with name '{name}' from different tasks have different shapes and "
                    "padding is turned off.",
                )
            merged[name] = np.concatenate(values)
        outputs = _run(function, merged)
    except Exception as error:  # whatever it is, the clients wait for an answer
        for _, answer in batch:
            answer.set_exception(error)
        return
    first = 0
    for task in batch:
        rows = _rows(task)
        task[1].set_result({name: v[first : first + rows] for name, v in outputs.items()})
        first += rows
