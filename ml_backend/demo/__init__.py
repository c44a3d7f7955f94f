"""`nextmask demo`: a Label Studio of its own, a sample project, and an annotator that knows the answers.

host        a real Label Studio as a child process
annotator   asks Label Studio for its next task and submits the true mask
"""
