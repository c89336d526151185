"""Image files -> the pixels of a view: decoding, bit depth, resizing, where they go."""
