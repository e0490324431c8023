"""Print the global state that an application changes in its process; expected: nothing."""

import builtins
import decimal
import gc
import locale
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import jinja2
import sqlalchemy
import webob
import yaml


def snapshot():
    root, framework = logging.getLogger(), logging.getLogger("noventa")
    filters = [entry for entry in framework.filters if type(entry).__module__ != "noventa"]
    return {
        "logging": [root.level, *root.handlers, *root.filters, root.manager.disable],
        "its logger": [framework.level, *framework.handlers, *filters, framework.propagate],
        "log records": [logging.getLogRecordFactory(), logging.getLoggerClass()],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "wake-up": signal.getitimer(signal.ITIMER_REAL),
        "warnings": [*warnings.filters, warnings.showwarning],
        "hooks": [sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace()],
        "streams": [sys.stdin, sys.stdout, sys.stderr],
        "path": [*sys.path, *sys.meta_path, *sys.path_hooks],
        "environment": [dict(os.environ), Path.cwd(), locale.setlocale(locale.LC_ALL)],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold()],
        "threads": threading.enumerate(),
        "sockets": socket.getdefaulttimeout(),
        "decimal": repr(decimal.getcontext()),
        "temporary files": tempfile.tempdir,
        "builtins": dict(vars(builtins)),
        "jinja": dict(jinja2.defaults.DEFAULT_FILTERS) | dict(jinja2.defaults.DEFAULT_NAMESPACE),
        "yaml": [dict(loader.yaml_constructors) for loader in (yaml.SafeLoader, yaml.Loader)],
        "webob": [dict(vars(cls)) for cls in (webob.BaseRequest, webob.Request, webob.Response)],
        "sqlalchemy": [dict(vars(sqlalchemy.String)), sqlalchemy.MetaData().naming_convention],
    }


before = snapshot()
from wsgi import application  # noqa: E402

for path in ("/", "/old", "/stream", "/nowhere", "/files/site.css"):
    response = webob.Request.blank(path).get_response(application)
    response.body  # noqa: B018
    print(response.status, file=sys.stderr)
after = snapshot()
for name, value in before.items():
    if after[name] != value:
        print(f"{name}: {value} became {after[name]}")
