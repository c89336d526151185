"""What both core and data need: boxes, diary, pictures. Imports nothing of ours."""
