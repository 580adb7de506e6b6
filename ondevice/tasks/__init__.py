"""What models are used for: one module a task, a folder where it has several parts."""
