"""What both core and data need: boxes, diary, pictures. Imports nothing of ours."""

__version__ = "0.3.0"  # of the project; checkpoints, exports and diaries have it, see CHANGELOG.md
