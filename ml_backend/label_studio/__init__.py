"""The only HTTP client of Label Studio.

tokens        the two kinds of token, and whom they may be shown to
transport     one session: addresses, retries, errors
files         files from Label Studio and elsewhere: redirects, credentials, reasons
guard         connections for files, to allowed addresses only
failures      requests that got no answer, in words
queries       Data Manager queries: which tasks, in which order
client        LabelStudio: one method per thing that nextmask asks of the host
imports       predictions, while people delete tasks
"""

from ml_backend.label_studio.client import LabelStudio
from ml_backend.label_studio.predictions import DUPLICATE, import_for_present

__all__ = ["DUPLICATE", "LabelStudio", "import_for_present"]
