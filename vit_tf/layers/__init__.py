"""vit_tf."""
