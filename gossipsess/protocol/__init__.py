"""The pure state machine: events in, effects out. Time and randomness are arguments."""
