"""What is measured beside the service, each in a file of its own, to be judged for fairness.

Each page-building contender keeps its list in the process and builds its page for each request, as such an
application does. They escape nothing, as the tutorial does not, save the one that stores names for good.
"""
