"""A traced model as data: the graph, the table of its operations, and passes over it."""
