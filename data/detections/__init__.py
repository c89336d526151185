"""Files of detections: a module a format, and what tells them apart."""
