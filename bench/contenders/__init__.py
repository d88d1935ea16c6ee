"""The applications to compare with, each in a file of its own, so that readers can judge their fairness.

Each page-building contender keeps its list in the process and builds its page for each request, as such an
application does. Like the tutorial, no contender escapes names, except `flask_sqlite`, which stores names
permanently.
"""
