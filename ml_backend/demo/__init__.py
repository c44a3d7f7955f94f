"""`nextmask demo`: a Label Studio of its own, a sample project, and an annotator that knows the answers.

run             starts everything, makes the project, and labels
installation    the settings of its nextmask, and the line that points commands at it
label_studio    a real Label Studio as a child process
annotator       asks Label Studio for its next task and submits the true mask
rounds          labels round by round, and waits for the worker in between
state           what is kept from one start to the next
"""
