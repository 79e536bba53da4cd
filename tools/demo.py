r"""A local web page: drop an image, see its classes, where the model looked, and what is alike.

  python tools/demo.py --saved_model=runs/cifar10/export --gallery=photos_by_class
  python tools/demo.py --model=vit_b16 --weights=augreg_in21k_ft_in1k --class_names=imagenet.txt
  python tools/demo.py --gin_file=gin/recipes/cifar10.gin --model_dir=runs/cifar10
  python tools/demo.py --server=grpc://localhost:8500

Needs `pip install -e '.[demo]'`. The page works without the internet: nothing is loaded from
elsewhere, nothing is sent anywhere. It listens on this machine alone unless --host says otherwise.

An export shows attention if it was asked for it; models and runs with attention always do.
--gallery is a folder with one of images for each class; the page shows those most similar in the
model's features, and takes its examples from there.

An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

import predictor_flags
from absl import app, flags, logging

flags.adopt_module_key_flags(predictor_flags)  # --help shows them too
_GALLERY = flags.DEFINE_string("gallery", None, "folder of images to compare with, one a class")
_TITLE = flags.DEFINE_string("title", "What does it see?", "heading of the page")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0: for all machines")
_PORT = flags.DEFINE_integer("port", 7860, "port to listen at", 1, 65535)


def main(argv: list[str]) -> None:
    """Serves the page; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; images are dropped on the page")
    logging.set_verbosity(logging.WARNING)
    import tensorflow as tf

    from vit_tf.training.configuration import readable

    try:
        _serve()
    except KeyboardInterrupt:
        return
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        _fail(f"{readable(error)}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _serve() -> None:
    from vit_tf.export.demo_page import Demo, build_page
    from vit_tf.export.demo_server import check_port, import_gradio, launch_page
    from vit_tf.export.image_gallery import ImageGallery

    import_gradio()  # what is missing or taken is said before the model is loaded
    check_port(_HOST.value, _PORT.value)
    predictor = predictor_flags.load_predictor_of_flags()
    gallery = ImageGallery(predictor, _GALLERY.value) if _GALLERY.value else None
    for problem in gallery.problems if gallery else ():
        print(f"left out of the gallery: {problem}", file=sys.stderr)
    launch_page(build_page(Demo(predictor, gallery), _TITLE.value), _HOST.value, _PORT.value)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
