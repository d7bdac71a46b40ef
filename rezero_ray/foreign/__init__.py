"""Environments in an interpreter of their own: the interpreter, the child process in it, and what runs there."""
