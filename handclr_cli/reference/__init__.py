"""The reference of the commands, made from the parser: a page of Markdown, and man pages."""
