"""Below a prefix by PasteDeploy's urlmap: see in_paste.ini."""

from pathlib import Path

from paste.deploy import loadapp


def make_noventa(global_config, **settings):
    from wsgi import application

    return application


if __name__ != "__main__":
    application = loadapp(f"config:{Path(__file__).with_suffix('.ini')}")
