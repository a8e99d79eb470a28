"""Synchronous drivers in processes of their own: what the daemon's end and theirs have in common.

A driver (SQLite's, PostgreSQL's, Redis's) says what it can be asked in frames of its own; here is how those move, how
its process is started and ended, and the loop that serves it. What is asked, and by whom, is not known here.
"""
