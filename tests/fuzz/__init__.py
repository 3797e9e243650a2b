"""Damaged and hostile inputs for every reader: seeded, in processes with limits.

    python -m tests.fuzz --inputs 5000

makes valid inputs of each kind (shards, NPZ files, graphs, checkpoints, runs, JSON, CSV, YAML,
TOML, landmarkers, images, videos), changes them, and gives them to the commands that read them.
What a command may do is end with one of its exit codes and one line. An `unexpected` error, a
signal, a wait of more than --limit seconds and more than 4 GB of memory are findings, and are
printed with what makes them again. Input N of a seed is the same anywhere.

`mutations` changes bytes and values, `seeds` makes what is changed, `readers` says which commands
read what, `worker` runs them in its process, `__main__` watches the workers.
"""
