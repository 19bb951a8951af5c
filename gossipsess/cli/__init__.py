"""The command line; nothing is imported before a command needs it."""
