"""The state machine in a world made of numbers: virtual time, faults drawn from one seed, and checkers."""
