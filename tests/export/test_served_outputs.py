"""A process that checks a SavedModel and does not end well is told of, and leaves nothing."""

import numpy as np
import pytest

from vit_tf.export import fresh_process
from vit_tf.export.served_outputs import served_outputs

CALLS = [("classify", {"image_bytes": np.array([b"one", b""], object)})]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('first\\nno op named Foo')", "status 1.* first | no op named Foo$"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV.*it said nothing$"),
        ("import os; os.kill(os.getpid(), 9)", "where memory runs out.*larger machine$"),
        ("import sys; sys.exit('std::bad_alloc')", "where memory runs out.*larger machine$"),
        ("import time; time.sleep(60)", "not done after 0.5 s and was ended.*more time"),
        ("import sys; sys.modules['vit_tf'] = None; import vit_tf", "import of vit_tf halted"),
    ],
)
def test_how_it_ended_is_told(tmp_path, monkeypatch, program, message):
    script = tmp_path / "program.py"
    script.write_text(program)
    monkeypatch.setattr(fresh_process, "__file__", str(script))
    folder = tmp_path / "saved_model"
    folder.mkdir()
    timeout = 0.5 if "sleep" in program else 60
    with pytest.raises(RuntimeError, match=message) as caught:
        served_outputs(str(folder), CALLS, timeout)
    assert "not published" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_calls_and_outputs_pass_through_a_file(tmp_path):
    calls = [
        ("image", {"images": np.zeros([1, 2, 3, 3], np.uint8), "other": np.float32([1.5])}),
        *CALLS,
        ("image", {"images": np.ones([1, 0, 3, 3], np.uint8)}),
    ]
    fresh_process.write_calls(str(tmp_path / "calls"), calls)
    read = fresh_process.read_calls(str(tmp_path / "calls"))
    assert [name for name, _ in read] == ["image", "classify", "image"]
    for (_, wanted), (_, found) in zip(calls, read, strict=True):
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
