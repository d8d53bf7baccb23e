"""What is decided, and how; pure: no clock, no I/O, no event loop."""
