"""Model versions: immutable folders, and an atomic pointer to the published version.

    <folder>/versions/<number>/weights.safetensors    the network's state
    <folder>/versions/<number>/version.json           VersionRecord, size and SHA-256 of the weights
    <folder>/history/<number>.json                    VersionRecord of a version that was removed for its age
    <folder>/committees/<number>/<i>.safetensors      the state of member i of that version's committee
    <folder>/committees/<number>/committee.json       what it was trained on, SHA-256 of each member
    <folder>/committees/.parts-<number>               members that are ready while the others are trained
    <folder>/current                                  number of the published version
    <folder>/last_number                              highest number ever given
    <folder>/lock                                     held by the process that writes

A version or a committee is written into a hidden folder beside the others, flushed to disk, and renamed: it exists
whole or not at all, whenever its writer is killed. Reading takes no lock.
"""

from ml_backend.learning.checkpoints.records import Version, VersionRecord
from ml_backend.learning.checkpoints.versions import Checkpoints

__all__ = ["Checkpoints", "Version", "VersionRecord"]
