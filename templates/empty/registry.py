# registry.py: the whole application on one page
from noventa import Page, Registry

registry = Registry(
    components=[],
    models=[],
    routes=[
        Page("/", "pages/index.html"),
    ],
    seeds=[],
)
