"""Text from trained models, and how fast they make it."""
