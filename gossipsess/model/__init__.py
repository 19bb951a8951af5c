"""What is replicated: pure data and its merge laws. No input, no output, no clock of its own."""
