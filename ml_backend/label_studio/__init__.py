"""The HTTP client of Label Studio.

predictions   names of versions, scores, and the import of predictions
client        LabelStudio: a method for each call that nextmask makes
queries       Data Manager queries: which tasks, in which order
transport     the HTTP session: addresses, retries, errors
files         files from Label Studio and elsewhere: redirects, credentials, reasons
guard         connections for files, to allowed addresses only
tokens        the two kinds of token, and the origin that they may be sent to
failures      reasons, in words, why a request got no answer
"""

from ml_backend.label_studio.client import LabelStudio

__all__ = ["LabelStudio"]
