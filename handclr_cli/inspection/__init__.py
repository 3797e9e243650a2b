"""What is in a file or folder."""
