"""The hand: joints, alignments, square crops, cameras, films of it."""
