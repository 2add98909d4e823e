"""The process that scores, what it is given next, and how it is watched."""
