"""One run on disk: its private state folder, its published files, and where it was computed."""
