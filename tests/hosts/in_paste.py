"""Noventa mounted below a prefix by PasteDeploy's urlmap."""

from pathlib import Path

from paste.deploy import loadapp

application = loadapp(f"config:{Path(__file__).with_name('in_paste.ini')}")
