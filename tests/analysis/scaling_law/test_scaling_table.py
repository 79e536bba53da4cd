"""A CSV file of models becomes points, and what is wrong in it is named with its line."""

import pytest

from vit_tf.analysis.scaling_law import ScalingPoint, read_scaling_points


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file; returns its path."""

    def write(text, encoding="utf-8"):
        path = tmp_path / "models.csv"
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_columns_are_found_by_title_in_any_order(table):
    path = table("lr,error,model,compute\n0.1,0.25,vit_s16,1e18\n0.3,0.5,vit_ti16,2000\n")
    first, second = read_scaling_points(path)
    assert (first.compute, first.error, first.model) == (1e18, 0.25, "vit_s16")
    assert (second.compute, second.error, second.model) == (2000.0, 0.5, "vit_ti16")


def test_the_column_of_models_is_optional_and_spaces_do_not_matter(table):
    (point,) = read_scaling_points(str(table("compute, error\n 1e3, 0.5\n\n", "utf-8-sig")))
    assert isinstance(point, ScalingPoint)
    assert (point.compute, point.error, point.model) == (1000.0, 0.5, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column compute and no column error; its first line has nothing"),
        ("compute,accuracy\n1,0.5\n", "no column error; its first line has compute, accuracy"),
        ("run,width,accuracy,step,state\n", "summary of a sweep: give the sweep's folder"),
        ("compute,error\n", "has titles and no line below"),
        ("compute,error\n1,0.5\nx,0.5\n", "models.csv, line 3: compute is a number; given 'x'"),
        ("compute,error\n1\n", "line 2: error is a number; given None"),
        ("compute,error\n1,25\n", r"line 2: error is a share .* divide percentages by 100"),
        ("compute,error\n0,0.5\n", "line 2: compute is a positive number"),
    ],
)
def test_what_is_no_table_of_models_is_refused(table, text, message):
    with pytest.raises(ValueError, match=message):
        read_scaling_points(table(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*nothing.csv"):
        read_scaling_points(tmp_path / "nothing.csv")
