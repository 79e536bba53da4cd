r"""Inference on the CPU, side by side: vit_tf, keras-hub, official.vision, and timm in PyTorch.

  make benchmark-inference TORCH_PYTHON=/path/to/python

The contenders, options and rounds of `train_step.py`, with the model's call on 16 images as the
work; `serving.py` measures exported models. For each model and precision the ratios
`inference_f32_vs_best_tf`, `inference_bf16_vs_best_tf`, `inference_f32_vs_timm_compile` and
`inference_bf16_vs_timm_compile`; more than 1 is faster than the peer.
"""

from train_step import run

if __name__ == "__main__":
    run("inference", __doc__)
