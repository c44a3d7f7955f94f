"""The only HTTP client of Label Studio.

tokens        the two kinds of token, and whom they may be shown to
transport     one session: addresses, retries, errors, streaming
queries       Data Manager queries: which tasks, in which order
client        LabelStudio: one method per thing that nextmask asks of the host
"""

from ml_backend.label_studio.client import LabelStudio

__all__ = ["LabelStudio"]
