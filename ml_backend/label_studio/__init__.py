"""The only HTTP client of Label Studio.

tokens        the two kinds of token, and whom they may be shown to
transport     one session: addresses, retries, errors
files         files from Label Studio and elsewhere: redirects, credentials, reasons
guard         connections for files, to allowed addresses only
failures      requests that got no answer, in words
queries       Data Manager queries: which tasks, in which order
client        LabelStudio: one method per thing that nextmask asks of the host
predictions   names of versions, scores, and the import of predictions
"""

from ml_backend.label_studio.client import LabelStudio

__all__ = ["LabelStudio"]
