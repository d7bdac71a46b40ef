"""The Ray actors, one process kind a file, each with its group facade."""
