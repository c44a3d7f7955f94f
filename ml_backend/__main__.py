"""`nextmask`, which is `python -m ml_backend`, too."""

import sys

from ml_backend.system.installed_files import damage


def main() -> None:
    """Run a command; where nextmask's own files were replaced or removed, that is said in place of a traceback."""
    try:
        from ml_backend.cli.app import main as run
        from strategies import create  # noqa: F401 (another package of that name has none)

        run()
    except Exception:  # old packages fail in other ways than by an ImportError
        found = damage()
        if found is None or not found.is_fatal:
            raise
        sys.stderr.write(f"Error: {found.message}. {found.remedy}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
