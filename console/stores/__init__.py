"""Stores of the console: its sessions, and the statements of its lists and of its search."""
