"""Work shared between processes and threads, and command lines run one after another."""
