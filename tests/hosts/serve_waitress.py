"""`python serve_waitress.py 8000`: waitress, which finishes running requests after SIGTERM."""

import signal
import sys

import waitress
from wsgi import application

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
waitress.serve(application, host="127.0.0.1", port=int(sys.argv[1]), threads=8, ident=None)
