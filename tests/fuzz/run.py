"""Coverage-guided fuzzing with atheris (`requirements/fuzz.txt`): `python tests/fuzz/run.py TARGET --seconds 600`.

Inputs found are kept in the folder of `--corpus`, so a later run goes on from there. An input that breaks a property,
takes longer than `--timeout` seconds or more than `--memory` MiB ends the run, and is kept as `crash-…`, `timeout-…`
or `oom-…` in the folder of `--findings`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]  # tests/strategies must not hide the package
JSON_TARGETS = {"checkpoints", "extra_params", "requests", "results", "tasks"}


def main() -> None:
    """Fuzz one target."""
    arguments = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import atheris

    with atheris.instrument_imports(include=["ml_backend", "PIL"] if arguments.target == "images" else ["ml_backend"]):
        from fuzz.mutation import mutated_json
        from fuzz.seeds import seeds
        from fuzz.targets import TARGETS

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        before, body, after = _split(data, arguments.target)
        found = mutated_json(body, seed) if seed % 4 else None
        if found is None or len(before + found + after) > max_size:
            return bytes(atheris.Mutate(data, max_size))
        return before + found + after

    corpus, findings = arguments.corpus / arguments.target, arguments.findings / arguments.target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(arguments.target):
        TARGETS[arguments.target](seed)  # the first one imports and trains what is needed, which is no hang
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = [
        sys.argv[0],
        f"-max_total_time={arguments.seconds}",
        f"-timeout={arguments.timeout}",
        f"-rss_limit_mb={arguments.memory}",
        f"-artifact_prefix={findings}/",
        "-max_len=65536",
        "-print_final_stats=1",
        str(corpus),
    ]
    kind = {"custom_mutator": mutate} if arguments.target in JSON_TARGETS else {}
    atheris.Setup(options, TARGETS[arguments.target], **kind)
    atheris.Fuzz()


def _split(data: bytes, target: str) -> tuple[bytes, bytes, bytes]:
    """What stands before an input's JSON, the JSON, and what stands after it."""
    first, zero, second = data.partition(b"\0")
    if target == "requests":
        return first + zero, second, b""
    return (b"", first, zero + second) if target == "checkpoints" else (b"", data, b"")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--timeout", type=int, default=20, help="seconds for one input: more is a hang")
    parser.add_argument("--memory", type=int, default=2048, help="MiB for the process")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz/corpus"))
    parser.add_argument("--findings", type=Path, default=Path(".fuzz/findings"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
