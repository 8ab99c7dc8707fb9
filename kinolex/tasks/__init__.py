"""What is given and what is asked: tasks as values, each with a half in pixels and a half in tokens."""
