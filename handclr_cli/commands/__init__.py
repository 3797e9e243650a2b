"""One file per subcommand: options, input and output, one call into a room, the summary."""
