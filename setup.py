"""Packaging of vit_tf; `pip install -e . -c constraints.txt` installs the tested versions."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "beam": ["apache-beam>=2.77,<3"],  # shards written by more than one machine
    "demo": ["gradio>=6,<7"],  # tools/demo.py
    "docs": [
        "mkdocs>=1.6,<2",
        "mkdocs-material>=9.8,<10",
        "mkdocstrings[python]>=1,<2",
    ],  # the site, `make docs`
    "litert": ["ai-edge-litert>=2.1"],
    "onnx": ["onnx", "onnxruntime", "tf2onnx>=1.17"],
    "openvino": ["openvino>=2026.1"],
    "quickstart": ["scikit-learn"],  # the bundled handwritten digits
    "peers": ["keras-hub>=0.32,<0.33"],  # beside which the benchmarks measure
    "serving": ["tensorflow-serving-api>=2.20,<2.21"],  # clients and warm-up requests
    "tpu": [
        "jax==0.10.2",
        "libtpu==0.0.52",
    ],  # tools/tpu_compile.py, which uses what jax does not promise
}

setup(
    name="vit_tf",
    version="0.1.0",
    description="A Vision Transformer model garden for TensorFlow and Keras",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vit_tf", "vit_tf.*"]),
    package_data={"vit_tf.checkpoints.public": ["catalogue.csv"]},
    install_requires=[
        "absl-py",
        "gin-config>=0.5",
        "google-crc32c>=1.5",
        "grpcio",  # asks whether a tf.data service answers
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it without declaring it
        "keras>=3.13,<4",
        "matplotlib",
        "numpy",
        "pillow",
        "psutil",
        "scipy",
        "tensorboard>=2.20,<2.21",
        "tensorflow>=2.20,<2.21",
        "tensorflow-datasets>=4.9.9",
        "tf-models-official>=2.20,<2.21",
        "tqdm",
    ],
    extras_require={
        **EXTRAS,
        "dev": [
            *(requirement for extra in EXTRAS.values() for requirement in extra),
            "hypothesis",
            "ipykernel",  # runs the notebooks of colabs/
            "nbclient",  # and executes them in tests
            "playwright",  # drives the browser in the test of the demo
            "pytest",
            "pytest-xdist",
            "pyyaml",  # reads the manifests of docs/scaling.md
            "ruff",
        ],
    },
)
