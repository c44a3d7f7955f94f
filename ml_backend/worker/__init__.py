"""The worker: it looks at each project and does what is missing, a module for each step."""
