import re

import pytest

from vit_tf.data.image_csv import read_image_csv


@pytest.fixture
def write_csv(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"image")

    def write(*lines: str):
        path = tmp_path / "labels.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def labels(collection, split="train"):
    return [(record.filename, record.label) for record in collection.splits[split]]


def test_names_are_sorted_into_labels(write_csv):
    collection = read_image_csv(write_csv("path,label", "a.png,tulip", "b.png,daisy"))
    assert collection.class_names == ("daisy", "tulip")
    assert labels(collection) == [("a.png", 1), ("b.png", 0)]
    assert collection.splits["train"][0].read() == b"image"


def test_integers_take_their_names_from_class_name(write_csv):
    path = write_csv(
        "path,split,label,class_name",
        "a.png,train,1,tulip",
        "b.png,test,0,rose",
        "c.png,test,1,tulip",
    )
    collection = read_image_csv(path)
    assert collection.class_names == ("rose", "tulip")
    assert labels(collection) == [("a.png", 1)]
    assert labels(collection, "test") == [("b.png", 0), ("c.png", 1)]


def test_integers_alone_are_their_own_names(write_csv):
    collection = read_image_csv(write_csv("path,label", "a.png,1", "b.png,0"))
    assert collection.class_names == ("0", "1")
    assert labels(collection) == [("a.png", 1), ("b.png", 0)]


def test_columns_go_by_the_names_given(write_csv):
    collection = read_image_csv(
        write_csv("\ufefffile,kind,part", "a.png,x,val"),
        path_column="file",
        label_column="kind",
        split_column="part",
    )
    assert labels(collection, "val") == [("a.png", 0)]


def test_class_names_settle_labels_that_have_gaps(write_csv):
    collection = read_image_csv(write_csv("path,label", "a.png,2"), class_names=["x", "y", "z"])
    assert collection.class_names == ("x", "y", "z")
    assert labels(collection) == [("a.png", 2)]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (
            ["path,lable", "a.png,x"],
            {},
            "{csv} has no column 'label'. Did you mean 'lable'? Its columns are path, lable",
        ),
        (["path,label"], {}, "{csv} has a header but no rows"),
        (["path,label", "a.png,x", "b.png,"], {}, "{csv} line 3: column 'label' is empty"),
        (["path,label", "a.png"], {}, "{csv} line 2: column 'label' is empty"),
        (
            ["path,label", "a.png,daisy", "b.png,tulipe"],
            {"class_names": ["daisy", "tulip"]},
            "{csv} line 3: label 'tulipe' is not among the 2 class names. Did you mean 'tulip'?",
        ),
        (
            ["path,label", "a.png,0", "b.png,2"],
            {"class_names": ["daisy", "tulip"]},
            "{csv} line 3: label 2 is outside 0..1 (2 class names)",
        ),
        (
            ["path,label", "a.png,0", "b.png,2"],
            {},
            "{csv}: labels go up to 2 but no row has label 1; number the classes from 0 without a "
            "gap, or name them all with --class_names",
        ),
        (
            ["path,label,class_name", "a.png,0,x", "b.png,0,y"],
            {},
            "{csv} line 3: label 0 is 'y', but 'x' elsewhere",
        ),
        (
            ["path,label,class_name", "a.png,0,x", "b.png,1,x"],
            {},
            "{csv}: class name 'x' stands for more than one label",
        ),
    ],
)
def test_bad_rows_are_named(write_csv, lines, options, message):
    path = write_csv(*lines)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(csv=path))}$"):
        read_image_csv(path, **options)


def test_all_missing_files_are_listed_with_their_lines(write_csv, tmp_path):
    path = write_csv("path,label", "a.png,x", "no.png,x", "b.png,y", "nor/this.png,y")
    message = (
        f"{path} lists 2 files that {tmp_path} does not hold (paths are relative to the CSV):\n"
        "  line 3: no.png\n  line 5: nor/this.png"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_image_csv(path)


def test_a_missing_csv_is_named(tmp_path):
    message = f"{tmp_path}/no.csv: no such file; give a CSV with a header line"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        read_image_csv(tmp_path / "no.csv")
