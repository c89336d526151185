"""What `python -m data.check` looks at: figures, findings, anchors that fit, and the page of it."""
