"""Ctrl-C for a child process that a test starts."""

# Put in front of a child's code. A shell has what it runs in the background ignore SIGINT, and
# all of its children with it: pytest in the background would wait for a child that is right.
AS_IN_THE_FOREGROUND = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
