"""A SavedModel is found by its folder or by that of its numbered versions."""

import pytest

from vit_tf.export.saved_model_folder import find_saved_model


def write(folder):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    return str(folder)


def test_the_folder_of_a_saved_model_is_itself(tmp_path):
    given = write(tmp_path / "model")
    write(tmp_path / "model" / "7")
    assert find_saved_model(given) == given


def test_of_numbered_folders_the_newest_whole_one_is_taken(tmp_path):
    write(tmp_path / "9")
    tenth = write(tmp_path / "10")
    (tmp_path / "11").mkdir()
    write(tmp_path / ".incomplete-host-12")
    assert find_saved_model(str(tmp_path)) == tenth


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_one_says_how_to_write_one(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=f"^{tmp_path}.* is no SavedModel, .*; write one with"
    ):
        find_saved_model(str(tmp_path / name))
