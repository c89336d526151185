"""What a detector found: scores of it, files, pictures and videos."""
