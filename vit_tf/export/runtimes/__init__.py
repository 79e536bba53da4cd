"""Other runtimes that run an exported model: one file for each, found by being there."""

from vit_tf.export.runtimes.comparison import compare, comparison_table
from vit_tf.export.runtimes.conversion import convert, load
from vit_tf.export.runtimes.registry import all_kinds

__all__ = ["all_kinds", "compare", "comparison_table", "convert", "load"]
