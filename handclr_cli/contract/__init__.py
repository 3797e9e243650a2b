"""What flows between commands: fields, tar shards, NPZ files, provenance, random access."""
