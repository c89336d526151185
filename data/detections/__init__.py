"""Tables of detections, and the files that hold them: a module a format."""
