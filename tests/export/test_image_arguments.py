"""Images as a command line names them."""

from pathlib import Path

from vit_tf.export.image_arguments import list_images, names_below_common_folder, read_ahead


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_files_folders_and_patterns_are_listed_in_the_order_given(tmp_path):
    make(
        tmp_path, "z.dat", "f/b.PNG", "f/a/c.jpg", "f/notes.txt", "p/2.gif", "p/1.gif", "p/q/3.gif"
    )
    images, problems = list_images(
        [str(tmp_path / "z.dat"), str(tmp_path / "f"), str(tmp_path / "p/**/*.gif")]
    )
    found = [str(image.relative_to(tmp_path)) for image in images]
    assert found == ["z.dat", "f/a/c.jpg", "f/b.PNG", "p/1.gif", "p/2.gif", "p/q/3.gif"]
    assert problems == []


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert list_images([str(tmp_path / "a[1].jpg")]) == ([tmp_path / "a[1].jpg"], [])


def test_what_names_no_image_is_said(tmp_path):
    make(tmp_path, "f/notes.txt")
    images, problems = list_images([str(tmp_path / name) for name in ("f", "no", "*.jpg")])
    assert images == []
    assert problems == [
        f"no image (.jpg, .jpeg, .png, .bmp, .gif, .webp) in {tmp_path}/f",
        f"no such file or folder: {tmp_path}/no",
        f"no file matches {tmp_path}/*.jpg",
    ]


def test_files_are_read_in_order_a_batch_ahead_and_no_more(tmp_path, monkeypatch):
    make(tmp_path, *"abcdefgh")
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: (read.append(p.name), original(p))[1])
    problems = []
    files = [tmp_path / name for name in "abcdxefgh"]
    batches = []
    for number, batch in enumerate(read_ahead(files, 2, problems)):
        batches.append([content for _, content in batch])
        assert len(read) <= 2 * (number + 2)
    assert batches == [[b"a", b"b"], [b"c", b"d"], [b"e"], [b"f", b"g"], [b"h"]]
    assert problems == [f"{tmp_path}/x cannot be read: No such file or directory"]
    assert list(read_ahead([], 2, problems)) == []


def test_names_below_the_common_folder_are_distinct():
    names = names_below_common_folder([Path("x/a/1.jpg"), Path("x/b/1.jpg")])
    assert names == [Path("a/1.jpg"), Path("b/1.jpg")]
    assert names_below_common_folder([Path("x/a/1.jpg")]) == [Path("1.jpg")]
