"""HTTP: routes, the one function that answers for the list, and its middleware in front of Quart."""
