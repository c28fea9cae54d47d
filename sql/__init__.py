"""Every query longer than a line, one grain a file."""
