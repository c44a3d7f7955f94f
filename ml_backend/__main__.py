"""`python -m ml_backend` is `nextmask`."""

from ml_backend.cli.app import main

if __name__ == "__main__":
    main()
