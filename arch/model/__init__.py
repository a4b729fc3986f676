"""The model around the mixers: backbone, block, heads, decoding, published sizes, attribution."""
